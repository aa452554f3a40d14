// Hash commands: the forms of their replies in both protocols, their events, and the end of a hash.
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

class Hashes : public testing::Test {
 protected:
  Hashes() { run_.hear_events(kEventKeyevent | kEventAll | kEventNew); }
  CommandRunner run_;
};

TEST_F(Hashes, HsetCountsNewFieldsOnly) {
  EXPECT_EQ(run_("HSET h a 1 b 2 a 3"), ":2\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new h", "hset h"));
  EXPECT_EQ(run_("HSET h a 4 c 5"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("hset h"));
  EXPECT_EQ(run_("HMGET h a b c d"), "*4\r\n$1\r\n4\r\n$1\r\n2\r\n$1\r\n5\r\n$-1\r\n");
}

TEST_F(Hashes, PairsMustBeWhole) {
  EXPECT_EQ(run_("HSET h a 1 b"), "-ERR wrong number of arguments for 'hset' command\r\n");
  EXPECT_EQ(run_("HMSET h a 1 b"), "-ERR wrong number of arguments for 'hmset' command\r\n");
  EXPECT_EQ(run_("EXISTS h"), ":0\r\n");
}

TEST_F(Hashes, HsetnxLeavesAFieldThatIsThere) {
  EXPECT_EQ(run_("HSETNX h a 1"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new h", "hset h"));
  EXPECT_EQ(run_("HSETNX h a 2"), ":0\r\n");
  EXPECT_EQ(run_("HGET h a"), "$1\r\n1\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
}

TEST_F(Hashes, TheLastFieldTakesTheKeyWithIt) {
  run_("HSET h a 1 b 2");
  run_("PEXPIRE h 500");
  run_.events();
  EXPECT_EQ(run_("HDEL h a none a"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("hdel h"));
  EXPECT_EQ(run_("HDEL h none"), ":0\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
  EXPECT_EQ(run_("HDEL h b a"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("hdel h", "del h"));
  EXPECT_EQ(run_("EXISTS h"), ":0\r\n");
  run_("HSET h a 1");
  EXPECT_EQ(run_("TTL h"), ":-1\r\n");
}

TEST_F(Hashes, RepliesHaveTheShapeOfTheProtocol) {
  run_("HSET h a 1");
  EXPECT_EQ(run_("HGETALL h"), "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
  EXPECT_EQ(run_("HGETALL none"), "*0\r\n");
  EXPECT_EQ(run_("HRANDFIELD h 5 WITHVALUES"), "*2\r\n$1\r\na\r\n$1\r\n1\r\n");
  EXPECT_EQ(run_("HRANDFIELD h -2 WITHVALUES"), "*4\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\na\r\n$1\r\n1\r\n");
  EXPECT_EQ(run_("HRANDFIELD none"), "$-1\r\n");
  run_.client().protocol = 3;
  EXPECT_EQ(run_("HGETALL h"), "%1\r\n$1\r\na\r\n$1\r\n1\r\n");
  EXPECT_EQ(run_("HGETALL none"), "%0\r\n");
  EXPECT_EQ(run_("HRANDFIELD h 5 WITHVALUES"), "*1\r\n*2\r\n$1\r\na\r\n$1\r\n1\r\n");
  EXPECT_EQ(run_("HRANDFIELD h -1"), "*1\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("HRANDFIELD none"), "_\r\n");
  EXPECT_EQ(run_("HRANDFIELD none 1"), "*0\r\n");
  EXPECT_EQ(run_("HGET h none"), "_\r\n");
}

// The names in an array of bulk strings of one size.
std::multiset<std::string> names_of(const std::string& wire, std::size_t size) {
  std::multiset<std::string> names;
  for (std::size_t at = wire.find('$'); at != std::string::npos; at = wire.find('$', at + 1)) {
    names.insert(wire.substr(wire.find('\n', at) + 1, size));
  }
  return names;
}

TEST_F(Hashes, HrandfieldReturnsDifferentFieldsForAPositiveCount) {
  for (const int size : {20, 900}) {  // a packed one and a table
    const std::string key = "h" + std::to_string(size);
    for (int i = 0; i < size; ++i) run_("HSET " + key + " " + std::to_string(100 + i) + " v");
    for (const int count : {1, 2, 7, size / 3, size - 1, size, size + 5}) {
      const auto names = names_of(run_("HRANDFIELD " + key + " " + std::to_string(count)), 3);
      EXPECT_EQ(names.size(), static_cast<std::size_t>(std::min(count, size)));
      EXPECT_EQ(std::set<std::string>(names.begin(), names.end()).size(), names.size());
    }
    EXPECT_EQ(names_of(run_("HRANDFIELD " + key + " -2000"), 3).size(), 2000u);
  }
}

TEST_F(Hashes, HrandfieldDrawsFromAllFieldsOfASmallHash) {
  run_("HSET h a 1 b 2 c 3");
  const auto names = names_of(run_("HRANDFIELD h -300"), 1);
  EXPECT_EQ(names.size(), 300u);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), (std::set<std::string>{"a", "b", "c"}));
}

TEST_F(Hashes, HrandfieldDrawsEachFieldOfASmallHashWithItsValue) {
  run_("HSET h a 1 b 2 c 3");
  const std::set<std::string> pairs{"$1\r\na\r\n$1\r\n1\r\n", "$1\r\nb\r\n$1\r\n2\r\n",
                                    "$1\r\nc\r\n$1\r\n3\r\n"};
  for (const int protocol : {2, 3}) {
    run_.client().protocol = protocol;
    const std::string head = protocol == 2 ? "*600\r\n" : "*300\r\n";
    const std::string before_pair = protocol == 2 ? "" : "*2\r\n";
    const std::size_t size = before_pair.size() + pairs.begin()->size();
    const std::string wire = run_("HRANDFIELD h -300 WITHVALUES");
    ASSERT_THAT(wire, StartsWith(head));
    ASSERT_EQ(wire.size(), head.size() + 300 * size);
    std::set<std::string> drawn;
    for (std::size_t at = head.size(); at < wire.size(); at += size) {
      EXPECT_EQ(wire.substr(at, before_pair.size()), before_pair);
      drawn.insert(wire.substr(at + before_pair.size(), size - before_pair.size()));
    }
    EXPECT_EQ(drawn, pairs);
  }
}

// With peers a deleted field is remembered in its place.
TEST_F(Hashes, HrandfieldDrawsNoFieldThatIsDeleted) {
  run_.keyspace().set_linked(true);
  run_.keyspace().set_stable(0);
  run_("HSET h a 1 b 2 c 3 d 4");
  run_("HDEL h c");
  const auto names = names_of(run_("HRANDFIELD h -300"), 1);
  EXPECT_EQ(std::set<std::string>(names.begin(), names.end()), (std::set<std::string>{"a", "b", "d"}));
}

TEST_F(Hashes, HrandfieldRefusesAReplyWithoutBound) {
  run_("HSET h f 1");
  EXPECT_EQ(run_("HRANDFIELD h -100000000"), "-ERR value is out of range\r\n");
  EXPECT_EQ(run_("HRANDFIELD h -9223372036854775807"), "-ERR value is out of range\r\n");
  EXPECT_EQ(run_("HRANDFIELD h -2"), "*2\r\n$1\r\nf\r\n$1\r\nf\r\n");
}

TEST_F(Hashes, CountersKeepOffWhatTheyCannotRead) {
  run_("HSET h text abc max 9223372036854775807 i 5 f 1.5");
  run_.events();
  EXPECT_EQ(run_("HINCRBY h text 1"), "-ERR hash value is not an integer\r\n");
  EXPECT_EQ(run_("HINCRBY h f 1"), "-ERR hash value is not an integer\r\n");
  EXPECT_EQ(run_("HINCRBY h max 1"), "-ERR increment or decrement would overflow\r\n");
  EXPECT_EQ(run_("HINCRBYFLOAT h text 1"), "-ERR hash value is not a float\r\n");
  EXPECT_EQ(run_("HINCRBYFLOAT h i inf"), "-ERR value is NaN or Infinity\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
  EXPECT_EQ(run_("HINCRBY h i -7"), ":-2\r\n");
  EXPECT_EQ(run_("HINCRBYFLOAT h f 1e2"), "$5\r\n101.5\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("hincrby h", "hincrbyfloat h"));
  EXPECT_EQ(run_("HINCRBY fresh n 4"), ":4\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new fresh", "hincrby fresh"));
}

// 10^4932 has 4933 digits: Redis reads numbers of up to 5 KiB.
TEST_F(Hashes, HincrbyfloatReadsBackTheLongestSum) {
  EXPECT_THAT(run_("HINCRBYFLOAT h f 1e4932"), StartsWith("$4933\r\n"));
  EXPECT_EQ(run_("HINCRBYFLOAT h f 1e4932"), "-ERR increment would produce NaN or Infinity\r\n");
  EXPECT_THAT(run_("HINCRBYFLOAT h f 1"), StartsWith("$4933\r\n"));
}

TEST_F(Hashes, AWrongTypeIsToldBeforeAnythingIsWritten) {
  run_("SET s v");
  for (const std::string line :
       {"HSET s f 1", "HSETNX s f 1", "HMSET s f 1", "HGET s f", "HMGET s f", "HGETALL s", "HDEL s f",
        "HEXISTS s f", "HLEN s", "HKEYS s", "HVALS s", "HSTRLEN s f", "HINCRBY s f 1", "HINCRBYFLOAT s f 1",
        "HSCAN s 0", "HRANDFIELD s", "HRANDFIELD s 1"}) {
    EXPECT_EQ(run_(line), "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n") << line;
  }
  EXPECT_EQ(run_("GET s"), "$1\r\nv\r\n");
}

}  // namespace
}  // namespace isthmus
