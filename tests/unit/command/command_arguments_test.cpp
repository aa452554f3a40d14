// The notation of arguments, and COMMAND DOCS made of it.
#include "src/command/command_arguments.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

// The notation again, in one form for everything, so that a wrong reading shows.
std::string shown(const Argument& argument) {
  std::string text(argument.name);
  text.append(":").append(argument.type);
  if (argument.key_spec >= 0) text.append("/").append(std::to_string(argument.key_spec));
  if (!argument.token.empty()) text.append(" token ").append(argument.token);
  if (!argument.since.empty()) text.append(" since ").append(argument.since);
  if (!argument.deprecated_since.empty()) text.append(" until ").append(argument.deprecated_since);
  if (argument.optional) text.append(" optional");
  if (argument.multiple) text.append(" multiple");
  if (argument.multiple_token) text.append(" multiple_token");
  for (const Argument& inner : argument.arguments) text.append(" (").append(shown(inner)).append(")");
  return text;
}

std::string shown(std::string_view notation) {
  std::string text;
  for (const Argument& argument : parse_arguments(notation)) text.append(shown(argument)).append(";");
  return text;
}

struct Case {
  std::string_view notation, meaning;
};

class ArgumentNotation : public testing::TestWithParam<Case> {};

TEST_P(ArgumentNotation, MeansWhatItSays) { EXPECT_EQ(shown(GetParam().notation), GetParam().meaning); }

INSTANTIATE_TEST_SUITE_P(
    All, ArgumentNotation,
    testing::Values(
        Case{"", ""}, Case{"value", "value:string;"}, Case{"ip:port", "ip:port:string;"},
        Case{"key%k1 n%i", "key:key/1;n:integer;"}, Case{"[by%d]", "by:double optional;"},
        Case{"[MATCH=pattern%p*+]", "pattern:pattern token MATCH optional multiple multiple_token;"},
        Case{"at%u@6.2.0!7.0.0*", "at:unix-time since 6.2.0 until 7.0.0 multiple;"},
        Case{"[c<NX=nx%t|XX=xx%t@7.0.0>@2.6.12]",
             "c:oneof since 2.6.12 optional (nx:pure-token token NX) (xx:pure-token token XX since 7.0.0);"},
        Case{"ID=b{id%i*}* last", "b:block token ID multiple (id:integer multiple);last:string;"},
        Case{"a<b{c [d]}|[E=e<f|g>]>",
             "a:oneof (b:block (c:string) (d:string optional)) (e:oneof token E "
             "optional (f:string) (g:string));"}));

TEST(CommandArguments, CountMatchesTheArityOfEveryCommand) {
  for (std::size_t i = 0; i < command_count(); ++i) {
    const Command& command = command_at(i);
    // What servers say to each other is not for clients.
    if (!command.subcommands.empty() || command.name.starts_with("isthmus|")) continue;
    const auto arguments = command_arguments(command);
    const bool may_have_more = command.arity < 0;
    const int names = command.name.find('|') == std::string_view::npos ? 1 : 2;
    if (std::abs(command.arity) > names || may_have_more) {
      // Redis documents no arguments of these either.
      const bool undocumented = command.name == "ping" || command.name == "debug" || command.name == "quit" ||
                                command.name.starts_with("command|getkeys");
      EXPECT_TRUE(undocumented || !arguments.empty())
          << command.name << " takes arguments that the table does not have";
    } else {
      EXPECT_THAT(arguments, IsEmpty()) << command.name;
    }
  }
}

TEST(CommandArguments, KeysNameTheirSpecification) {
  const auto arguments = command_arguments(*find_command("rename"));
  ASSERT_THAT(arguments, SizeIs(2));
  EXPECT_EQ(arguments[0].key_spec, 0);
  EXPECT_EQ(arguments[1].key_spec, 1);
}

TEST(CommandArguments, DocsShowThem) {
  CommandRunner run;
  EXPECT_THAT(
      run("COMMAND DOCS hscan"),
      HasSubstr("$9\r\narguments\r\n*4\r\n*6\r\n$4\r\nname\r\n$3\r\nkey\r\n$4\r\ntype\r\n$3\r\nkey\r\n"
                "$14\r\nkey_spec_index\r\n:0\r\n*4\r\n$4\r\nname\r\n$6\r\ncursor\r\n"));
}

}  // namespace
}  // namespace isthmus
