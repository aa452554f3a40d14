// Deadlines: their arithmetic, the conditions of EXPIRE, and what a key's end looks like.
#include "src/command/key_expiry.hpp"

#include <limits>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMin = std::numeric_limits<std::int64_t>::min();

TEST(DeadlineAfter, CountsFromItsBase) {
  EXPECT_EQ(deadline_after(1000, 5, TimeUnit::seconds), 6000);
  EXPECT_EQ(deadline_after(1000, 5, TimeUnit::milliseconds), 1005);
  EXPECT_EQ(deadline_after(1000, -5, TimeUnit::seconds), -4000);
}

TEST(DeadlineAfter, RefusesWhatDoesNotFit) {
  EXPECT_EQ(deadline_after(0, kMax / 1000 + 1, TimeUnit::seconds), std::nullopt);
  EXPECT_EQ(deadline_after(0, kMin / 1000 - 1, TimeUnit::seconds), std::nullopt);
  EXPECT_EQ(deadline_after(1, kMax, TimeUnit::milliseconds), std::nullopt);
  EXPECT_EQ(deadline_after(1000, kMax / 1000, TimeUnit::seconds), std::nullopt);
  EXPECT_EQ(deadline_after(0, kMax / 1000, TimeUnit::seconds), kMax / 1000 * 1000);
  EXPECT_EQ(deadline_after(1, kMin, TimeUnit::milliseconds), kMin + 1);
}

TEST(DeadlineAfter, IsNeverTheMarkForNoDeadline) {
  EXPECT_EQ(deadline_after(0, kMax, TimeUnit::milliseconds), kNoDeadline - 1);
}

TEST(RoundedSeconds, RoundsToTheNearest) {
  EXPECT_EQ(rounded_seconds(0), 0);
  EXPECT_EQ(rounded_seconds(499), 0);
  EXPECT_EQ(rounded_seconds(500), 1);
  EXPECT_EQ(rounded_seconds(1499), 1);
  EXPECT_EQ(rounded_seconds(kMax), kMax / 1000 + 1);
}

TEST(ExpireConditions, AllowByTable) {
  struct Case {
    std::string_view options;
    std::int64_t current, wanted;
    bool allowed;
  };
  for (const Case& c : {Case{"", kNoDeadline, 5, true}, Case{"", 9, 5, true}, Case{"n", kNoDeadline, 5, true},
                        Case{"n", 9, 5, false}, Case{"x", kNoDeadline, 5, false}, Case{"x", 9, 5, true},
                        Case{"g", kNoDeadline, 5, false}, Case{"g", 9, 5, false}, Case{"g", 9, 9, false},
                        Case{"g", 9, 10, true}, Case{"l", kNoDeadline, 5, true}, Case{"l", 9, 5, true},
                        Case{"l", 9, 9, false}, Case{"l", 9, 10, false}, Case{"xl", kNoDeadline, 5, false},
                        Case{"xl", 9, 5, true}, Case{"xg", 9, 10, true}, Case{"xg", 9, 5, false}}) {
    ExpireConditions conditions;
    for (const char option : c.options) {
      const std::string_view word = option == 'n' ? "NX" : option == 'x' ? "xx" : option == 'g' ? "Gt" : "lt";
      EXPECT_TRUE(conditions.add(word));
    }
    EXPECT_EQ(conditions.allow(c.current, c.wanted), c.allowed)
        << c.options << " " << c.current << " " << c.wanted;
  }
}

TEST(ExpireConditions, KnowWhatExcludesEachOther) {
  const auto conflict = [](std::initializer_list<std::string_view> options) {
    ExpireConditions conditions;
    for (const std::string_view option : options) conditions.add(option);
    return !conditions.conflict().empty();
  };
  EXPECT_FALSE(conflict({}));
  EXPECT_FALSE(conflict({"nx"}));
  EXPECT_FALSE(conflict({"xx", "gt"}));
  EXPECT_FALSE(conflict({"xx", "lt"}));
  EXPECT_TRUE(conflict({"nx", "xx"}));
  EXPECT_TRUE(conflict({"nx", "gt"}));
  EXPECT_TRUE(conflict({"nx", "lt"}));
  EXPECT_TRUE(conflict({"gt", "lt"}));
  EXPECT_FALSE(ExpireConditions().add("nxx"));
}

TEST(Expire, KeyIsThereUntilItsDeadlineAndNotAtIt) {
  CommandRunner runner;
  runner("SET k v");
  EXPECT_EQ(runner("PEXPIRE k 100"), ":1\r\n");
  runner.pass(99);
  EXPECT_EQ(runner("PTTL k"), ":1\r\n");
  EXPECT_EQ(runner("EXISTS k"), ":1\r\n");
  runner.pass(1);
  EXPECT_EQ(runner("PTTL k"), ":-2\r\n");
  EXPECT_EQ(runner("EXISTS k"), ":0\r\n");
}

TEST(Expire, WhatHasExpiredDoesNotCount) {
  CommandRunner runner;
  runner("SET stays v PX 101");
  for (int i = 0; i < 300; ++i) runner("SET k" + std::to_string(i) + " v PX 100");
  runner("PEXPIRE k0 100");  // the same deadline twice
  runner("PERSIST k1");
  runner("SELECT 1");
  runner("SET other v PX 100");
  runner("SELECT 0");
  EXPECT_EQ(runner("DBSIZE"), ":301\r\n");
  runner.pass(100);
  EXPECT_EQ(runner("DBSIZE"), ":2\r\n");
  runner("MULTI");
  runner("DBSIZE");
  EXPECT_EQ(runner("EXEC"), "*1\r\n:2\r\n");
}

TEST(Expire, PastDeadlineDeletesWithDel) {
  CommandRunner runner;
  runner.hear_events(kEventKeyevent | kEventAll);
  runner("HSET h f v");
  runner("SET k v");
  runner.events();
  EXPECT_EQ(runner("EXPIRE k 0"), ":1\r\n");
  EXPECT_EQ(runner("PEXPIREAT h " + std::to_string(runner.now_ms())), ":1\r\n");
  EXPECT_EQ(runner("EXISTS k h"), ":0\r\n");
  EXPECT_THAT(runner.events(), ElementsAre("del k", "del h"));
}

TEST(Expire, ConditionThatFailsLeavesThePastAlone) {
  CommandRunner runner;
  runner("SET k v");
  EXPECT_EQ(runner("EXPIRE k -1 XX"), ":0\r\n");
  EXPECT_EQ(runner("EXISTS k"), ":1\r\n");
}

TEST(Expire, TheFarthestDeadlineIsStillOne) {
  CommandRunner runner;
  runner("SET k v");
  EXPECT_EQ(runner("PEXPIREAT k 9223372036854775807"), ":1\r\n");
  EXPECT_EQ(runner("PEXPIRETIME k"), ":9223372036854775806\r\n");
  EXPECT_EQ(runner("PERSIST k"), ":1\r\n");
}

TEST(Expire, PersistKeepsTheKey) {
  CommandRunner runner;
  runner.hear_events(kEventKeyevent | kEventAll);
  runner("SET k v PX 50");
  runner.events();
  EXPECT_EQ(runner("PERSIST k"), ":1\r\n");
  EXPECT_THAT(runner.events(), ElementsAre("persist k"));
  runner.pass(1000);
  EXPECT_EQ(runner("TTL k"), ":-1\r\n");
  EXPECT_EQ(runner("PERSIST k"), ":0\r\n");
  EXPECT_THAT(runner.events(), IsEmpty());
}

TEST(Expire, WhatIsWrittenOverAnExpiredKeyStartsAnew) {
  CommandRunner runner;
  runner.hear_events(kEventKeyevent | kEventAll | kEventNew);
  runner("HSET h old 1");
  runner("PEXPIRE h 10");
  runner.pass(10);
  runner.events();
  EXPECT_EQ(runner("HSET h fresh 1"), ":1\r\n");
  EXPECT_THAT(runner.events(), ElementsAre("expired h", "new h", "hset h"));
  EXPECT_EQ(runner("HKEYS h"), "*1\r\n$5\r\nfresh\r\n");
  EXPECT_EQ(runner("TTL h"), ":-1\r\n");
}

TEST(Expire, OnlyFirstOfSeveralErrorsIsToldInRedisOrder) {
  CommandRunner runner;
  EXPECT_EQ(runner("EXPIRE none abc BAD"), "-ERR Unsupported option BAD\r\n");
  EXPECT_EQ(runner("EXPIRE none abc NX XX"),
            "-ERR NX and XX, GT or LT options at the same time are not compatible\r\n");
  EXPECT_EQ(runner("EXPIRE none abc"), "-ERR value is not an integer or out of range\r\n");
  EXPECT_EQ(runner("EXPIRE none 9223372036854775807"), "-ERR invalid expire time in 'expire' command\r\n");
  EXPECT_EQ(runner("PEXPIRE none 9223372036854775807"), "-ERR invalid expire time in 'pexpire' command\r\n");
  EXPECT_EQ(runner("EXPIRE none 5"), ":0\r\n");
}

}  // namespace
}  // namespace isthmus
