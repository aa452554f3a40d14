// RENAME, COPY, MOVE, SWAPDB and the flushes: what comes along, and which events are raised in which order.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/command/key_copy.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr std::uint32_t kEverything = kEventKeyevent | kEventAll | kEventNew;

class KeyMoves : public testing::Test {
 protected:
  KeyMoves() { run_.hear_events(kEverything); }
  CommandRunner run_;
};

TEST_F(KeyMoves, RenameTakesValueAndDeadlineAlong) {
  run_("SET a 1 PX 500");
  run_.events();
  EXPECT_EQ(run_("RENAME a b"), "+OK\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new b", "rename_from a", "rename_to b"));
  EXPECT_EQ(run_("PTTL b"), ":500\r\n");
  EXPECT_EQ(run_("EXISTS a"), ":0\r\n");
}

TEST_F(KeyMoves, RenameOverwritesWhateverIsThere) {
  run_("HSET h f 1 g 2");
  run_("HSET old x 1 y 2");
  run_("PEXPIRE old 500");
  run_("SET s v PX 500");
  run_.events();
  EXPECT_EQ(run_("RENAME h old"), "+OK\r\n");
  EXPECT_EQ(run_("HGETALL old"), "*4\r\n$1\r\nf\r\n$1\r\n1\r\n$1\r\ng\r\n$1\r\n2\r\n");
  EXPECT_EQ(run_("TTL old"), ":-1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new old", "rename_from h", "rename_to old"));
  EXPECT_EQ(run_("RENAME s old"), "+OK\r\n");
  EXPECT_EQ(run_("GET old"), "$1\r\nv\r\n");
  EXPECT_EQ(run_("PTTL old"), ":500\r\n");
  run_("HSET h2 f 1");
  EXPECT_EQ(run_("RENAME h2 old"), "+OK\r\n");
  EXPECT_EQ(run_("TYPE old"), "+hash\r\n");
  EXPECT_EQ(run_("TTL old"), ":-1\r\n");
}

TEST_F(KeyMoves, RenameOntoItselfChangesNothing) {
  run_("SET a 1");
  run_.events();
  EXPECT_EQ(run_("RENAME a a"), "+OK\r\n");
  EXPECT_EQ(run_("RENAMENX a a"), ":0\r\n");
  EXPECT_EQ(run_("RENAME none none"), "-ERR no such key\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
}

TEST_F(KeyMoves, RenamenxLeavesAnExistingKeyAlone) {
  run_("MSET a 1 b 2");
  EXPECT_EQ(run_("RENAMENX a b"), ":0\r\n");
  EXPECT_EQ(run_("MGET a b"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
  EXPECT_EQ(run_("RENAMENX a c"), ":1\r\n");
}

TEST_F(KeyMoves, RenameOntoAnExpiredKeyLetsItExpireFirst) {
  run_("HSET h f 1");
  run_("HSET gone x 1");
  run_("PEXPIRE gone 10");
  run_.pass(10);
  run_.events();
  EXPECT_EQ(run_("RENAMENX h gone"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("expired gone", "new gone", "rename_from h", "rename_to gone"));
  EXPECT_EQ(run_("HKEYS gone"), "*1\r\n$1\r\nf\r\n");
}

TEST_F(KeyMoves, CopyKeepsOrderDeadlineAndEncoding) {
  run_("HSET h z 1 a 2 m 3");
  run_("PEXPIRE h 700");
  run_("SET s 1");
  run_("APPEND s 2");
  run_.events();
  EXPECT_EQ(run_("COPY h h2"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new h2", "copy_to h2"));
  EXPECT_EQ(run_("HKEYS h2"), "*3\r\n$1\r\nz\r\n$1\r\na\r\n$1\r\nm\r\n");
  EXPECT_EQ(run_("PTTL h2"), ":700\r\n");
  EXPECT_EQ(run_("COPY s s2"), ":1\r\n");
  EXPECT_EQ(run_("OBJECT ENCODING s2"), "$3\r\nraw\r\n");
}

TEST_F(KeyMoves, ATableStaysATableWhereverItGoes) {
  run_.run({"HSET", "h", "f", std::string(65, 'x')});
  run_("HSET h f 1 g 2");
  EXPECT_EQ(run_("COPY h c"), ":1\r\n");
  EXPECT_EQ(run_("RENAME h r"), "+OK\r\n");
  run_("SWAPDB 0 1");
  run_("SELECT 1");
  EXPECT_EQ(run_("OBJECT ENCODING c"), "$9\r\nhashtable\r\n");
  EXPECT_EQ(run_("OBJECT ENCODING r"), "$9\r\nhashtable\r\n");
  EXPECT_EQ(run_("HMGET r f g"), "*2\r\n$1\r\n1\r\n$1\r\n2\r\n");
}

TEST_F(KeyMoves, CopyToAnotherDatabase) {
  run_("SET a 1");
  EXPECT_EQ(run_("COPY a a DB 3"), ":1\r\n");
  EXPECT_EQ(run_("COPY a a DB 3"), ":0\r\n");
  run_("SET a 2");
  run_.events();
  EXPECT_EQ(run_("COPY a a REPLACE DB 3"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new a@3", "copy_to a@3"));
  run_("SELECT 3");
  EXPECT_EQ(run_("GET a"), "$1\r\n2\r\n");
}

TEST_F(KeyMoves, MoveRaisesEventsInBothDatabases) {
  run_("HSET h f 1");
  run_("PEXPIRE h 700");
  run_.events();
  EXPECT_EQ(run_("MOVE h 2"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new h@2", "move_from h", "move_to h@2"));
  EXPECT_EQ(run_("EXISTS h"), ":0\r\n");
  run_("SELECT 2");
  EXPECT_EQ(run_("PTTL h"), ":700\r\n");
  EXPECT_EQ(run_("MOVE h 2"), "-ERR source and destination objects are the same\r\n");
  EXPECT_EQ(run_("MOVE h 16"), "-ERR DB index is out of range\r\n");
}

TEST_F(KeyMoves, SwapdbExchangesEverythingAndRaisesNothing) {
  run_("SET a 0 PX 900");
  run_("HSET h z 1 a 2");
  run_("SELECT 1");
  run_("SET a 1");
  run_.events();
  EXPECT_EQ(run_("SWAPDB 0 1"), "+OK\r\n");
  EXPECT_THAT(run_.events(), IsEmpty());
  EXPECT_EQ(run_("GET a"), "$1\r\n0\r\n");
  EXPECT_EQ(run_("PTTL a"), ":900\r\n");
  EXPECT_EQ(run_("HKEYS h"), "*2\r\n$1\r\nz\r\n$1\r\na\r\n");
  EXPECT_EQ(run_("DBSIZE"), ":2\r\n");
  run_("SELECT 0");
  EXPECT_EQ(run_("GET a"), "$1\r\n1\r\n");
  EXPECT_EQ(run_("DBSIZE"), ":1\r\n");
}

TEST_F(KeyMoves, SwapdbWakesWatchersOfKeysOnEitherSide) {
  run_("SELECT 1");
  run_("SET there 1");
  run_("SELECT 0");
  run_("WATCH there");
  run_("SWAPDB 0 1");
  run_("MULTI");
  EXPECT_EQ(run_("EXEC"), "*-1\r\n");
  run_("WATCH nowhere");
  run_("SWAPDB 0 1");
  run_("MULTI");
  EXPECT_EQ(run_("EXEC"), "*0\r\n");
}

TEST_F(KeyMoves, FlushesRaiseNothing) {
  run_("MSET a 1 b 2");
  run_("SELECT 4");
  run_("SET c 3 PX 100");
  run_.events();
  EXPECT_EQ(run_("FLUSHDB BAD"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("FLUSHDB async"), "+OK\r\n");
  EXPECT_EQ(run_("DBSIZE"), ":0\r\n");
  run_("SELECT 0");
  EXPECT_EQ(run_("DBSIZE"), ":2\r\n");
  EXPECT_EQ(run_("FLUSHALL"), "+OK\r\n");
  EXPECT_EQ(run_("DBSIZE"), ":0\r\n");
  EXPECT_EQ(run_.keyspace().keys_with_deadline(4), 0u);
  EXPECT_THAT(run_.events(), IsEmpty());
}

TEST_F(KeyMoves, DelAndUnlinkCountWhatWasThere) {
  run_("MSET a 1 b 2 c 3");
  run_.events();
  EXPECT_EQ(run_("DEL a none a b"), ":2\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("del a", "del b"));
  EXPECT_EQ(run_("UNLINK c"), ":1\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("del c"));
  EXPECT_EQ(run_("RANDOMKEY"), "$-1\r\n");
}

TEST(KeyCopy, CountsTheBytesOfItsEffects) {
  KeyCopy text;
  text.value = "12345";
  EXPECT_EQ(text.effect_bytes(3), 8u);
  KeyCopy hash;
  hash.is_hash = true;
  hash.fields = {{"f", "12"}, {"gg", ""}};
  EXPECT_EQ(hash.effect_bytes(3), 3u + (3 + 1 + 2) + (3 + 2));
}

TEST(Object, NamesTheEncodingOfRedis) {
  CommandRunner run;
  run("MSET i -123 z 0 lead 007 max 9223372036854775807 over 9223372036854775808");
  run.run({"SET", "short", std::string(44, 'x')});
  run.run({"SET", "long", std::string(45, 'x')});
  for (const std::string key : {"i", "z", "max"})
    EXPECT_EQ(run("OBJECT ENCODING " + key), "$3\r\nint\r\n") << key;
  for (const std::string key : {"lead", "over", "short"}) {
    EXPECT_EQ(run("OBJECT ENCODING " + key), "$6\r\nembstr\r\n") << key;
  }
  EXPECT_EQ(run("OBJECT ENCODING long"), "$3\r\nraw\r\n");
  EXPECT_EQ(run("OBJECT REFCOUNT z"), ":2147483647\r\n");
  EXPECT_EQ(run("OBJECT REFCOUNT i"), ":1\r\n");
  run("APPEND z 1");
  EXPECT_EQ(run("OBJECT ENCODING z"), "$3\r\nraw\r\n");
  EXPECT_EQ(run("OBJECT REFCOUNT z"), ":1\r\n");
}

TEST(Object, AWholeNumberOfIncrbyfloatIsText) {
  CommandRunner run;
  run("INCRBYFLOAT f 5");
  EXPECT_EQ(run("OBJECT ENCODING f"), "$6\r\nembstr\r\n");
  EXPECT_EQ(run("OBJECT REFCOUNT f"), ":1\r\n");
  run("RENAME f g");
  EXPECT_EQ(run("OBJECT ENCODING g"), "$6\r\nembstr\r\n");
  run("INCR g");
  EXPECT_EQ(run("OBJECT ENCODING g"), "$3\r\nint\r\n");
}

TEST(Object, IdleTimeCountsFromTheLastWrite) {
  CommandRunner run;
  run("SET k v");
  run.pass(5999);
  EXPECT_EQ(run("OBJECT IDLETIME k"), ":5\r\n");
  run("SET k v");
  EXPECT_EQ(run("OBJECT IDLETIME k"), ":0\r\n");
  EXPECT_EQ(run("OBJECT IDLETIME none"), "$-1\r\n");
}

}  // namespace
}  // namespace isthmus
