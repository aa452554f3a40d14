#include "src/keyspace/clock.hpp"

#include <set>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(HybridClock, FollowsTheWallClock) {
  HybridClock clock;
  EXPECT_EQ(HybridClock::milliseconds(clock.next(1000)), 1000);
  EXPECT_EQ(HybridClock::milliseconds(clock.next(2000)), 2000);
}

TEST(HybridClock, NeverGoesBackAndNeverRepeats) {
  HybridClock clock;
  const backend::Version first = clock.next(1000);
  const backend::Version second = clock.next(1000);
  const backend::Version third = clock.next(500);
  EXPECT_LT(first, second);
  EXPECT_LT(second, third);
}

TEST(HybridClock, GoesPastWhatItHasSeenAndPastItsFloor) {
  HybridClock clock;
  clock.observe(backend::Version{5000} << HybridClock::kCounterBits);
  EXPECT_GT(clock.next(1000), backend::Version{5000} << HybridClock::kCounterBits);
  EXPECT_GE(clock.next(1000, backend::Version{9000} << HybridClock::kCounterBits),
            backend::Version{9000} << HybridClock::kCounterBits);
}

TEST(HybridClock, GivesEachVersionOnceToAllThreads) {
  HybridClock clock;
  std::vector<std::vector<backend::Version>> given(4);
  std::vector<std::thread> threads;
  for (auto& mine : given) {
    threads.emplace_back([&clock, &mine] {
      for (int i = 0; i < 20'000; ++i) mine.push_back(clock.next(1));
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<backend::Version> all;
  for (const auto& mine : given) all.insert(mine.begin(), mine.end());
  EXPECT_EQ(all.size(), 80'000u);
}

// A clock that is too far ahead infects the keys that it wrote, and no clock.
TEST(HybridClock, IsNotMovedByAWildVersion) {
  HybridClock clock;
  clock.set_max_skew(100);
  const auto at = [](std::int64_t ms) {
    return static_cast<backend::Version>(ms) << HybridClock::kCounterBits;
  };
  EXPECT_TRUE(clock.observe_foreign(at(1100), 1000));
  EXPECT_EQ(clock.next(1000), at(1100) + 1);
  EXPECT_FALSE(clock.observe_foreign(at(5000), 1000));
  EXPECT_EQ(clock.next(1000), at(1100) + 2);
  EXPECT_EQ(clock.next(1000, at(5000) + 1), at(5000) + 1);
  EXPECT_EQ(clock.next(1000), at(1100) + 3);
}

// The floor of a key that this clock wrote itself looks wild to the wall clock of now.
TEST(HybridClock, GoesOnWithItsOwnFloorWhenTheWallClockHasSteppedBack) {
  constexpr std::int64_t kBefore = 1'000'000, kNow = kBefore - 30'000;
  HybridClock clock;
  clock.set_max_skew(5000);
  const backend::Version before = clock.next(kBefore);
  const backend::Version same_key = clock.next(kNow, before + 1);
  const backend::Version other_key = clock.next(kNow);
  EXPECT_EQ(same_key, before + 1);
  EXPECT_GT(other_key, same_key) << "no version is given twice";
}

TEST(HybridClock, IsNotMovedByAWildVersionWhenTheWallClockHasSteppedBack) {
  constexpr std::int64_t kBefore = 1'000'000, kNow = kBefore - 30'000;
  HybridClock clock;
  clock.set_max_skew(5000);
  const backend::Version own = clock.next(kNow, clock.next(kBefore) + 1);
  EXPECT_EQ(clock.next(kNow, own + 1'000'000), own + 1'000'000);
  EXPECT_EQ(clock.next(kNow), own + 1);
}

}  // namespace
}  // namespace isthmus
