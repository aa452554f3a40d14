// INFO: which sections it answers, and that its figures are those of the server.
#include "src/command/info.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

class Info : public testing::Test {
 protected:
  CommandRunner run_;
};

TEST_F(Info, DefaultLeavesOutTheLongSections) {
  const std::string text = run_("INFO");
  for (const std::string_view title : {"Server", "Clients", "Memory", "Persistence", "Stats", "Replication",
                                       "CPU", "Modules", "Errorstats", "Cluster", "Keyspace", "Isthmus"}) {
    EXPECT_THAT(text, HasSubstr("# " + std::string(title) + "\r\n"));
  }
  EXPECT_THAT(text, Not(HasSubstr("# Commandstats")));
  EXPECT_THAT(run_("INFO default"), AllOf(HasSubstr("# Isthmus\r\n"), Not(HasSubstr("# Commandstats"))));
}

TEST_F(Info, AllHasNoModulesAndEverythingHas) {
  EXPECT_THAT(run_("INFO all"), AllOf(HasSubstr("# Commandstats\r\n"), Not(HasSubstr("# Modules\r\n"))));
  EXPECT_THAT(run_("INFO everything"), AllOf(HasSubstr("# Commandstats\r\n"), HasSubstr("# Modules\r\n")));
}

TEST_F(Info, SectionsComeInRedisOrderSeparatedByAnEmptyLine) {
  EXPECT_EQ(run_("INFO KEYSPACE cluster nonsense"),
            "$44\r\n# Cluster\r\ncluster_enabled:0\r\n\r\n# Keyspace\r\n\r\n");
  EXPECT_EQ(run_("INFO nonsense"), "$0\r\n\r\n");
}

TEST_F(Info, IsVerbatimTextInTheNewProtocol) {
  run_.client().protocol = 3;
  EXPECT_EQ(run_("INFO cluster"), "=34\r\ntxt:# Cluster\r\ncluster_enabled:0\r\n\r\n");
}

TEST_F(Info, HasWhatClientsReadWhenTheyConnect) {
  EXPECT_THAT(run_("INFO"),
              AllOf(HasSubstr("\r\nredis_version:7.0.15\r\n"), HasSubstr("\r\nredis_mode:standalone\r\n"),
                    HasSubstr("\r\nrole:master\r\n"), HasSubstr("\r\nloading:0\r\n"),
                    HasSubstr("\r\ncluster_enabled:0\r\n"), HasSubstr("\r\nconnected_slaves:0\r\n"),
                    HasSubstr("\r\nisthmus_version:" ISTHMUS_VERSION "\r\n")));
}

TEST_F(Info, CountsTimeFromTheStart) {
  run_.pass(2 * 86'400'000 + 3'999);
  EXPECT_THAT(run_("INFO server"),
              AllOf(HasSubstr("\r\nuptime_in_seconds:172803\r\n"), HasSubstr("\r\nuptime_in_days:2\r\n")));
}

TEST_F(Info, CountsKeysOfEachDatabase) {
  run_("SET a 1");
  run_("SET b 1 EX 100");
  run_("SELECT 15");
  run_("HSET h f v");
  EXPECT_THAT(run_("INFO keyspace"), HasSubstr("# Keyspace\r\ndb0:keys=2,expires=1,avg_ttl=100000\r\n"
                                               "db15:keys=1,expires=0,avg_ttl=0\r\n"));
  run_("SELECT 0");
  run_("SET c 1 EX 200");
  run_.pass(40'000);
  EXPECT_THAT(run_("INFO keyspace"), HasSubstr("db0:keys=3,expires=2,avg_ttl=110000\r\n"));
  run_("PERSIST b");
  run_("PEXPIRE c 7");
  EXPECT_THAT(run_("INFO keyspace"), HasSubstr("db0:keys=3,expires=1,avg_ttl=7\r\n"));
}

TEST_F(Info, CountsCommandsHitsAndErrors) {
  run_("SET a 1");
  run_("GET a");
  run_("GET b");
  run_("HGET a f");
  run_("GET a b");
  run_("CLIENT ID");
  const std::string text = run_("INFO all");
  EXPECT_THAT(text,
              AllOf(HasSubstr("keyspace_hits:2\r\n"), HasSubstr("keyspace_misses:1\r\n"),
                    HasSubstr("total_error_replies:2\r\n"), HasSubstr("errorstat_ERR:count=1\r\n"),
                    HasSubstr("errorstat_WRONGTYPE:count=1\r\n"), HasSubstr("cmdstat_client|id:calls=1,")));
  EXPECT_THAT(text, HasSubstr("cmdstat_get:calls=2,"));
  EXPECT_THAT(text,
              testing::ContainsRegex("cmdstat_get:calls=2,usec=[0-9]+,usec_per_call=[0-9]+\\.[0-9][0-9],"
                                     "rejected_calls=1,failed_calls=0"));
  EXPECT_THAT(text,
              testing::ContainsRegex("cmdstat_hget:calls=1,usec=[0-9]+,usec_per_call=[0-9]+\\.[0-9][0-9],"
                                     "rejected_calls=0,failed_calls=1"));
}

TEST_F(Info, CountsConnectionsAndTheirBuffers) {
  FakeClient other;
  other.input_bytes = 100;
  other.output_bytes = 2000;
  run_.registry().add(other);
  EXPECT_THAT(
      run_("INFO clients"),
      AllOf(HasSubstr("connected_clients:2\r\n"), HasSubstr("client_recent_max_input_buffer:100\r\n"),
            HasSubstr("client_recent_max_output_buffer:2000\r\n"), HasSubstr("maxclients:10000\r\n")));
}

TEST_F(Info, PeakOfMemoryStaysWhenMemoryIsFreed) {
  run_.run({"SET", "big", std::string(100'000, 'x')});
  const std::uint64_t used = used_memory_bytes(run_.services());
  EXPECT_GE(used, 100'000u);
  run_("DEL big");
  EXPECT_LT(used_memory_bytes(run_.services()), used);
  EXPECT_EQ(run_.services().stats.peak_memory_bytes.load(), used);
  EXPECT_THAT(run_("INFO memory"), HasSubstr("used_memory_peak:" + std::to_string(used) + "\r\n"));
}

TEST_F(Info, TellsOfTheBackend) {
  EXPECT_THAT(run_("INFO isthmus"),
              AllOf(HasSubstr("\r\nbackend:memory:\r\n"), HasSubstr("\r\nbackend_durable:0\r\n"),
                    HasSubstr("\r\nbackend_available:1\r\n"), HasSubstr("\r\ndirty_entries:0\r\n"),
                    HasSubstr("\r\nclosed_slow_subscribers:0\r\n")));
}

TEST(HumanBytes, HasTwoDigitsAboveAKilobyte) {
  EXPECT_EQ(human_bytes(0), "0B");
  EXPECT_EQ(human_bytes(1023), "1023B");
  EXPECT_EQ(human_bytes(1024), "1.00K");
  EXPECT_EQ(human_bytes(1536), "1.50K");
  EXPECT_EQ(human_bytes(23 * 1024 * 1024), "23.00M");
  EXPECT_EQ(human_bytes(std::uint64_t{1} << 62), "4096.00P");
}

TEST(ResidentBytes, AreThoseOfALivingProcess) { EXPECT_GT(resident_bytes(), 1'000'000u); }

}  // namespace
}  // namespace isthmus
