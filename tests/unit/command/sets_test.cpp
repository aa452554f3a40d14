// Set commands: the forms of their replies in both protocols, their events, and the end of a set.
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AnyOf;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::StartsWith;

class Sets : public testing::Test {
 protected:
  Sets() { run_.hear_events(kEventKeyevent | kEventAll | kEventNew); }
  CommandRunner run_;
};

TEST_F(Sets, SaddCountsNewMembersOnly) {
  EXPECT_EQ(run_("SADD t a b a"), ":2\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new t", "sadd t"));
  EXPECT_EQ(run_("SADD t a"), ":0\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
  EXPECT_EQ(run_("SMISMEMBER t a c b"), "*3\r\n:1\r\n:0\r\n:1\r\n");
  EXPECT_EQ(run_("TYPE t"), "+set\r\n");
}

TEST_F(Sets, TheLastMemberTakesTheKeyWithIt) {
  run_("SADD t a b");
  run_("PEXPIRE t 500");
  run_.events();
  EXPECT_EQ(run_("SREM t a none a"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("srem t"));
  EXPECT_EQ(run_("SREM t b"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("srem t", "del t"));
  EXPECT_EQ(run_("EXISTS t"), ":0\r\n");
  run_("SADD t a");
  EXPECT_EQ(run_("TTL t"), ":-1\r\n");
}

TEST_F(Sets, RepliesHaveTheShapeOfTheProtocol) {
  run_("SADD t a");
  EXPECT_EQ(run_("SMEMBERS t"), "*1\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("SSCAN t 0"), "*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n");
  run_("HELLO 3");
  EXPECT_EQ(run_("SMEMBERS t"), "~1\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("SINTER t none"), "~0\r\n");
  EXPECT_EQ(run_("SPOP t 5"), "~1\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("SPOP t"), "_\r\n");
  EXPECT_EQ(run_("SRANDMEMBER t 5"), "*0\r\n");
}

TEST_F(Sets, PopTakesOutWhatItReplies) {
  run_("SADD t a b c");
  run_.events();
  std::set<std::string> popped;
  for (int i = 0; i < 3; ++i) popped.insert(run_("SPOP t"));
  EXPECT_EQ(popped.size(), 3U);
  EXPECT_THAT(run_.events(), ElementsAre("spop t", "spop t", "spop t", "del t"));
  run_("SADD t a b");
  run_.events();
  EXPECT_THAT(run_("SPOP t 2"), AnyOf("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n"));
  EXPECT_THAT(run_.events(), ElementsAre("spop t", "del t"));
  EXPECT_EQ(run_("SPOP t -1"), "-ERR value is out of range, must be positive\r\n");
}

TEST_F(Sets, SmoveRaisesTheEventsOfBoth) {
  run_("SADD t a");
  run_("SADD u a b");
  run_.events();
  EXPECT_EQ(run_("SMOVE t u a"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("srem t", "del t"));
  EXPECT_EQ(run_("SMOVE u t b"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("srem u", "new t", "sadd t"));
  EXPECT_EQ(run_("SMOVE u u a"), ":1\r\n");
  EXPECT_EQ(run_("SMOVE none t a"), ":0\r\n");
}

TEST_F(Sets, StoreReplacesWhateverWasThere) {
  run_("SADD t a b c");
  run_("SADD u b c d");
  run_("HSET to f v");
  run_.events();
  EXPECT_EQ(run_("SINTERSTORE to t u"), ":2\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("sinterstore to"));
  EXPECT_EQ(run_("SUNIONSTORE new t u"), ":4\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new new", "sunionstore new"));
  EXPECT_EQ(run_("SDIFFSTORE to t t"), ":0\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("del to"));
  EXPECT_EQ(run_("SDIFF t u"), "*1\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("SINTERCARD 2 t u"), ":2\r\n");
  EXPECT_EQ(run_("SINTERCARD 2 t u LIMIT 1"), ":1\r\n");
  EXPECT_EQ(run_("SINTERCARD 3 t u"), "-ERR Number of keys can't be greater than number of args\r\n");
}

TEST_F(Sets, OtherTypesAreRefused) {
  run_("SET s v");
  run_("HSET h f v");
  run_("SADD t a");
  for (const char* line : {"SADD s a", "SREM h a", "SMEMBERS s", "SINTER t h", "SUNIONSTORE x t s",
                           "SMOVE t h a", "GET t", "HGET t a", "HSET t a 1"})
    EXPECT_THAT(run_(line), StartsWith("-WRONGTYPE")) << line;
}

TEST_F(Sets, EncodingIsThatOfRedis) {
  run_("SADD t 1 2");
  EXPECT_EQ(run_("OBJECT ENCODING t"), "$6\r\nintset\r\n");
  run_("SADD t a");
  EXPECT_EQ(run_("OBJECT ENCODING t"), "$9\r\nhashtable\r\n");
  run_("SREM t a");
  EXPECT_EQ(run_("OBJECT ENCODING t"), "$9\r\nhashtable\r\n");
  run_("RENAME t u");
  EXPECT_EQ(run_("OBJECT ENCODING u"), "$9\r\nhashtable\r\n");
  for (int i = 0; i < 513; ++i) run_.run({"SADD", "many", std::to_string(i)});
  EXPECT_EQ(run_("OBJECT ENCODING many"), "$9\r\nhashtable\r\n");
  EXPECT_EQ(run_("SCARD many"), ":513\r\n");
}

TEST_F(Sets, CopiesAreSets) {
  run_("SADD t a b");
  run_("PEXPIRE t 500");
  EXPECT_EQ(run_("COPY t u"), ":1\r\n");
  EXPECT_EQ(run_("SCARD u"), ":2\r\n");
  EXPECT_EQ(run_("PTTL u"), ":500\r\n");
  EXPECT_EQ(run_("MOVE t 1"), ":1\r\n");
  EXPECT_EQ(run_("EXISTS t"), ":0\r\n");
}

}  // namespace
}  // namespace isthmus
