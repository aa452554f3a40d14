// The hybrid logical clock that stamps every effect.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

#include "backend/row.hpp"

namespace isthmus {

/// The wall clock in milliseconds since the Unix epoch.
inline std::int64_t wall_clock_ms() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
}

/// Milliseconds since some moment in the past, by a clock that nobody sets: for how long something takes.
inline std::int64_t steady_clock_ms() {
  const auto since_then = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since_then).count();
}

/// 48 bits of wall-clock milliseconds and 16 bits of counter: close to real time, and never the same twice
/// (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014). Thread-safe.
class HybridClock {
 public:
  static constexpr int kCounterBits = 16;

  /// Versions of others that are more than `ms` ahead of the wall clock do not move this clock. Unlimited
  /// until it is called.
  void set_max_skew(std::int64_t ms) { max_skew_ms_.store(ms, std::memory_order_relaxed); }
  std::int64_t max_skew_ms() const { return max_skew_ms_.load(std::memory_order_relaxed); }

  /// The next version at wall time `now_ms` (milliseconds since the Unix epoch), higher than every version
  /// given or seen before and at least `floor`. A floor that is too far ahead is given as it is and does not
  /// move the clock: a wild clock infects only the keys that it wrote. Who asks with such a floor sees to it
  /// that it grows with each row of the key. A floor next to this clock's last version is no other's: it is
  /// this clock that is ahead of the wall clock, which has stepped back, and that goes on.
  backend::Version next(std::int64_t now_ms, backend::Version floor = 0) {
    const backend::Version wall = static_cast<backend::Version>(now_ms) << kCounterBits;
    backend::Version last = last_.load(std::memory_order_relaxed);
    if (floor > last + 1 && is_wild(floor, now_ms)) return floor;
    for (;;) {
      backend::Version candidate = last + 1;
      if (candidate < wall) candidate = wall;
      if (candidate < floor) candidate = floor;
      if (last_.compare_exchange_weak(last, candidate, std::memory_order_relaxed)) return candidate;
    }
  }
  /// Never gives a version at or below `version` from now on. For rows of the own site.
  void observe(backend::Version version) {
    backend::Version last = last_.load(std::memory_order_relaxed);
    while (last < version && !last_.compare_exchange_weak(last, version, std::memory_order_relaxed)) {
    }
  }
  /// The same for a row of another site, unless its clock is too far ahead: then nothing changes, and the
  /// answer is false.
  bool observe_foreign(backend::Version version, std::int64_t now_ms) {
    if (is_wild(version, now_ms)) return false;
    observe(version);
    return true;
  }
  static std::int64_t milliseconds(backend::Version version) {
    return static_cast<std::int64_t>(version >> kCounterBits);
  }

 private:
  bool is_wild(backend::Version version, std::int64_t now_ms) const {
    const std::int64_t limit = max_skew_ms();
    return limit != kNoLimit && milliseconds(version) > now_ms + limit;
  }
  static constexpr std::int64_t kNoLimit = -1;
  std::atomic<backend::Version> last_{0};
  std::atomic<std::int64_t> max_skew_ms_{kNoLimit};
};

}  // namespace isthmus
