// The dots of a member of a set: what stays of each site, and the text of it.
#include "src/keyspace/dots.hpp"

#include <gtest/gtest.h>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {
namespace {

FieldView member(std::string_view dots, Version version, bool deleted = false) {
  return {"m", dots, version, 0, deleted};
}

TEST(Dots, AreOfOneSiteWithoutAText) {
  Keyspace keyspace;
  keyspace.set_site(7);
  const Dots dots(keyspace, member("", 5, true));
  EXPECT_EQ(dots.text(), "");
  EXPECT_EQ(dots.newest().at, (Point{5, 7}));
  EXPECT_FALSE(dots.live());
}

TEST(Dots, KeepTheNewestOfEachSite) {
  Dots dots;
  EXPECT_TRUE(dots.merge({{5, 1}, false}));
  EXPECT_TRUE(dots.merge({{4, 2}, false}));
  EXPECT_FALSE(dots.merge({{3, 1}, true})) << "an older removal";
  EXPECT_TRUE(dots.merge({{5, 1}, true})) << "of two equal ones the removed one";
  EXPECT_FALSE(dots.merge({{5, 1}, false}));
  EXPECT_TRUE(dots.live());
  EXPECT_EQ(dots.text(), "1=5- 2=4");
  EXPECT_TRUE(dots.merge({{4, 2}, true}));
  EXPECT_FALSE(dots.live());
}

TEST(Dots, ReadTheirText) {
  const Keyspace keyspace;
  for (const std::string_view text : {"1=5- 2=4", "9223372036854775806=18446744073709551615 3=1- 2=1"})
    EXPECT_EQ(Dots(keyspace, member(text, 5)).text(), text);
  for (const std::string_view text : {"x", "1", "1=", "1=x", "=", " ", "1=2 x", "1=2-x"})
    EXPECT_FALSE(Dots(keyspace, member(text, 5)).empty()) << text;
}

TEST(Dots, ForgetRemovedOnesButTheNewestBesideOneThatLives) {
  const Keyspace keyspace;
  Dots dots(keyspace, member("3=9- 1=5- 2=4", 9));
  dots.forget(9);
  EXPECT_EQ(dots.text(), "3=9- 2=4");
  dots.merge({{4, 2}, true});
  dots.forget(9);
  EXPECT_TRUE(dots.empty());
}

}  // namespace
}  // namespace isthmus
