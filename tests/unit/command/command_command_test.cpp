// COMMAND: what it tells of commands, in Redis's shapes.
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/command/command_facts.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

class CommandCommand : public testing::Test {
 protected:
  CommandRunner run_;
};

TEST_F(CommandCommand, InfoHasTenElementsAndNullForNoCommand) {
  EXPECT_EQ(
      run_("COMMAND INFO nothing GET"),
      "*2\r\n$-1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
      "*3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n$5\r\nflags\r\n*2\r\n+RO\r\n+access\r\n"
      "$12\r\nbegin_search\r\n*4\r\n$4\r\ntype\r\n$5\r\nindex\r\n$4\r\nspec\r\n*2\r\n$5\r\nindex\r\n:1\r\n"
      "$9\r\nfind_keys\r\n*4\r\n$4\r\ntype\r\n$5\r\nrange\r\n$4\r\nspec\r\n*6\r\n$7\r\nlastkey\r\n:0\r\n"
      "$7\r\nkeystep\r\n:1\r\n$5\r\nlimit\r\n:0\r\n*0\r\n");
}

TEST_F(CommandCommand, InfoUsesSetsAndMapsInTheNewProtocol) {
  run_.client().protocol = 3;
  EXPECT_THAT(run_("COMMAND INFO mget"),
              AllOf(HasSubstr(":-2\r\n~2\r\n+readonly\r\n+fast\r\n"),
                    HasSubstr("~1\r\n$26\r\nrequest_policy:multi_shard\r\n~1\r\n%3\r\n$5\r\nflags\r\n~2\r\n"),
                    HasSubstr("$7\r\nlastkey\r\n:-1\r\n")));
}

TEST_F(CommandCommand, InfoOfASubcommandAndOfItsContainer) {
  EXPECT_THAT(
      run_("COMMAND INFO client|list"),
      StartsWith(
          "*1\r\n*10\r\n$11\r\nclient|list\r\n:-2\r\n*4\r\n+admin\r\n+noscript\r\n+loading\r\n+stale\r\n"
          ":0\r\n:0\r\n:0\r\n*4\r\n+@admin\r\n+@slow\r\n+@dangerous\r\n+@connection\r\n"));
  EXPECT_THAT(
      run_("COMMAND INFO config"),
      StartsWith("*1\r\n*10\r\n$6\r\nconfig\r\n:-2\r\n*0\r\n:0\r\n:0\r\n:0\r\n*1\r\n+@slow\r\n*0\r\n*0\r\n"
                 "*5\r\n*10\r\n$10\r\nconfig|get\r\n"));
}

TEST_F(CommandCommand, WithoutArgumentsItDescribesAsManyAsItCounts) {
  const std::string count = std::to_string(all_commands().size());
  EXPECT_EQ(run_("COMMAND COUNT"), ":" + count + "\r\n");
  EXPECT_THAT(run_("COMMAND"), StartsWith("*" + count + "\r\n*10\r\n"));
  EXPECT_EQ(run_("COMMAND INFO"), run_("COMMAND"));
}

TEST_F(CommandCommand, DocsLeaveOutWhatIsNoCommand) {
  EXPECT_EQ(run_("COMMAND DOCS nothing"), "*0\r\n");
  EXPECT_THAT(run_("COMMAND DOCS nothing config|get"),
              AllOf(StartsWith("*2\r\n$10\r\nconfig|get\r\n"), HasSubstr("$5\r\nsince\r\n$5\r\n2.0.0\r\n")));
  EXPECT_THAT(run_("COMMAND DOCS"), StartsWith("*" + std::to_string(2 * all_commands().size()) + "\r\n"));
}

TEST_F(CommandCommand, ListFilters) {
  EXPECT_EQ(run_("COMMAND LIST FILTERBY PATTERN CONFIG|RE*"),
            "*2\r\n$16\r\nconfig|resetstat\r\n$14\r\nconfig|rewrite\r\n");
  EXPECT_THAT(run_("COMMAND LIST FILTERBY ACLCAT Hash"),
              AllOf(HasSubstr("\r\nhgetall\r\n"), Not(HasSubstr("\r\nget\r\n"))));
  EXPECT_EQ(run_("COMMAND LIST FILTERBY ACLCAT nothing"), "*0\r\n");
  EXPECT_EQ(run_("COMMAND LIST FILTERBY MODULE any"), "*0\r\n");
  // All but what servers say to each other.
  std::size_t listed = 0;
  for (const Command* command : all_commands()) listed += 1 + command->subcommands.size();
  EXPECT_THAT(run_("COMMAND LIST"), StartsWith("*" + std::to_string(listed) + "\r\n"));
  EXPECT_THAT(run_("COMMAND LIST"), Not(HasSubstr("isthmus")));
  EXPECT_EQ(run_("COMMAND LIST FILTERBY COLOR blue"), "-ERR syntax error\r\n");
  EXPECT_EQ(run_("COMMAND LIST FILTERBY PATTERN"), "-ERR syntax error\r\n");
}

TEST_F(CommandCommand, GetkeysFindsTheKeys) {
  EXPECT_EQ(run_("COMMAND GETKEYS MSET a 1 b 2"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS del a b c"), "*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS rename a b"), "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS memory usage k samples 5"), "*1\r\n$1\r\nk\r\n");
}

TEST_F(CommandCommand, GetkeysRefusesInRedisOrder) {
  EXPECT_EQ(run_("COMMAND GETKEYS nothing a"), "-ERR Invalid command specified\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS memory nothing a"), "-ERR Invalid command specified\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS ping a b c"), "-ERR The command has no key arguments\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS spublish c m"), "-ERR The command has no key arguments\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS get a b"), "-ERR Invalid number of arguments specified for command\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYS set a"), "-ERR Invalid number of arguments specified for command\r\n");
}

TEST_F(CommandCommand, GetkeysandflagsSaysWhatIsDone) {
  EXPECT_EQ(
      run_("COMMAND GETKEYSANDFLAGS rename a b"),
      "*2\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+delete\r\n*2\r\n$1\r\nb\r\n*2\r\n+OW\r\n+update\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYSANDFLAGS set a b"), "*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n");
  EXPECT_EQ(run_("COMMAND GETKEYSANDFLAGS set a b xx GET"),
            "*1\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+update\r\n");
}

std::vector<const Command*> commands_and_subcommands() {
  std::vector<const Command*> all;
  for (std::size_t i = 0; i < command_count(); ++i) all.push_back(&command_at(i));
  return all;
}

TEST(CommandTable, EveryRowIsComplete) {
  std::set<std::string_view> names;
  for (const Command* command : commands_and_subcommands()) {
    EXPECT_TRUE(names.insert(command->name).second) << command->name << " is there twice";
    EXPECT_NE(command->arity, 0) << command->name;
    EXPECT_FALSE(command->summary.empty()) << command->name;
    EXPECT_FALSE(command->group.empty()) << command->name;
    EXPECT_FALSE(command->since.empty()) << command->name;
    EXPECT_TRUE(command->handler != nullptr || !command->subcommands.empty()) << command->name;
    for (const Command& subcommand : command->subcommands) {
      EXPECT_THAT(subcommand.name, StartsWith(std::string(command->name) + "|"));
    }
  }
}

TEST(CommandFacts, EveryCommandWithKeysSaysWhatItDoesToThem) {
  for (const Command* command : commands_and_subcommands()) {
    const auto specs = key_specs(*command);
    // SINTERCARD says in the request how many keys there are, so its row has no place for the first one.
    EXPECT_EQ(command->first_key != 0 || command->name == "sintercard", !specs.empty()) << command->name;
    for (const KeySpec& spec : specs) {
      ASSERT_FALSE(spec.flags.empty()) << command->name;
      const bool writes = command->has(kWrite), pubsub = spec.flags[0] == "not_key";
      // Of these one key is written and others are read.
      const bool both = command->name == "copy" || command->name.ends_with("store");
      EXPECT_TRUE(pubsub || (spec.flags[0] != "RO") == writes || both) << command->name;
    }
  }
}

TEST(CommandFacts, CategoriesFollowFromRowAndFlags) {
  EXPECT_THAT(category_names(*find_command("get")), ElementsAre("read", "string", "fast"));
  EXPECT_THAT(category_names(*find_command("del")), ElementsAre("keyspace", "write", "slow"));
  EXPECT_THAT(category_names(*find_command("role")), ElementsAre("admin", "fast", "dangerous"));
  EXPECT_THAT(category_names(*find_command("publish")), ElementsAre("pubsub", "fast"));
  EXPECT_THAT(command_tips(*find_command("scan")),
              ElementsAre("nondeterministic_output", "request_policy:special"));
  EXPECT_THAT(command_tips(*find_command("get")), IsEmpty());
}

}  // namespace
}  // namespace isthmus
