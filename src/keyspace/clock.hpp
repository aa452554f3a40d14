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

/// 48 bits of wall-clock milliseconds and 16 bits of counter: close to real time, and never the same twice
/// (Kulkarni et al., "Logical Physical Clocks", OPODIS 2014). Thread-safe.
class HybridClock {
 public:
  static constexpr int kCounterBits = 16;

  /// The next version at wall time `now_ms` (milliseconds since the Unix epoch), higher than every version
  /// given or seen before and at least `floor`.
  backend::Version next(std::int64_t now_ms, backend::Version floor = 0) {
    const backend::Version wall = static_cast<backend::Version>(now_ms) << kCounterBits;
    backend::Version last = last_.load(std::memory_order_relaxed);
    for (;;) {
      backend::Version candidate = last + 1;
      if (candidate < wall) candidate = wall;
      if (candidate < floor) candidate = floor;
      if (last_.compare_exchange_weak(last, candidate, std::memory_order_relaxed)) return candidate;
    }
  }
  /// Never gives a version at or below `version` from now on.
  void observe(backend::Version version) {
    backend::Version last = last_.load(std::memory_order_relaxed);
    while (last < version && !last_.compare_exchange_weak(last, version, std::memory_order_relaxed)) {
    }
  }
  static std::int64_t milliseconds(backend::Version version) {
    return static_cast<std::int64_t>(version >> kCounterBits);
  }

 private:
  std::atomic<backend::Version> last_{0};
};

}  // namespace isthmus
