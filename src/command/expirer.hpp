// Takes out keys whose time has come, soon after, whether anybody asks for them or not, and what linked sites
// need not remember any more.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "src/command/services.hpp"

namespace isthmus {

/// A thread that looks at every shard's soonest deadline (one atomic read each) every few milliseconds. An
/// expired key is hidden from its deadline on by the keyspace itself; this is what frees it and raises its
/// `expired` event.
class Expirer {
 public:
  explicit Expirer(Services& services) : services_(services) {}
  ~Expirer() { stop(); }
  void start();
  void stop();

 private:
  void run();
  void expire();
  void sweep();
  Services& services_;
  std::mutex mutex_;
  std::condition_variable stop_asked_;
  bool stopping_ = false;
  std::int64_t looked_ms_ = 0;  // when the shards were looked at last
  std::chrono::steady_clock::time_point next_sweep_;
  std::thread thread_;
};

}  // namespace isthmus
