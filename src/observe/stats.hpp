// Counters that INFO, SLOWLOG and LATENCY show.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus {

/// What one I/O thread counts: written by that thread only, read by any (relaxed), so that counting costs no
/// locked instruction.
struct alignas(64) ThreadStats {
  struct PerCommand {
    std::atomic<std::uint64_t> calls{0}, rejected{0}, failed{0};
    std::atomic<std::uint64_t> nanoseconds{0};
  };
  explicit ThreadStats(std::size_t command_count) : commands(command_count) {}
  std::vector<PerCommand> commands;
  std::atomic<std::uint64_t> commands_processed{0}, input_bytes{0}, output_bytes{0};
  std::atomic<std::uint64_t> keyspace_hits{0}, keyspace_misses{0};
  std::atomic<std::uint64_t> read_calls{0}, write_calls{0};

  static void add(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }
};

struct SlowlogEntry {
  std::uint64_t id;
  std::int64_t time_s;  ///< Unix time
  std::int64_t duration_us;
  std::vector<std::string> args;
  std::string client_address, client_name;
};

/// The statistics of the server. Thread-safe.
class Stats {
 public:
  Stats(std::size_t threads, std::size_t commands);

  ThreadStats& thread(std::size_t index) { return *threads_[index]; }
  std::size_t threads() const { return threads_.size(); }
  /// Sums a counter over the threads since the last CONFIG RESETSTAT.
  template <class Get>
  std::uint64_t sum(Get&& get) const {
    std::uint64_t total = 0;
    for (const auto& thread : threads_) total += get(*thread).load(std::memory_order_relaxed);
    return total;
  }
  void reset();

  std::atomic<std::uint64_t> connections_received{0}, rejected_connections{0};
  std::atomic<std::uint64_t> expired_keys{0};
  std::atomic<std::uint64_t> closed_slow_subscribers{0}, output_buffer_disconnections{0},
      query_buffer_disconnections{0};
  std::atomic<std::uint64_t> published_messages{0}, delivered_messages{0};
  std::atomic<std::uint64_t> error_replies{0};
  std::atomic<std::uint64_t> auth_failures{0};
  std::atomic<std::uint64_t> commit_timeouts{0};
  std::atomic<std::uint64_t> moved_connections{0};  ///< from a busy I/O thread to another
  std::atomic<std::uint64_t> peak_memory_bytes{0};

  /// Counts an error reply by its first word ("ERR", "WRONGTYPE", …), for INFO errorstats.
  void count_error(std::string_view reply);
  std::map<std::string, std::uint64_t> errors() const;

  // Slow log (https://redis.io/docs/latest/commands/slowlog/).
  void add_slow(SlowlogEntry entry, std::size_t max_len);
  std::vector<SlowlogEntry> slow(std::int64_t count) const;
  std::size_t slow_length() const;
  void reset_slow();

  /// Instantaneous rates: call `sample` ten times a second or so; `*_per_second` averages the last samples.
  void sample(std::int64_t now_ms);
  std::uint64_t ops_per_second() const { return ops_rate_.load(std::memory_order_relaxed); }
  double input_kbps() const {
    return static_cast<double>(input_rate_.load(std::memory_order_relaxed)) / 1024;
  }
  double output_kbps() const {
    return static_cast<double>(output_rate_.load(std::memory_order_relaxed)) / 1024;
  }

 private:
  std::vector<std::unique_ptr<ThreadStats>> threads_;
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t, std::less<>> errors_;
  std::deque<SlowlogEntry> slow_;
  std::uint64_t next_slow_id_ = 0;
  std::int64_t sampled_ms_ = 0;
  std::uint64_t sampled_commands_ = 0, sampled_input_ = 0, sampled_output_ = 0;
  std::atomic<std::uint64_t> ops_rate_{0}, input_rate_{0}, output_rate_{0};
};

}  // namespace isthmus
