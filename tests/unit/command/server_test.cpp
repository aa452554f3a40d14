// The rest of the server group: what is always saved, never clustered, and how long things took.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::MatchesRegex;
using testing::Not;
using testing::StartsWith;

class ServerCommands : public testing::Test {
 protected:
  std::int64_t integer(std::string_view line) {
    const std::string reply = run_(line);
    EXPECT_EQ(reply.substr(0, 1), ":") << reply;
    return std::stoll(reply.substr(1));
  }
  CommandRunner run_;
};

TEST_F(ServerCommands, SavingIsDoneAtOnce) {
  EXPECT_EQ(run_("SAVE"), "+OK\r\n");
  EXPECT_EQ(run_("BGSAVE"), "+Background saving started\r\n");
  EXPECT_EQ(run_("BGSAVE SCHEDULE"), "+Background saving started\r\n");
  EXPECT_EQ(run_("BGSAVE NOW"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("BGREWRITEAOF"), "+Background append only file rewriting started\r\n");
  EXPECT_EQ(run_("LASTSAVE"), ":" + std::to_string(CommandRunner::kStart / 1000) + "\r\n");
}

TEST_F(ServerCommands, ShutdownEndsTheProcessWithoutAReply) {
  EXPECT_EQ(run_("SHUTDOWN NOSAVE NOW"), "");
  EXPECT_EQ(run_.shutdowns(), 1);
  EXPECT_TRUE(run_.client().close_after_reply);
}

TEST_F(ServerCommands, ShutdownRefusesWordsThatDoNotGoTogether) {
  for (const std::string_view line : {"SHUTDOWN LATER", "SHUTDOWN SAVE NOSAVE", "SHUTDOWN ABORT NOW"}) {
    EXPECT_EQ(run_(line), "-ERR syntax error\r\n") << line;
  }
  EXPECT_EQ(run_("SHUTDOWN ABORT"), "-ERR No shutdown in progress.\r\n");
  EXPECT_EQ(run_.shutdowns(), 0);
}

TEST_F(ServerCommands, AMasterWithoutReplicas) {
  EXPECT_EQ(run_("ROLE"), "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n");
  EXPECT_EQ(run_("WAIT 1 100"), ":0\r\n");
  EXPECT_EQ(run_("WAIT x 100"), "-ERR value is not an integer or out of range\r\n");
  EXPECT_EQ(run_("WAIT 1 x"), "-ERR timeout is not an integer or out of range\r\n");
  EXPECT_EQ(run_("WAIT 1 -1"), "-ERR timeout is negative\r\n");
}

TEST_F(ServerCommands, ClusterIsDisabled) {
  constexpr std::string_view kDisabled = "-ERR This instance has cluster support disabled\r\n";
  for (const std::string_view line : {"CLUSTER INFO", "CLUSTER SLOTS", "CLUSTER MYID", "CLUSTER KEYSLOT k"}) {
    EXPECT_EQ(run_(line), kDisabled) << line;
  }
  EXPECT_EQ(run_("CLUSTER NOTHING"), "-ERR unknown subcommand 'NOTHING'. Try CLUSTER HELP.\r\n");
}

TEST_F(ServerCommands, TimeIsSecondsAndMicroseconds) {
  EXPECT_THAT(run_("TIME"), MatchesRegex("\\*2\r\n\\$10\r\n[0-9]{10}\r\n\\$[1-6]\r\n[0-9]{1,6}\r\n"));
}

TEST_F(ServerCommands, MonitorIsAnsweredOnce) {
  EXPECT_EQ(run_("MONITOR"), "+OK\r\n");
  EXPECT_TRUE(run_.client().monitors.load());
  EXPECT_EQ(run_("MONITOR"), "");
}

TEST_F(ServerCommands, SlowlogKeepsTheSlowCommands) {
  run_.settings().slowlog_threshold_us = 0;
  run_("SET k v");
  run_("GET k");
  run_.settings().slowlog_threshold_us = -1;
  EXPECT_EQ(run_("SLOWLOG LEN"), ":2\r\n");
  EXPECT_THAT(run_("SLOWLOG GET 1"),
              AllOf(StartsWith("*1\r\n*6\r\n:1\r\n:1700000000\r\n:"),
                    HasSubstr("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), Not(HasSubstr("SET"))));
  EXPECT_THAT(run_("SLOWLOG GET -1"), StartsWith("*2\r\n"));
  EXPECT_EQ(run_("SLOWLOG GET -2"), "-ERR count should be greater than or equal to -1\r\n");
  EXPECT_EQ(run_("SLOWLOG GET x"), "-ERR count should be greater than or equal to -1\r\n");
  EXPECT_EQ(run_("SLOWLOG GET 1 2"),
            "-ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP.\r\n");
  EXPECT_EQ(run_("SLOWLOG RESET"), "+OK\r\n");
  EXPECT_EQ(run_("SLOWLOG GET"), "*0\r\n");
}

TEST_F(ServerCommands, LatencyHasSeenNothing) {
  EXPECT_EQ(run_("LATENCY LATEST"), "*0\r\n");
  EXPECT_EQ(run_("LATENCY HISTORY command"), "*0\r\n");
  EXPECT_EQ(run_("LATENCY RESET command"), ":0\r\n");
  EXPECT_EQ(run_("LATENCY GRAPH command"), "-ERR No samples available for event 'command'\r\n");
  run_.client().protocol = 3;
  EXPECT_EQ(run_("LATENCY HISTOGRAM get"), "%0\r\n");
}

TEST_F(ServerCommands, MemoryUsageGrowsWithTheValue) {
  EXPECT_EQ(run_("MEMORY USAGE k"), "$-1\r\n");
  run_("SET k v");
  const std::int64_t small = integer("MEMORY USAGE k");
  EXPECT_GT(small, 0);
  EXPECT_LT(small, 200);
  run_.run({"SET", "k", std::string(10'000, 'x')});
  EXPECT_GE(integer("MEMORY USAGE k"), 10'000);
}

TEST_F(ServerCommands, MemoryUsageCountsTheFieldsOfALargeHash) {
  for (int i = 0; i < 600; ++i) {
    run_.run({"HSET", "h", "field" + std::to_string(i), std::string(100, 'x')});
  }
  EXPECT_GE(integer("MEMORY USAGE h SAMPLES 0"), 600 * 100);
  EXPECT_GE(integer("MEMORY USAGE h"), 600 * 100) << "fields of one size are estimated well from a few";
}

TEST_F(ServerCommands, MemoryUsageRefusesWhatIsNoOption) {
  for (const std::string_view line :
       {"MEMORY USAGE k SAMPLES", "MEMORY USAGE k SAMPLES -1", "MEMORY USAGE k COLOR 1"}) {
    EXPECT_EQ(run_(line), "-ERR syntax error\r\n") << line;
  }
  EXPECT_EQ(run_("MEMORY USAGE k SAMPLES x"), "-ERR value is not an integer or out of range\r\n");
}

TEST_F(ServerCommands, MemoryStatsHasItsFieldsInPairs) {
  run_("SET k v");
  run_.client().protocol = 3;
  EXPECT_THAT(run_("MEMORY STATS"),
              AllOf(StartsWith("%27\r\n$14\r\npeak.allocated\r\n:"), HasSubstr("$10\r\nkeys.count\r\n:1\r\n"),
                    HasSubstr("$13\r\nfragmentation\r\n,")));
  EXPECT_EQ(run_("MEMORY PURGE"), "+OK\r\n");
}

TEST_F(ServerCommands, DebugSleepHoldsThisConnectionBack) {
  const std::int64_t before = steady_clock_ms();
  EXPECT_EQ(run_("DEBUG SLEEP 1.5"), "+OK\r\n");
  EXPECT_GE(run_.client().sleep_until_ms, before + 1500);
  EXPECT_LE(run_.client().sleep_until_ms, steady_clock_ms() + 1500);
}

TEST_F(ServerCommands, DebugObjectShowsTheEncoding) {
  run_("SET k 12");
  EXPECT_THAT(run_("DEBUG OBJECT k"),
              MatchesRegex("\\+Value at:0x[0-9a-f]+ refcount:1 encoding:int serializedlength:2 lru:0 "
                           "lru_seconds_idle:0\r\n"));
  EXPECT_EQ(run_("DEBUG OBJECT missing"), "-ERR no such key\r\n");
  const std::string digest = run_("DEBUG DIGEST");
  EXPECT_EQ(digest.size(), 43U);
  run_("SET other v");
  EXPECT_NE(run_("DEBUG DIGEST"), digest);
  run_("DEL other");
  EXPECT_EQ(run_("DEBUG DIGEST"), digest);
  EXPECT_EQ(run_("DEBUG SEGFAULT"),
            "-ERR unknown subcommand or wrong number of arguments for 'SEGFAULT'. Try DEBUG HELP.\r\n");
}

TEST_F(ServerCommands, AclKnowsOneUser) {
  EXPECT_EQ(run_("ACL WHOAMI"), "$7\r\ndefault\r\n");
  EXPECT_EQ(run_("ACL USERS"), "*1\r\n$7\r\ndefault\r\n");
  EXPECT_EQ(run_("ACL LIST"), "*1\r\n$34\r\nuser default on nopass ~* &* +@all\r\n");
  run_.settings().set_password("sesame");
  EXPECT_THAT(run_("ACL LIST"), Not(HasSubstr("nopass")));
  EXPECT_THAT(run_("ACL CAT"), StartsWith("*21\r\n$8\r\nkeyspace\r\n"));
  EXPECT_THAT(run_("ACL CAT transaction"), HasSubstr("\r\nmulti\r\n"));
  EXPECT_EQ(run_("ACL CAT nothing"), "-ERR Unknown category 'nothing'\r\n");
}

}  // namespace
}  // namespace isthmus
