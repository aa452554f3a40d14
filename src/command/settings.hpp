// What CONFIG SET can change while the server runs.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <string>

namespace isthmus {

/// Thread-safe: numbers are atomic, texts are copied under a lock.
class Settings {
 public:
  std::atomic<std::uint32_t> notify_flags{0};     ///< EventClass bits
  std::atomic<std::uint64_t> maxmemory_bytes{0};  ///< 0 = no limit
  std::atomic<std::uint32_t> maxclients{10000};
  std::atomic<bool> protected_mode{true};  ///< without a password only clients of this machine are served
  std::atomic<std::int64_t> timeout_s{0};  ///< idle normal clients are closed; 0 = never
  std::atomic<std::int64_t> tcp_keepalive_s{300};
  std::atomic<std::int64_t> proto_max_bulk_bytes{512LL << 20};
  std::atomic<std::int64_t> query_buffer_limit_bytes{1LL << 30};
  std::atomic<std::int64_t> slowlog_threshold_us{10000};
  std::atomic<std::uint32_t> slowlog_max_len{128};
  std::atomic<std::int64_t> latency_threshold_ms{0};
  std::atomic<std::int64_t> commit_timeout_ms{5000};
  // client-output-buffer-limit: hard, soft (bytes), soft seconds; 0 = none.
  struct OutputLimit {
    std::atomic<std::uint64_t> hard_bytes{0}, soft_bytes{0};
    std::atomic<std::int64_t> soft_seconds{0};
  };
  OutputLimit normal_output, pubsub_output, replica_output;
  std::atomic<std::uint32_t> hash_max_packed_fields{512};
  std::atomic<std::uint32_t> hash_max_packed_bytes{64};

  std::string password() const {
    const std::lock_guard lock(mutex_);
    return password_;
  }
  void set_password(std::string password) {
    const std::lock_guard lock(mutex_);
    password_ = std::move(password);
    has_password_.store(!password_.empty());
  }
  bool has_password() const { return has_password_.load(std::memory_order_relaxed); }

 private:
  mutable std::mutex mutex_;
  std::string password_;
  std::atomic<bool> has_password_{false};
};

}  // namespace isthmus
