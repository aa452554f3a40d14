// Choosing at random without repetition.
#include "src/command/random.hpp"

#include <array>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(Selection, TakesExactlyAsManyAsWanted) {
  for (const std::uint64_t wanted : {0u, 1u, 3u, 9u, 10u}) {
    for (int round = 0; round < 50; ++round) {
      Selection selection(10, wanted);
      std::uint64_t taken = 0;
      for (int i = 0; i < 10; ++i) {
        if (!selection.done() && selection.take(random_bits())) ++taken;
      }
      EXPECT_EQ(taken, wanted);
      EXPECT_TRUE(selection.done());
    }
  }
}

TEST(Selection, GivesEveryPlaceTheSameChance) {
  std::mt19937_64 generator(7);  // a fixed seed: the outcome is always the same
  std::array<int, 8> taken{};
  constexpr int kRounds = 8000;
  for (int round = 0; round < kRounds; ++round) {
    Selection selection(taken.size(), 2);
    for (int& count : taken) {
      if (!selection.done() && selection.take(generator())) ++count;
    }
  }
  for (const int count : taken) EXPECT_NEAR(count, kRounds / 4, 200);
}

}  // namespace
}  // namespace isthmus
