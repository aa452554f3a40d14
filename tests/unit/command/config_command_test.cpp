// CONFIG: what is shown and read, and that a SET changes all or nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/command/config_parameters.hpp"
#include "src/keyspace/hash.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class ConfigCommand : public testing::Test {
 protected:
  std::string get(std::string_view name) { return find_parameter(name)->show(run_.services()); }
  std::string set(std::string_view name, std::string_view value) {
    return run_.run({"CONFIG", "SET", name, value});
  }
  static std::string failed(std::string_view name, std::string_view reason) {
    return "-ERR CONFIG SET failed (possibly related to argument '" + std::string(name) + "') - " +
           std::string(reason) + "\r\n";
  }
  CommandRunner run_;
};

TEST_F(ConfigCommand, GetTakesSeveralGlobsAndAnswersEachParameterOnce) {
  EXPECT_EQ(run_("CONFIG GET slowlog-max-len slowlog-* databases"),
            "*6\r\n$15\r\nslowlog-max-len\r\n$3\r\n128\r\n$23\r\nslowlog-log-slower-than\r\n$5\r\n10000\r\n"
            "$9\r\ndatabases\r\n$2\r\n16\r\n");
  EXPECT_EQ(run_("CONFIG GET nothing*"), "*0\r\n");
  run_.client().protocol = 3;
  EXPECT_EQ(run_("CONFIG GET save"), "%1\r\n$4\r\nsave\r\n$0\r\n\r\n");
}

TEST_F(ConfigCommand, GetAnswersANameInTheLettersOfTheQuestion) {
  EXPECT_EQ(run_("CONFIG GET TimeOut timeout"), "*2\r\n$7\r\nTimeOut\r\n$1\r\n0\r\n");
  EXPECT_EQ(run_("CONFIG GET TIMEOU?"), "*2\r\n$7\r\ntimeout\r\n$1\r\n0\r\n");
}

TEST_F(ConfigCommand, EveryParameterIsShownAndFound) {
  for (const Parameter& parameter : config_parameters()) {
    EXPECT_EQ(find_parameter(parameter.name), &parameter)
        << parameter.name << " is there twice or out of order";
    EXPECT_NO_THROW(parameter.show(run_.services())) << parameter.name;
  }
}

TEST_F(ConfigCommand, EveryParameterTakesTheValueThatItShows) {
  for (const Parameter& parameter : config_parameters()) {
    if (parameter.read == nullptr) continue;
    const std::string before = parameter.show(run_.services());
    EXPECT_EQ(set(parameter.name, before), "+OK\r\n") << parameter.name;
    EXPECT_EQ(parameter.show(run_.services()), before) << parameter.name;
  }
}

struct Change {
  std::string name, value, shown;
};

class ConfigChanges : public ConfigCommand, public testing::WithParamInterface<Change> {};

TEST_P(ConfigChanges, AreShownAfterwards) {
  EXPECT_EQ(set(GetParam().name, GetParam().value), "+OK\r\n");
  EXPECT_EQ(get(GetParam().name), GetParam().shown);
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigChanges,
    testing::Values(Change{"maxmemory", "1gb", "1073741824"}, Change{"MAXMEMORY", "2K", "2000"},
                    Change{"maxmemory", "", "0"}, Change{"timeout", "300", "300"},
                    Change{"slowlog-log-slower-than", "-1", "-1"},
                    Change{"slowlog-max-len", "9223372036854775807", "4294967295"},
                    Change{"notify-keyspace-events", "KEA", "AKE"},
                    Change{"notify-keyspace-events", "Kg$x", "g$xK"}, Change{"loglevel", "NOTICE", "notice"},
                    Change{"requirepass", "sesame", "sesame"}, Change{"proto-max-bulk-len", "1mb", "1048576"},
                    Change{"client-output-buffer-limit", "pubsub 1mb 2kb 3",
                           "normal 0 0 0 slave 0 0 0 pubsub 1048576 2048 3"},
                    Change{"client-output-buffer-limit", "replica 1 2 3 normal 4 5 6",
                           "normal 4 5 6 slave 1 2 3 pubsub 0 0 0"},
                    Change{"save", "", ""}, Change{"maxmemory-policy", "NoEviction", "noeviction"}));

class ConfigRefusals : public ConfigCommand, public testing::WithParamInterface<Change> {};

TEST_P(ConfigRefusals, SayWhyAndChangeNothing) {
  const auto& [name, value, reason] = GetParam();
  const std::string before = get(name);
  EXPECT_EQ(set(name, value), failed(name, reason));
  EXPECT_EQ(get(name), before);
}

INSTANTIATE_TEST_SUITE_P(
    All, ConfigRefusals,
    testing::Values(Change{"maxmemory", "1.5gb", "argument must be a memory value"},
                    Change{"maxmemory", "-1", "argument must be a memory value"},
                    Change{"timeout", "soon", "argument couldn't be parsed into an integer"},
                    Change{"timeout", "01", "argument couldn't be parsed into an integer"},
                    Change{"timeout", "-1", "argument must be between 0 and 2147483647 inclusive"},
                    Change{"maxclients", "0", "argument must be between 1 and 4294967295 inclusive"},
                    Change{"proto-max-bulk-len", "1",
                           "argument must be between 1048576 and 9223372036854775807 inclusive"},
                    Change{"databases", "16", "can't set immutable config"},
                    Change{"loglevel", "info",
                           "argument(s) must be one of the following: debug, verbose, notice, warning"},
                    Change{"notify-keyspace-events", "KQ",
                           "Invalid event class character. Use 'Ag$lshzxeKEtmdn'."},
                    Change{"client-output-buffer-limit", "pubsub 1 2",
                           "Wrong number of arguments in buffer limit configuration."},
                    Change{"client-output-buffer-limit", "pubsub,1,2,3",
                           "Wrong number of arguments in buffer limit configuration."},
                    Change{"client-output-buffer-limit", "master 1 2 3",
                           "Invalid client class specified in buffer limit configuration."},
                    Change{"maxmemory-policy", "allkeys-lru", "this server has only the value 'noeviction'"},
                    Change{"save", "900 1", "this server has only the value ''"}));

TEST_F(ConfigCommand, SetChangesAllOrNothing) {
  EXPECT_EQ(run_("CONFIG SET timeout 5 tcp-keepalive x"),
            failed("tcp-keepalive", "argument couldn't be parsed into an integer"));
  EXPECT_EQ(get("timeout"), "0");
  EXPECT_EQ(run_("CONFIG SET timeout 5 maxclients 7"), "+OK\r\n");
  EXPECT_EQ(get("timeout"), "5");
  EXPECT_EQ(get("maxclients"), "7");
}

TEST_F(ConfigCommand, SetChecksNamesBeforeValues) {
  EXPECT_EQ(run_("CONFIG SET timeout x color blue"),
            "-ERR Unknown option or number of arguments for CONFIG SET - 'color'\r\n");
  EXPECT_EQ(run_("CONFIG SET timeout x TIMEOUT 5"), failed("TIMEOUT", "duplicate parameter"));
  EXPECT_EQ(run_("CONFIG SET timeout x Databases 5"), failed("Databases", "can't set immutable config"));
  EXPECT_EQ(run_("CONFIG SET timeout 5 color"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("CONFIG SET timeout"), "-ERR wrong number of arguments for 'config|set' command\r\n");
}

TEST_F(ConfigCommand, HashLimitsReachTheKeyspaceUnderBothNames) {
  run_("CONFIG SET hash-max-ziplist-entries 1 hash-max-listpack-value 10");
  EXPECT_EQ(run_.keyspace().hash_limits().max_packed_fields, 1u);
  EXPECT_EQ(run_.keyspace().hash_limits().max_packed_bytes, 10u);
  EXPECT_EQ(get("hash-max-listpack-entries"), "1");
  run_("HSET h a 1 b 2");
  EXPECT_EQ(run_("OBJECT ENCODING h"), "$9\r\nhashtable\r\n");
}

TEST_F(ConfigCommand, SetIsAtomicInsideATransaction) {
  run_("MULTI");
  run_("CONFIG SET hash-max-listpack-entries 7");
  run_("CONFIG GET hash-max-listpack-entries");
  EXPECT_EQ(run_("EXEC"), "*2\r\n+OK\r\n*2\r\n$25\r\nhash-max-listpack-entries\r\n$1\r\n7\r\n");
}

TEST_F(ConfigCommand, ResetstatClearsTheCounters) {
  run_("GET missing");
  EXPECT_THAT(run_("INFO stats"), HasSubstr("keyspace_misses:1\r\n"));
  EXPECT_EQ(run_("CONFIG RESETSTAT"), "+OK\r\n");
  EXPECT_THAT(run_("INFO stats"), HasSubstr("keyspace_misses:0\r\n"));
}

TEST_F(ConfigCommand, RewriteSaysThatThereIsNoFile) {
  EXPECT_EQ(run_("CONFIG REWRITE"), "-ERR The server is running without a config file\r\n");
  EXPECT_THAT(run_("CONFIG HELP"), StartsWith("*11\r\n+CONFIG <subcommand> [<arg> [value] [opt] ...]."));
}

}  // namespace
}  // namespace isthmus
