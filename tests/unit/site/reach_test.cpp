// Gaps, repeats, frontiers and what is stable.
#include "src/site/reach.hpp"

#include <algorithm>

#include <gtest/gtest.h>

#include "src/keyspace/clock.hpp"
#include "src/site/lease_history.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;
using backend::SiteId;

constexpr SiteId kOwn = 1, kPeer = 2, kThird = 3;
constexpr std::int64_t kLongMs = 86'400'000;  // longer than any silence here

Row row(SiteId site, backend::OriginId origin, backend::Seq seq, RowKind kind = RowKind::set) {
  Row out;
  out.site = site;
  out.origin = origin;
  out.seq = seq;
  out.kind = kind;
  out.version = 1000 + seq;
  return out;
}

backend::Version at(std::int64_t ms) {
  return static_cast<backend::Version>(ms) << HybridClock::kCounterBits;
}

class ReachTest : public ::testing::Test {
 protected:
  bool take(const Row& of) {
    const bool fresh = reach_.take(of);
    reach_.end_group();
    return fresh;
  }
  bool take(SiteId site, backend::OriginId origin, backend::Seq seq) { return take(row(site, origin, seq)); }
  void say(SiteId site, backend::OriginId origin, backend::Seq seq, const Frontier& said,
           backend::Version version) {
    const std::string text = pairs_text(said);
    Row frontier = row(site, origin, seq, RowKind::frontier);
    frontier.value = text;
    frontier.version = version;
    take(frontier);
  }
  void copied(SiteId site, const std::map<std::int64_t, std::uint64_t>& upto, backend::Version frontier) {
    const std::string text = pairs_text(upto);
    Row reach = row(site, 900, ++copied_, RowKind::reach);
    reach.copied = true;
    reach.value = text;
    reach.version = frontier;
    take(reach);
  }
  Reach reach_{kOwn};
  backend::Seq copied_ = 0;
};

TEST_F(ReachTest, WritesWhatItReads) {
  EXPECT_EQ(pairs_text({{5, 7}, {9, 1}}), "5=7 9=1");
  EXPECT_EQ(parse_pairs("5=7 9=1"), (std::map<std::int64_t, std::uint64_t>{{5, 7}, {9, 1}}));
  EXPECT_TRUE(parse_pairs("x=1 5 =3 7=x 7= ").empty());
}

TEST_F(ReachTest, DropsRepeats) {
  EXPECT_TRUE(take(kPeer, 20, 1));
  EXPECT_FALSE(take(kPeer, 20, 1));
  EXPECT_TRUE(take(kPeer, 20, 2));
  EXPECT_TRUE(reach_.gaps().empty());
}

TEST_F(ReachTest, FindsAGapAndClosesItRowByRow) {
  take(kPeer, 20, 1);
  take(kPeer, 20, 5);
  ASSERT_EQ(reach_.gaps().size(), 1U);
  EXPECT_EQ(reach_.gaps()[0].from, 2U);
  EXPECT_EQ(reach_.gaps()[0].to, 4U);
  EXPECT_EQ(reach_.whole(20), 1U);
  EXPECT_EQ(reach_.last(20), 5U);
  EXPECT_TRUE(take(kPeer, 20, 3)) << "it was missing";
  EXPECT_EQ(reach_.gaps().size(), 2U);
  EXPECT_FALSE(take(kPeer, 20, 3));
  EXPECT_TRUE(take(kPeer, 20, 2));
  EXPECT_EQ(reach_.whole(20), 3U);
  EXPECT_TRUE(take(kPeer, 20, 4));
  EXPECT_TRUE(reach_.gaps().empty());
  EXPECT_EQ(reach_.whole(20), 5U);
  EXPECT_EQ(reach_.gaps_found(), 1U);
}

TEST_F(ReachTest, LooksForGapsInOtherSitesOnly) {
  take(kOwn, 10, 1);
  take(kOwn, 10, 5);
  EXPECT_TRUE(reach_.gaps().empty()) << "what our own log does not have does not exist";
}

TEST_F(ReachTest, MissesTheEndOfALeaseThatTheNextOneKnew) {
  take(kPeer, 20, 1);
  const std::string before = lease_value({20, 4});
  Row lease = row(kPeer, 21, 1, RowKind::lease);
  lease.value = before;
  take(lease);
  ASSERT_EQ(reach_.gaps().size(), 1U);
  EXPECT_EQ(reach_.gaps()[0].origin, 20);
  EXPECT_EQ(reach_.gaps()[0].from, 2U);
  EXPECT_EQ(reach_.gaps()[0].to, 4U);
}

TEST_F(ReachTest, MissesItAlsoWhenTheNextLeaseHadToBeFetched) {
  take(kPeer, 20, 1);
  take(kPeer, 21, 3);
  const std::string before = lease_value({20, 4});
  Row lease = row(kPeer, 21, 1, RowKind::lease);
  lease.value = before;
  lease.copied = true;
  take(lease);
  const std::vector<Gap> gaps = reach_.gaps();
  EXPECT_TRUE(std::any_of(gaps.begin(), gaps.end(),
                          [](const Gap& gap) { return gap.origin == 20 && gap.from == 2 && gap.to == 4; }));
}

TEST_F(ReachTest, MissesWhatASiteSaysThatItHasGotBack) {
  take(kPeer, 20, 3);
  take(kPeer, 21, 1);
  Row back = row(kPeer, 21, 2, RowKind::reach);
  const std::string text = pairs_text({{20, 5}, {19, 2}});
  back.value = text;
  take(back);
  const auto missing = [this](backend::OriginId origin) {
    const std::vector<Gap> gaps = reach_.gaps();
    return std::count_if(gaps.begin(), gaps.end(), [&](const Gap& gap) { return gap.origin == origin; });
  };
  EXPECT_EQ(missing(20), 2) << "1 to 2 as before, and 4 to 5";
  EXPECT_EQ(missing(19), 1) << "an origin of which nothing has come";
  say(kPeer, 21, 3, {{kOwn, 70}}, 120);
  EXPECT_EQ(reach_.said(kPeer, kOwn), 0U) << "no frontier passes them";
}

TEST_F(ReachTest, SaysToItselfNothingThatItHasGotBack) {
  Row back = row(kOwn, 10, 1, RowKind::reach);
  const std::string text = pairs_text({{9, 5}});
  back.value = text;
  take(back);
  EXPECT_TRUE(reach_.gaps().empty());
  EXPECT_EQ(reach_.last(9), 0U);
}

TEST_F(ReachTest, ForgetsAGroupThatComesAgain) {
  take(kPeer, 20, 1);
  reach_.take(row(kPeer, 20, 4));
  EXPECT_EQ(reach_.gaps().size(), 1U);
  reach_.forget_group();
  EXPECT_TRUE(reach_.gaps().empty());
  EXPECT_EQ(reach_.last(20), 1U);
  EXPECT_TRUE(take(kPeer, 20, 2));
}

// A checkpoint may not cover what is still on its way into the keyspace.
TEST_F(ReachTest, LeavesTheRowsOfAnOpenGroupOutOfWhatIsFolded) {
  take(kPeer, 20, 1);
  take(kThird, 30, 1);
  take(kOwn, 10, 1);
  reach_.take(row(kPeer, 20, 2));
  reach_.take(row(kPeer, 20, 3));
  reach_.take(row(kPeer, 21, 1));
  EXPECT_EQ(reach_.foreign_vector(), (backend::Vector{{20, 3}, {21, 1}, {30, 1}}));
  EXPECT_EQ(reach_.folded_vector(), (backend::Vector{{20, 1}, {21, 0}, {30, 1}}));
  reach_.end_group();
  EXPECT_EQ(reach_.folded_vector(), (backend::Vector{{20, 3}, {21, 1}, {30, 1}}));
}

TEST_F(ReachTest, LeavesAGapOpenUntilTheGroupThatClosesItHasEnded) {
  take(kPeer, 20, 1);
  take(kPeer, 20, 5);
  for (backend::Seq seq = 2; seq <= 4; ++seq) reach_.take(row(kPeer, 20, seq));
  EXPECT_EQ(reach_.foreign_vector().at(20), 5U);
  EXPECT_EQ(reach_.folded_vector().at(20), 1U);
  reach_.end_group();
  EXPECT_EQ(reach_.folded_vector().at(20), 5U);
}

TEST_F(ReachTest, GivesUpTheGapsOfASiteThatIsNoPeer) {
  take(kPeer, 20, 1);
  take(kPeer, 20, 4);
  take(kThird, 30, 1);
  take(kThird, 30, 6);
  take(kThird, 31, 2);
  std::vector<backend::OriginId> given_up = reach_.give_up_gaps({kPeer});
  std::sort(given_up.begin(), given_up.end());
  EXPECT_EQ(given_up, (std::vector<backend::OriginId>{30, 31}));
  EXPECT_FALSE(reach_.has_gap(kThird));
  EXPECT_EQ(reach_.whole(30), 6U);
  EXPECT_TRUE(reach_.has_gap(kPeer));
  ASSERT_EQ(reach_.gaps().size(), 1U);
  EXPECT_EQ(reach_.gaps()[0].origin, 20);
  EXPECT_EQ(reach_.vector(), (backend::Vector{{20, 1}, {30, 6}, {31, 2}}));
  EXPECT_TRUE(reach_.give_up_gaps({kPeer}).empty()) << "once";
  say(kThird, 30, 7, {{kOwn, 50}}, 100);
  EXPECT_EQ(reach_.folded().at(kThird), 100U) << "its frontiers pass again";
}

TEST_F(ReachTest, GivesUpNoGapWhileAGroupIsOpen) {
  take(kThird, 30, 1);
  reach_.take(row(kThird, 30, 4));
  EXPECT_TRUE(reach_.give_up_gaps({}).empty());
  EXPECT_TRUE(reach_.has_gap(kThird));
  reach_.end_group();
  EXPECT_EQ(reach_.give_up_gaps({}), (std::vector<backend::OriginId>{30}));
  EXPECT_FALSE(reach_.has_gap(kThird));
}

TEST_F(ReachTest, LearnsNothingFromAStreamWithAGap) {
  say(kPeer, 20, 1, {{kOwn, 50}}, 100);
  EXPECT_EQ(reach_.folded().at(kPeer), 100U);
  say(kPeer, 20, 3, {{kOwn, 70}}, 120);
  EXPECT_EQ(reach_.folded().at(kPeer), 100U);
  EXPECT_EQ(reach_.said(kPeer, kOwn), 50U);
  take(kPeer, 20, 2);
  say(kPeer, 20, 4, {{kOwn, 80}}, 130);
  EXPECT_EQ(reach_.folded().at(kPeer), 130U);
  EXPECT_EQ(reach_.said(kPeer, kOwn), 80U);
}

TEST_F(ReachTest, IsStableBelowWhatAllHaveSaidOfAll) {
  EXPECT_EQ(reach_.stable({kPeer, kThird}, kLongMs), 0U);
  say(kOwn, 10, 1, {{kPeer, 90}, {kThird, 60}}, 110);
  say(kPeer, 20, 1, {{kOwn, 100}, {kThird, 70}}, 120);
  EXPECT_EQ(reach_.stable({kPeer, kThird}, kLongMs), 0U) << "one has said nothing";
  EXPECT_EQ(reach_.stable({kPeer}, kLongMs), 90U);
  say(kThird, 30, 1, {{kOwn, 80}, {kPeer, 85}}, 95);
  EXPECT_EQ(reach_.stable({kPeer, kThird}, kLongMs), 60U);
}

// Who has not heard of a site for so long copies its state as a whole when it hears of it again.
TEST_F(ReachTest, IsNotHeldBackByWhoHasGivenAnotherSiteUp) {
  say(kOwn, 10, 1, {{kPeer, at(9000)}, {kThird, at(9100)}}, at(9300));
  say(kPeer, 20, 1, {{kOwn, at(9200)}, {kThird, at(1000)}}, at(9050));
  say(kThird, 30, 1, {{kOwn, at(9150)}, {kPeer, at(8900)}}, at(9120));
  EXPECT_EQ(reach_.stable({kPeer, kThird}, kLongMs), at(1000));
  EXPECT_EQ(reach_.stable({kPeer, kThird}, 8050), at(1000)) << "just within the retention";
  EXPECT_EQ(reach_.stable({kPeer, kThird}, 8049), at(8900));
}

// A silent site has heard of the others for as long as it spoke, and still holds what they delete now.
TEST_F(ReachTest, IsHeldBackByASiteThatIsSilentItself) {
  say(kOwn, 10, 1, {{kPeer, at(1000)}}, at(9000));
  say(kPeer, 20, 1, {{kOwn, at(900)}}, at(1000));
  EXPECT_EQ(reach_.stable({kPeer}, 5000), at(900));
}

TEST_F(ReachTest, IsHeldBackByASiteWhoseClockIsWild) {
  say(kOwn, 10, 1, {{kPeer, at(90'000)}}, at(9000));
  say(kPeer, 20, 1, {{kOwn, at(8900)}}, at(90'000));
  EXPECT_EQ(reach_.stable({kPeer}, 5000), at(8900));
}

TEST_F(ReachTest, TakesACopyForTheRowsThatItStandsFor) {
  take(kPeer, 20, 1);
  take(kPeer, 20, 9);
  take(kPeer, 21, 2);
  copied(kPeer, {{20, 12}, {22, 4}}, 500);
  EXPECT_TRUE(reach_.gaps().empty()) << "a whole copy closes all gaps of its site";
  EXPECT_EQ(reach_.last(20), 12U);
  EXPECT_EQ(reach_.last(22), 4U);
  EXPECT_EQ(reach_.folded().at(kPeer), 500U);
  EXPECT_FALSE(take(kPeer, 20, 12));
  EXPECT_TRUE(take(kPeer, 20, 13));
}

TEST_F(ReachTest, ClosesOneGapWithWhatThereWas) {
  take(kPeer, 20, 4);
  take(kPeer, 21, 4);
  copied(kPeer, {{20, 3}}, 0);
  ASSERT_EQ(reach_.gaps().size(), 1U);
  EXPECT_EQ(reach_.gaps()[0].origin, 21);
  EXPECT_EQ(reach_.last(20), 4U);
  EXPECT_FALSE(reach_.folded().contains(kPeer));
}

TEST_F(ReachTest, GoesBackWithTheDatabase) {
  take(kPeer, 20, 1);
  take(kPeer, 20, 2);
  take(kPeer, 20, 3);
  reach_.lower(20, 1);
  take(kPeer, 20, 4);
  ASSERT_EQ(reach_.gaps().size(), 1U);
  EXPECT_EQ(reach_.gaps()[0].from, 2U);
}

// What it has shown and lost may come back, and be told to somebody who knows it already.
TEST_F(ReachTest, RemembersWhatTheDatabaseHasLost) {
  for (backend::Seq seq = 1; seq <= 3; ++seq) take(kPeer, 20, seq);
  EXPECT_EQ(reach_.lost(20), 0U);
  reach_.lower(20, 1);
  EXPECT_EQ(reach_.lost(20), 3U);
  EXPECT_EQ(reach_.last(20), 1U);
  EXPECT_TRUE(take(kPeer, 20, 2)) << "the log lacked it";
  EXPECT_EQ(reach_.lost(20), 3U);
  reach_.lower(20, 1);
  EXPECT_EQ(reach_.lost(20), 3U) << "the database goes back once more";
  EXPECT_EQ(reach_.lost(21), 0U);
}

TEST_F(ReachTest, LosesNothingThatItHasNotBeenShown) {
  take(kPeer, 20, 2);
  copied(kPeer, {{20, 9}}, 500);
  reach_.lower(20, 1);
  EXPECT_EQ(reach_.lost(20), 2U) << "the copy stood for the others";
}

// What a copy stands for has no rows in this log: a database without them has not gone back.
TEST_F(ReachTest, TellsWhatTheDatabaseHasShown) {
  take(kPeer, 20, 3);
  copied(kPeer, {{20, 9}, {21, 4}}, 500);
  EXPECT_EQ(reach_.last(20), 9U);
  EXPECT_EQ(reach_.shown(20), 3U);
  EXPECT_EQ(reach_.shown(21), 0U);
  take(kPeer, 20, 10);
  EXPECT_EQ(reach_.shown(20), 10U);
  reach_.covered(21, kPeer, 4);
  EXPECT_EQ(reach_.shown(21), 4U);
  reach_.lower(20, 2);
  EXPECT_EQ(reach_.shown(20), 2U);
}

TEST_F(ReachTest, MergesWhatWasReadAnew) {
  take(kPeer, 20, 3);
  take(kPeer, 21, 1);
  Reach fresh(kOwn);
  fresh.covered(20, kPeer, 5);
  fresh.restore({kPeer, kPeer, 300});
  fresh.restore({kPeer, kOwn, 200});
  reach_.merge(fresh);
  EXPECT_TRUE(reach_.gaps().empty());
  EXPECT_EQ(reach_.last(20), 5U);
  EXPECT_EQ(reach_.last(21), 1U);
  EXPECT_EQ(reach_.folded().at(kPeer), 300U);
  EXPECT_EQ(reach_.said(kPeer, kOwn), 200U);
}

}  // namespace
}  // namespace isthmus
