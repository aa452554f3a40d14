// ISTHMUS, as a person asks it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

TEST(IsthmusCommand, HelpListsWhatIsForPeople) {
  CommandRunner run;
  EXPECT_THAT(run("ISTHMUS HELP"),
              AllOf(StartsWith("*7\r\n+ISTHMUS <subcommand>"), HasSubstr("+PEER FORGET <name>\r\n"),
                    HasSubstr("+SITES\r\n"), HasSubstr("+HELP\r\n")));
  EXPECT_EQ(run("ISTHMUS help"), run("ISTHMUS HELP"));
  EXPECT_EQ(run("ISTHMUS NONE"), "-ERR unknown subcommand 'NONE'. Try ISTHMUS HELP.\r\n");
  EXPECT_EQ(run("ISTHMUS HELP more"), "-ERR wrong number of arguments for 'isthmus|help' command\r\n");
}

}  // namespace
}  // namespace isthmus
