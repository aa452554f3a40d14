// What the machine itself lost while a test ran, for the bounds on elapsed time.
#pragma once

#include <chrono>
#include <mutex>
#include <stop_token>
#include <thread>

namespace isthmus::test {

/// Counts for how long nothing ran: a thread that does nothing but sleep adds up how late it wakes. A bound
/// plus ms() still says what the server itself may take.
class Stalls {
 public:
  /// So far, in milliseconds; what is going on just now included.
  double ms() const {
    const std::lock_guard lock(mutex_);
    return lost_ms_ + late_ms();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds kNap{5};
  static constexpr double kUsualMs = 20;  // a thread that wakes so late is an everyday thing

  double late_ms() const {
    const double late = std::chrono::duration<double, std::milli>(Clock::now() - due_).count();
    return late > kUsualMs ? late : 0;
  }
  void watch(const std::stop_token& stop) {
    while (!stop.stop_requested()) {
      std::this_thread::sleep_for(kNap);
      const std::lock_guard lock(mutex_);
      lost_ms_ += late_ms();
      due_ = Clock::now() + kNap;
    }
  }

  mutable std::mutex mutex_;
  double lost_ms_ = 0;
  Clock::time_point due_ = Clock::now() + kNap;                                // when it should wake
  std::jthread thread_{[this](const std::stop_token& stop) { watch(stop); }};  // last: it uses the others
};

}  // namespace isthmus::test
