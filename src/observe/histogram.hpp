// Counts durations in buckets, for the metrics page.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

namespace isthmus {

/// A histogram of durations. Thread-safe; readers may see a moment between two counts.
class DurationHistogram {
 public:
  /// Upper bounds in seconds: from a commit without fsync to one that waits for a far standby.
  static constexpr std::array<double, 12> kBounds = {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005,
                                                     0.01,   0.025,   0.05,   0.1,   0.5,    2.5};

  void add(std::uint64_t nanoseconds) {
    const double seconds = static_cast<double>(nanoseconds) / 1e9;
    std::size_t bucket = 0;
    while (bucket < kBounds.size() && seconds > kBounds[bucket]) ++bucket;
    counts_[bucket].fetch_add(1, std::memory_order_relaxed);
    sum_ns_.fetch_add(nanoseconds, std::memory_order_relaxed);
  }
  /// How many were at most kBounds[bucket]; with bucket = kBounds.size(): all.
  std::uint64_t cumulative(std::size_t bucket) const {
    std::uint64_t total = 0;
    for (std::size_t i = 0; i <= bucket; ++i) total += counts_[i].load(std::memory_order_relaxed);
    return total;
  }
  double sum_seconds() const { return static_cast<double>(sum_ns_.load(std::memory_order_relaxed)) / 1e9; }

 private:
  std::array<std::atomic<std::uint64_t>, kBounds.size() + 1> counts_{};
  std::atomic<std::uint64_t> sum_ns_{0};
};

}  // namespace isthmus
