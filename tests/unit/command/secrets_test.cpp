// MONITOR and SLOWLOG show no passwords.
#include "src/command/secrets.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus {
namespace {

using testing::ElementsAre;

std::vector<std::string_view> shown(const Command& command, std::vector<std::string_view> args) {
  return without_secrets(command, args);
}

TEST(Secrets, OfAuthAreAllArguments) {
  const Command& auth = *find_command("auth");
  EXPECT_TRUE(may_carry_secrets(auth));
  EXPECT_THAT(shown(auth, {"AUTH", "x"}), ElementsAre("AUTH", "(redacted)"));
  EXPECT_THAT(shown(auth, {"auth", "u", "x"}), ElementsAre("auth", "(redacted)", "(redacted)"));
}

TEST(Secrets, OfHelloStandBehindItsAuth) {
  const Command& hello = *find_command("hello");
  EXPECT_TRUE(may_carry_secrets(hello));
  EXPECT_THAT(shown(hello, {"HELLO", "3", "Auth", "u", "x", "SETNAME", "auth"}),
              ElementsAre("HELLO", "3", "Auth", "(redacted)", "(redacted)", "SETNAME", "auth"));
  EXPECT_THAT(shown(hello, {"HELLO", "3", "AUTH", "x"}), ElementsAre("HELLO", "3", "AUTH", "(redacted)"));
  EXPECT_THAT(shown(hello, {"HELLO"}), ElementsAre("HELLO"));
}

TEST(Secrets, OfConfigSetAreThePasswords) {
  const Command& set = *find_subcommand(*find_command("config"), "set");
  EXPECT_TRUE(may_carry_secrets(set));
  EXPECT_THAT(shown(set, {"CONFIG", "SET", "timeout", "5", "RequirePass", "x"}),
              ElementsAre("CONFIG", "SET", "timeout", "5", "RequirePass", "(redacted)"));
  EXPECT_THAT(shown(set, {"CONFIG", "SET", "requirepass"}), ElementsAre("CONFIG", "SET", "requirepass"));
}

TEST(Secrets, AreNotLookedForInOtherCommands) {
  EXPECT_FALSE(may_carry_secrets(*find_command("set")));
  EXPECT_FALSE(may_carry_secrets(*find_command("config")));
}

}  // namespace
}  // namespace isthmus
