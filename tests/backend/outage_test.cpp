// The world fails under the SQLite log: it says so, loses nothing, and goes on when the cause is gone.
#include <csignal>
#include <filesystem>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "backend/sqlite_log.hpp"
#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// While it lives no file of this process grows beyond so many bytes: a full disk that needs no privilege.
class FullDisk {
 public:
  explicit FullDisk(std::uint64_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    rlimit limit = before_;
    limit.rlim_cur = bytes;
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  rlimit before_{};
  void (*handler_)(int);
};

/// So many keys with values of a few kilobytes.
CheckpointChunk make_checkpoint(int keys) {
  CheckpointChunk chunk;
  for (int i = 0; i < keys; ++i) {
    StoredKey key;
    key.key = "key" + std::to_string(i);
    key.type = StoredType::string;
    key.value.assign(3000, 'v');
    key.version = 1;
    chunk.keys.push_back(std::move(key));
  }
  return chunk;
}

class Outage : public ::testing::Test {
 protected:
  Outage() { open(); }

  void open() {
    SqliteOptions options;
    options.busy_timeout_ms = 10;
    log_ = open_sqlite_log(folder_.path(), options);
  }

  /// Appends the next row: the words of the failure, or nothing.
  std::string append(std::size_t value_size = 1) {
    const std::string value(value_size, 'v');
    const std::string reason =
        reason_of([&] { log_->append(make_batch({make_row(seq_ + 1, RowKind::set, "k", "", value)})); });
    if (reason.empty()) ++seq_;
    return reason;
  }

  template <typename Action>
  std::string reason_of(const Action& action) {
    try {
      action();
    } catch (const AppendError& error) {
      EXPECT_EQ(error.kind, AppendError::Kind::unavailable) << error.what();
      EXPECT_THAT(error.what(), HasSubstr(folder_.url()));
      return error.what();
    }
    return "";
  }

  /// Opens the database anew and expects exactly the rows that were acknowledged.
  void expect_all_there(const std::string& url) const {
    const Recorder recorder = load(url);
    ASSERT_EQ(recorder.rows.size(), seq_);
    for (Seq seq = 1; seq <= seq_; ++seq) EXPECT_EQ(recorder.rows[seq - 1].row.seq, seq);
  }
  void expect_all_there() {
    log_ = nullptr;
    expect_all_there(folder_.url());
    EXPECT_EQ(query_lines(folder_.path(), "PRAGMA integrity_check"), std::vector<std::string>{"ok"});
    EXPECT_EQ(query_integer(folder_.path(), "SELECT count(*) FROM log"), static_cast<std::int64_t>(seq_))
        << "nothing is there twice";
  }

  /// What a crash at this moment would leave.
  std::string copy_of_files(const std::string& name) const {
    for (const char* suffix : {"", "-wal"}) {
      if (fs::exists(folder_.path() + suffix))
        fs::copy_file(folder_.path() + suffix, folder_.path(name) + suffix);
    }
    return folder_.url(name);
  }

  TempFolder folder_;
  std::unique_ptr<Log> log_;
  Seq seq_ = 0;
};

TEST_F(Outage, OfSpaceEndsWhenThereIsSpace) {
  ASSERT_EQ(append(), "");
  {
    const FullDisk full(fs::file_size(folder_.path() + "-wal") + (64U << 10U));
    std::string reason;
    for (int i = 0; i < 1000 && reason.empty(); ++i) reason = append(1000);
    EXPECT_NE(reason, "") << "the disk was never full";
    EXPECT_NE(append(100'000), "") << "and stays full";
    EXPECT_NE(reason_of([&] { log_->write_checkpoint(make_checkpoint(1000)); }), "");
  }
  EXPECT_EQ(append(100'000), "");
  EXPECT_EQ(append(), "");
  EXPECT_EQ(reason_of([&] { log_->write_checkpoint(make_checkpoint(1000)); }), "");
  expect_all_there();
}

TEST_F(Outage, OfSpaceWhileTheDatabaseTakesOverTheWriteAheadLog) {
  // The write-ahead log goes into the database each 16 MiB. Once the database has no room for more, the
  // write-ahead log grows instead, until that has no room either.
  {
    const FullDisk full(20U << 20U);
    std::string reason;
    for (int i = 0; i < 100 && reason.empty(); ++i) reason = append(1'000'000);
    EXPECT_NE(reason, "");
    EXPECT_GT(seq_, 30U) << "the database did not fill before the write-ahead log";
  }
  for (int i = 0; i < 10; ++i) EXPECT_EQ(append(1'000'000), "");
  expect_all_there();
}

TEST_F(Outage, ByAnotherWriterEndsWithIt) {
  {
    const Connection other(folder_.path(), Connection::Mode::existing);
    other.execute("BEGIN IMMEDIATE");
    EXPECT_THAT(append(), HasSubstr("another process"));
    EXPECT_NE(reason_of([&] { log_->finish_checkpoint({{kOrigin, 1}}); }), "");
    other.execute("ROLLBACK");
    EXPECT_EQ(append(), "");
  }
  EXPECT_EQ(append(), "");
  expect_all_there();
}

TEST_F(Outage, OfTheFileEndsWhenItIsBack) {
  ASSERT_EQ(append(), "");
  fs::rename(folder_.path(), folder_.path("away"));
  for (int i = 0; i < 3; ++i) EXPECT_THAT(append(), HasSubstr("is gone"));
  EXPECT_FALSE(fs::exists(folder_.path())) << "an empty database must not take its place";
  fs::rename(folder_.path("away"), folder_.path());
  EXPECT_EQ(append(), "");
  expect_all_there();
}

TEST_F(Outage, OfTheFolderEndsWhenItIsBack) {
  const std::string folder = fs::path(folder_.path()).parent_path().string();
  ASSERT_EQ(append(), "");
  fs::rename(folder, folder + ".away");
  EXPECT_THAT(append(), HasSubstr("is gone"));
  fs::rename(folder + ".away", folder);
  EXPECT_EQ(append(), "");
  expect_all_there();
}

TEST_F(Outage, LastsWhenTheFileIsDeleted) {
  ASSERT_EQ(append(), "");
  fs::remove(folder_.path());
  EXPECT_THAT(append(), HasSubstr("is gone"));
  log_ = nullptr;
  EXPECT_FALSE(fs::exists(folder_.path()));
}

TEST_F(Outage, LastsWhenAnotherFileTakesThePlace) {
  ASSERT_EQ(append(), "");
  open_log(folder_.url("other"));
  fs::rename(folder_.path(), folder_.path("away"));
  fs::rename(folder_.path("other"), folder_.path());
  const std::string other = read_file(folder_.path());
  EXPECT_THAT(append(), HasSubstr("another file"));
  EXPECT_EQ(read_file(folder_.path()), other) << "the other file is left alone";
  fs::remove(folder_.path());
  fs::rename(folder_.path("away"), folder_.path());
  EXPECT_EQ(append(), "");
  expect_all_there();
}

TEST_F(Outage, OfTheWriteAheadLogHealsByItself) {
  for (const char* suffix : {"-wal", "-shm"}) {
    SCOPED_TRACE(suffix);
    ASSERT_EQ(append(), "");
    fs::remove(folder_.path() + suffix);
    EXPECT_EQ(append(), "");
    EXPECT_EQ(append(), "");
    expect_all_there(copy_of_files("copy" + std::string(suffix)));
  }
  expect_all_there();
}

TEST_F(Outage, ByAWriteAheadLogOfAnotherLasts) {
  ASSERT_EQ(append(), "");
  fs::rename(folder_.path() + "-wal", folder_.path("away"));
  write_file(folder_.path() + "-wal", "what another program wrote");
  EXPECT_THAT(append(), HasSubstr("-wal"));
  fs::remove(folder_.path() + "-wal");
  fs::rename(folder_.path("away"), folder_.path() + "-wal");
  EXPECT_EQ(append(), "");
  expect_all_there();
}

TEST_F(Outage, ByARowThatAPersonAddedHealsByItself) {
  ASSERT_EQ(append(), "");
  // The next position is taken.
  run_sql(folder_.path(),
          "INSERT INTO log SELECT position + 1, arrived, site, origin + 1, seq, version, db, kind, "
          "group_end, key, field, expire_at, sent_at, value FROM log");
  EXPECT_NE(append(), "");
  EXPECT_EQ(append(), "");
  log_ = nullptr;
  EXPECT_EQ(load(folder_.url()).rows.size(), 3U);
}

}  // namespace
}  // namespace isthmus::backend::test
