// Measures a log alone: appends by batch size, checkpoint, cut, load.
//
//     log_bench FOLDER [ROWS]           SQLite, in a database file of its own
//     log_bench postgresql://… [ROWS]   PostgreSQL, in an empty database that is for this only
//
// Prints throughput, CPU time of this process per row (PostgreSQL's processes have theirs), and the longest
// single call, which is how long commits may stall. The folder must exist and should be on the disk that the
// server will use: fsync decides about small batches.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <functional>
#include <string>

#include <sys/resource.h>

#include "backend/log.hpp"
#include "backend/shared_log.hpp"

namespace {

using namespace isthmus::backend;  // NOLINT(google-build-using-namespace): a program of one file

constexpr std::size_t kKeys = 1'000'000;
constexpr OriginId kOrigin = 0x2234567812345678;

double wall_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

/// Calls `step`, which returns how many rows it did, until `rows` are done or it does none.
void measure(const std::string& what, std::size_t rows, const std::function<std::size_t()>& step) {
  std::size_t done = 0, calls = 0;
  double longest = 0;
  const double wall = wall_seconds(), cpu = cpu_seconds();
  while (done < rows) {
    const double before = wall_seconds();
    const std::size_t some = step();
    longest = std::max(longest, wall_seconds() - before);
    if (some == 0) break;
    done += some;
    ++calls;
  }
  const double seconds = wall_seconds() - wall, used = cpu_seconds() - cpu;
  const auto count = static_cast<double>(std::max<std::size_t>(done, 1));
  std::printf("%-28s %9.0f rows/s %8.0f calls/s %7.2f us CPU/row %8.2f ms longest\n", what.c_str(),
              count / seconds, static_cast<double>(calls) / seconds, used / count * 1e6, longest * 1e3);
}

std::string key_name(std::size_t number) {
  char text[32];
  std::snprintf(text, sizeof text, "key:%012zu", number);
  return text;
}

/// Keys in no order, as a hash table gives them: a step that is coprime to their number visits each once.
std::size_t scattered(std::size_t index) { return index * 618'033 % kKeys; }

class Writer {
 public:
  explicit Writer(Log& log) : log_(log) {}

  std::size_t append(std::size_t batch_size) {
    batch_.clear();
    for (std::size_t i = 0; i < batch_size; ++i) {
      const std::string key = key_name(scattered(seq_));
      Row row;
      row.site = log_.site();
      row.origin = kOrigin;
      row.seq = ++seq_;
      row.version = (std::uint64_t{1'700'000'000'000} << 16U) + seq_;
      row.key = key;
      row.value = "xxx";
      batch_.append(row);
    }
    log_.append(batch_);
    return batch_size;
  }

  /// `stride` 0: in no order; else every stride-th key, in the order of the keys.
  std::size_t checkpoint(std::size_t chunk_size, std::size_t stride) {
    CheckpointChunk chunk;
    for (std::size_t i = 0; i < chunk_size; ++i) {
      StoredKey key;
      key.key = key_name(stride == 0 ? scattered(stored_) : stored_ * stride % kKeys);
      ++stored_;
      key.type = StoredType::string;
      key.value = "xxx";
      key.version = key.cut_version = key.expire_version =
          (std::uint64_t{1'700'000'000'000} << 16U) + stored_;
      key.site = key.cut_site = key.expire_site = log_.site();
      chunk.keys.push_back(std::move(key));
    }
    log_.write_checkpoint(chunk);
    return chunk_size;
  }

  Seq seq() const { return seq_; }

 private:
  Log& log_;
  RowBatch batch_;
  Seq seq_ = 0;
  std::size_t stored_ = 0;
};

struct Counter : LoadSink {
  void key(const StoredKey& /*key*/) override { ++rows; }
  void field(const StoredField& /*field*/) override { ++rows; }
  void row(const Row& /*row*/) override { ++rows; }
  std::size_t rows = 0;
};

void measure_load(Log& log, const std::string& what) {
  measure(what, 1, [&] {
    Counter counter;
    log.load(counter);
    return counter.rows;
  });
}

void measure_appends(Writer& writer, std::size_t rows) {
  for (const std::size_t size : {1, 25, 100, 1000, 10'000}) {
    const std::size_t wanted = std::min(rows, size * 10'000);
    measure("append, batches of " + std::to_string(size), wanted, [&] { return writer.append(size); });
  }
}

void measure_checkpoint(Log& log) {
  Writer checkpointer(log);
  measure("checkpoint, new, no order", kKeys, [&] { return checkpointer.checkpoint(1000, 0); });
  measure("checkpoint, known, no order", kKeys / 4, [&] { return checkpointer.checkpoint(1000, 0); });
  measure("checkpoint, all in order", kKeys, [&] { return checkpointer.checkpoint(1000, 1); });
  measure("checkpoint, a tenth in order", kKeys / 10, [&] { return checkpointer.checkpoint(1000, 10); });
}

void measure_flush(Log& log) {
  measure("forget_flushed", kKeys, [&] {
    return log.forget_flushed(0, std::uint64_t{1} << 62U, log.site()) ? std::size_t{2000} : std::size_t{0};
  });
}

void run_sqlite(const std::string& folder, std::size_t rows) {
  const std::string path = folder + "/log_bench.db";
  const std::string url = "sqlite:" + path;
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
  std::unique_ptr<Log> log = open_log(url);
  Writer writer(*log);
  measure_appends(writer, rows);
  log = nullptr;
  log = open_log(url);
  measure_load(*log, "load of the log");
  measure_checkpoint(*log);
  log->finish_checkpoint({{kOrigin, writer.seq()}});
  measure("cut", writer.seq(), [&] { return log->cut() ? std::size_t{5000} : std::size_t{0}; });
  log = nullptr;
  log = open_log(url);
  measure_load(*log, "load of the checkpoint");
  std::printf("database: %.1f MB\n", static_cast<double>(log->disk_bytes()) / 1e6);
  measure_flush(*log);
  log = nullptr;
  for (const char* suffix : {"", "-wal", "-shm"}) std::filesystem::remove(path + suffix);
}

/// Reads all that a starting server reads.
void measure_feed_read(SharedLog& log, const std::string& what) {
  const std::unique_ptr<Feed> feed = log.open_feed();
  feed->begin();
  measure(what, 1, [&] {
    Counter counter;
    feed->read_state(counter);
    return counter.rows;
  });
}

void run_postgresql(const std::string& url, std::size_t rows) {
  const std::unique_ptr<Log> opened = open_log(url);
  SharedLog& log = *opened->shared();
  std::string why;
  if (!log.connect(why)) throw OpenError(why);
  if (!log.try_lock()) throw OpenError("another server uses this database");
  ServerRow self;
  self.id = kOrigin;
  log.upkeep(self, kOrigin);  // makes partitions
  Row lease;
  lease.site = log.site();
  lease.origin = kOrigin + 1;
  lease.seq = 1;
  lease.version = 1;
  lease.kind = RowKind::lease;
  lease.requester = kOrigin;
  RowBatch batch;
  batch.append(lease);
  log.append(batch, {});
  log.guard_checkpoint(lease.origin);
  Writer writer(log);
  measure_appends(writer, rows);
  measure_feed_read(log, "read of the log by a start");
  measure_checkpoint(log);
  log.finish_checkpoint({{kOrigin, writer.seq()}, {lease.origin, lease.seq}});
  measure_feed_read(log, "read of the checkpoint");
  measure_flush(log);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: %s FOLDER|URL [ROWS]\n", argv[0]);
    return 2;
  }
  try {
    const std::string where = argv[1];
    const std::size_t rows = argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 1'000'000;
    if (where.find("://") != std::string::npos)
      run_postgresql(where, rows);
    else
      run_sqlite(where, rows);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
