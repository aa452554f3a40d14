// Cursors, budgets and whole walks of SCAN and HSCAN.
#include "src/command/scan.hpp"

#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using namespace std::string_view_literals;
using testing::IsEmpty;

// Taken from redis-server 7.0.15 (SCAN).
TEST(ParseCursor, ReadsWhatRedisReads) {
  EXPECT_EQ(parse_cursor("0"), 0u);
  EXPECT_EQ(parse_cursor(""), 0u);
  EXPECT_EQ(parse_cursor("17"), 17u);
  EXPECT_EQ(parse_cursor("+17"), 17u);
  EXPECT_EQ(parse_cursor("007"), 7u);
  EXPECT_EQ(parse_cursor("-1"), 18446744073709551615u);
  EXPECT_EQ(parse_cursor("18446744073709551615"), 18446744073709551615u);
  EXPECT_EQ(parse_cursor("5\0x"sv), 5u);
}

TEST(ParseCursor, RefusesWhatRedisRefuses) {
  for (const std::string_view text : {" 0"sv, "0 "sv, "0x1"sv, "1.0"sv, "abc"sv, "+"sv, "-"sv, "--1"sv,
                                      "+-1"sv, "18446744073709551616"sv, "-18446744073709551616"sv}) {
    EXPECT_EQ(parse_cursor(text), std::nullopt) << text;
  }
}

TEST(ShardCursor, NamesShardAndBucketInOneNumber) {
  ShardCursor cursor(0);
  EXPECT_EQ(cursor.shard, 0u);
  EXPECT_EQ(cursor.bucket, 0u);
  cursor.next_shard();
  EXPECT_NE(cursor.number(), 0u);
  cursor.bucket = 5;
  const ShardCursor again(cursor.number());
  EXPECT_EQ(again.shard, 1u);
  EXPECT_EQ(again.bucket, 5u);
}

TEST(ShardCursor, IsZeroAtTheEndOnly) {
  ShardCursor cursor;
  for (std::size_t i = 0; i < kShards; ++i) {
    EXPECT_FALSE(cursor.at_end());
    cursor.next_shard();
    EXPECT_EQ(cursor.number() == 0, i + 1 == kShards);
  }
  EXPECT_TRUE(cursor.at_end());
}

TEST(ScanBudget, EndsAfterElementsOrTenTimesAsManyBuckets) {
  ScanBudget by_elements(2);
  by_elements.see_element();
  EXPECT_FALSE(by_elements.spent());
  by_elements.see_element();
  EXPECT_TRUE(by_elements.spent());
  by_elements.see_element();
  EXPECT_TRUE(by_elements.spent());
  ScanBudget by_buckets(1);
  for (int i = 0; i < 9; ++i) by_buckets.see_bucket();
  EXPECT_FALSE(by_buckets.spent());
  by_buckets.see_bucket();
  EXPECT_TRUE(by_buckets.spent());
  EXPECT_FALSE(ScanBudget(std::numeric_limits<std::int64_t>::max()).spent());
}

// The strings of a reply "cursor, array".
struct Step {
  std::string cursor;
  std::vector<std::string> found;
};

std::string take_bulk(std::string_view& wire) {
  const std::size_t line_end = wire.find("\r\n");
  const std::size_t size = std::stoul(std::string(wire.substr(1, line_end - 1)));
  std::string text(wire.substr(line_end + 2, size));
  wire.remove_prefix(line_end + 2 + size + 2);
  return text;
}

Step step_of(std::string_view wire) {
  EXPECT_EQ(wire.substr(0, 4), "*2\r\n");
  wire.remove_prefix(4);
  Step step;
  step.cursor = take_bulk(wire);
  EXPECT_EQ(wire[0], '*');
  wire.remove_prefix(wire.find("\r\n") + 2);
  while (!wire.empty()) step.found.push_back(take_bulk(wire));
  return step;
}

// Walks from 0 to 0; `between` runs after every step.
template <class Between>
std::multiset<std::string> walk(CommandRunner& runner, const std::string& before, const std::string& after,
                                Between&& between) {
  std::multiset<std::string> all;
  std::string cursor = "0";
  do {
    const Step step = step_of(runner(before + cursor + after));
    all.insert(step.found.begin(), step.found.end());
    cursor = step.cursor;
    between();
  } while (cursor != "0");
  return all;
}

TEST(Scan, ReturnsASmallKeyspaceInOneCall) {
  CommandRunner runner;
  runner("MSET a 1 b 2 c 3");
  const Step step = step_of(runner("SCAN 0"));
  EXPECT_EQ(step.cursor, "0");
  EXPECT_THAT(step.found, testing::UnorderedElementsAre("a", "b", "c"));
}

TEST(Scan, ReturnsEachKeyOfAResidentKeyspaceOnce) {
  CommandRunner runner;
  for (int i = 0; i < 3000; ++i) runner("SET key:" + std::to_string(i) + " v");
  for (const std::string count : {"1", "10", "333", "1000000"}) {
    const auto all = walk(runner, "SCAN ", " COUNT " + count, [] {});
    EXPECT_EQ(all.size(), 3000u) << count;
    EXPECT_EQ(std::set<std::string>(all.begin(), all.end()).size(), 3000u) << count;
  }
}

TEST(Scan, FindsWhatIsThereAllTheTimeWhileTheKeyspaceGrowsAndShrinks) {
  CommandRunner runner;
  for (int i = 0; i < 1000; ++i) runner("SET stays:" + std::to_string(i) + " v");
  int steps = 0;
  const auto all = walk(runner, "SCAN ", " COUNT 20", [&] {
    const std::string name = std::to_string(++steps);
    for (int i = 0; i < 500 && steps < 20; ++i) runner("SET goes:" + name + ":" + std::to_string(i) + " v");
    for (int i = 0; i < 500 && steps > 30; ++i)
      runner("DEL goes:" + std::to_string(steps - 30) + ":" + std::to_string(i));
  });
  for (int i = 0; i < 1000; ++i) EXPECT_GE(all.count("stays:" + std::to_string(i)), 1u) << i;
}

TEST(Scan, LeavesOutWhatHasExpiredAndOtherDatabases) {
  CommandRunner runner;
  runner("SET a 1 PX 10");
  runner("SET b 1");
  runner("SELECT 1");
  runner("SET c 1");
  runner("SELECT 0");
  runner.pass(10);
  EXPECT_THAT(step_of(runner("SCAN 0")).found, testing::ElementsAre("b"));
  EXPECT_EQ(runner("KEYS *"), "*1\r\n$1\r\nb\r\n");
}

TEST(Scan, OneStarMatchesTheEmptyNameToo) {
  CommandRunner runner;
  runner.run({"SET", "", "v"});
  EXPECT_THAT(step_of(runner("SCAN 0 MATCH *")).found, testing::ElementsAre(""));
  EXPECT_EQ(runner("KEYS *"), "*1\r\n$0\r\n\r\n");
  EXPECT_THAT(step_of(runner("SCAN 0 MATCH **")).found, IsEmpty());
  EXPECT_THAT(step_of(runner("SCAN 0 MATCH a MATCH *")).found, testing::ElementsAre(""));
}

TEST(Scan, StrangeCursorsAreHarmless) {
  CommandRunner runner;
  for (int i = 0; i < 600; ++i) runner("SET k" + std::to_string(i) + " v");
  for (const std::string cursor :
       {"-1", "255", "256", "65535", "18446744073709551615", "9223372036854775808"}) {
    step_of(runner("SCAN " + cursor));
  }
}

TEST(Hscan, ReturnsALargeHashWhole) {
  CommandRunner runner;
  for (int i = 0; i < 2000; ++i) runner("HSET h field" + std::to_string(i) + " v");
  const auto all = walk(runner, "HSCAN h ", " COUNT 50", [] {});
  EXPECT_EQ(all.size(), 4000u);
  EXPECT_EQ(all.count("v"), 2000u);
}

TEST(Hscan, ReturnsASmallHashInItsOrderWhateverTheCursor) {
  CommandRunner runner;
  runner("HSET h z 1 a 2");
  const std::string whole = "*2\r\n$1\r\n0\r\n*4\r\n$1\r\nz\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n2\r\n";
  EXPECT_EQ(runner("HSCAN h 0"), whole);
  EXPECT_EQ(runner("HSCAN h 77 COUNT 1"), whole);
}

}  // namespace
}  // namespace isthmus
