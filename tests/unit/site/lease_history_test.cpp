// Whether what a server has seen and the log has lost is somebody else's to bring back.
#include "src/site/lease_history.hpp"

#include <gtest/gtest.h>

namespace isthmus {
namespace {

using Verdict = LeaseHistory::Verdict;

TEST(LeaseHistoryTest, WritesWhatItReads) {
  const LeaseStamp stamp = parse_lease_value(lease_value({17, 4}));
  EXPECT_EQ(stamp.lease, 17);
  EXPECT_EQ(stamp.seq, 4U);
  for (const char* text : {"", "17", "17:", ":4", "17:4x", "x:4", "17 4"}) {
    EXPECT_EQ(parse_lease_value(text).lease, 0) << text;
  }
}

TEST(LeaseHistoryTest, LeavesWhatNobodyContinues) {
  LeaseHistory history;
  EXPECT_EQ(history.judge({2, 500}), Verdict::alone) << "the lease was there before this server";
  history.add(1, {});
  history.add(2, {1, 300});
  EXPECT_EQ(history.judge({2, 500}), Verdict::alone);
}

TEST(LeaseHistoryTest, ComparesHowMuchWasSeen) {
  LeaseHistory history;
  history.add(1, {});
  history.add(2, {1, 300});
  history.add(3, {2, 480});
  EXPECT_EQ(history.judge({2, 480}), Verdict::covered);
  EXPECT_EQ(history.judge({2, 481}), Verdict::ahead);
}

TEST(LeaseHistoryTest, KnowsThatTheWholeLeaseWasLost) {
  LeaseHistory history;
  history.add(1, {});
  history.add(2, {1, 300});
  history.add(3, {1, 290});
  EXPECT_EQ(history.judge({2, 1}), Verdict::ahead);
}

TEST(LeaseHistoryTest, TakesTheOneThatSawTheMost) {
  LeaseHistory history;
  history.add(2, {});
  history.add(3, {2, 480});
  history.add(4, {3, 20});
  EXPECT_EQ(history.judge({2, 490}), Verdict::ahead) << "the next lease of the same line says nothing new";
  history.add(5, {2, 500});
  EXPECT_EQ(history.judge({2, 490}), Verdict::covered);
  EXPECT_EQ(history.judge({2, 501}), Verdict::ahead);
}

TEST(LeaseHistoryTest, GivesUpWhenItWasAwayForTooLong) {
  LeaseHistory history;
  history.add(2, {});
  history.add(9, {8, 1});
  EXPECT_EQ(history.judge({2, 500}), Verdict::covered);
}

TEST(LeaseHistoryTest, IgnoresRepeatsAndForgetsTheOldest) {
  LeaseHistory history;
  history.add(1, {});
  history.add(1, {7, 7});
  EXPECT_EQ(history.judge({1, 5}), Verdict::alone);
  for (std::size_t i = 0; i < LeaseHistory::kMax; ++i) {
    const auto lease = static_cast<backend::OriginId>(i) + 2;
    history.add(lease, {lease - 1, 1});
  }
  EXPECT_FALSE(history.knows(1));
  EXPECT_TRUE(history.knows(2));
}

}  // namespace
}  // namespace isthmus
