// The lines of a config file, by table.
#include "src/config_file.hpp"

#include <sstream>
#include <string>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

std::string value_of(const std::string& line) {
  std::istringstream input(line + "\n");
  const auto entries = read_config_file(input);
  return entries.size() == 1 && entries[0].name == "name" ? entries[0].value
                                                          : "(no single entry called name)";
}

TEST(ConfigFile, ReadsValuesOfEveryForm) {
  EXPECT_EQ(value_of("name = value"), "value");
  EXPECT_EQ(value_of("  name=value  \r"), "value");
  EXPECT_EQ(value_of("name = two words"), "two words");
  EXPECT_EQ(value_of("name = value # comment"), "value");
  EXPECT_EQ(value_of("name = a#b"), "a#b");
  EXPECT_EQ(value_of("name = a=b"), "a=b");
  EXPECT_EQ(value_of("name ="), "");
  EXPECT_EQ(value_of("name = # comment"), "");
  EXPECT_EQ(value_of("name = \"\""), "");
  EXPECT_EQ(value_of("name = \"a # b\" # comment"), "a # b");
  EXPECT_EQ(value_of(R"(name = "a\"b\\c\d")"), R"(a"b\c\d)");
  EXPECT_EQ(value_of(R"(name = 'a"b\c')"), R"(a"b\c)");
  EXPECT_EQ(value_of("name = [\"a\", 'b', c ,]"), "a,b,c");
  EXPECT_EQ(value_of("name = []"), "");
}

TEST(ConfigFile, SkipsBlankLinesAndCommentsAndCountsLines) {
  std::istringstream input("# first\n\n; second\n  a = 1\n\nb = 2");
  const auto entries = read_config_file(input);
  ASSERT_EQ(entries.size(), 2U);
  EXPECT_EQ(entries[0].name, "a");
  EXPECT_EQ(entries[0].line, 4U);
  EXPECT_EQ(entries[1].value, "2");
  EXPECT_EQ(entries[1].line, 6U);
}

TEST(ConfigFile, RefusesOtherLinesAndNeverRepeatsAValue) {
  for (const char* line :
       {"[section]", "secret", "= secret", "name = \"secret", "name = 'secret", "name = \"a\" secret",
        "name = [secret", "name = [\"secret", "name = [a] secret"}) {
    std::istringstream input("\n" + std::string(line) + "\n");
    try {
      read_config_file(input);
      ADD_FAILURE() << line;
    } catch (const ConfigFileError& error) {
      EXPECT_EQ(error.line, 2U) << line;
      EXPECT_EQ(std::string(error.what()).find("secret"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace isthmus
