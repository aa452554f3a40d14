// Glob patterns by table, and against a plain recursive matcher on random patterns.
#include "src/pubsub/glob.hpp"

#include <chrono>
#include <random>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

struct Case {
  std::string_view pattern;
  std::string_view text;
  bool matches;
};

using namespace std::string_view_literals;

// Each outcome was taken from redis-server 7.0.15 (KEYS), except for the empty text, which KEYS treats on its
// own.
const Case kCases[] = {
    {"", "", true},
    {"", "a", false},
    {"a", "", false},
    {"*", "", false},
    {"abc", "abc", true},
    {"abc", "abd", false},
    {"abc", "abcd", false},
    {"abcd", "abc", false},
    {"Abc", "abc", false},
    {"?", "a", true},
    {"??", "a", false},
    {"?", "ab", false},
    {"*", "a", true},
    {"**", "abc", true},
    {"a*", "a", true},
    {"a**", "a", true},
    {"*a", "a", true},
    {"a*c", "abc", true},
    {"a*c", "ac", true},
    {"a*c", "abcd", false},
    {"a*b*c", "a_b_b_c", true},
    {"*a*b", "abab", true},
    {"*ab", "aab", true},
    {"*?", "a", true},
    {"*??", "a", false},
    {"/ion/room/*/**", "/ion/room/r/u", true},
    {"__key*__:*", "__keyspace@0__:k", true},
    {"[abc]", "b", true},
    {"[abc]", "d", false},
    {"[^abc]", "b", false},
    {"[^abc]", "d", true},
    {"[a^]", "^", true},
    {"[a-c]", "b", true},
    {"[c-a]", "b", true},
    {"[a-c]", "d", false},
    {"[^a-c]", "d", true},
    {"[-a]", "-", true},
    {"[a-]", "-", false},  // a range to the bracket, and so a set without end
    {"[a-]", "]", true},
    {"[a-]", "^", true},
    {"[]", "a", false},
    {"[]", "]", false},
    {"[]a]", "]", false},
    {"[^]", "a", true},
    {"[^", "a", true},
    {"[", "a", false},
    {"[", "[", false},
    {"[abc", "b", true},
    {"[abc", "bc", false},
    {"[a-", "-", true},
    {"[\\]]", "]", true},
    {"[\\a-c]", "b", false},
    {"[\\a-c]", "-", true},
    {"[a\\-c]", "b", false},
    {"[a-\\]]", "b", false},  // the range from a to the backslash, then an empty rest
    {"[a-\\]]", "_]", true},
    {"[\\", "\\", true},
    {"[*]", "*", true},
    {"[*]", "a", false},
    {"[[]", "[", true},
    {"\\*", "*", true},
    {"\\*", "a", false},
    {"\\a", "a", true},
    {"\\\\", "\\", true},
    {"\\", "\\", true},
    {"a\\", "a\\", true},
    {"a]", "a]", true},
    {"*\\", "a\\", true},
    {"*[b-d]x", "abcx", true},
    {"*\\*", "ab*", true},
    {"a\0b"sv, "a\0b"sv, true},
    {"a\0b"sv, "a\0c"sv, false},
    {"?"sv, "\0"sv, true},
    {"[\x80-\xff]", "\x90", true},
    {"[\xff-\x80]", "\x90", true},
    {"[a-\xff]", "b", false},
    {"[a-\xff]", "A", true},
};

TEST(Glob, MatchesAsRedisDoes) {
  for (const Case& c : kCases)
    EXPECT_EQ(glob_match(c.pattern, c.text), c.matches) << c.pattern << " on " << c.text;
}

TEST(Glob, FoldsCaseWhenAsked) {
  EXPECT_TRUE(glob_match("MaxMemory*", "maxmemory-policy", true));
  EXPECT_FALSE(glob_match("MaxMemory*", "maxmemory-policy", false));
  EXPECT_TRUE(glob_match("*[A-C]", "xB", true));
  EXPECT_TRUE(glob_match("*[A-C]", "xb", true));
  EXPECT_TRUE(glob_match("[XY]", "y", true));
  EXPECT_TRUE(glob_match("\\A", "a", true));
  // Redis's own gaps: an escaped byte of a set keeps its case, and a range is ordered before it is folded.
  EXPECT_FALSE(glob_match("[\\A]", "a", true));
  EXPECT_FALSE(glob_match("[Z-a]", "z", true));
  EXPECT_TRUE(glob_match("[\xc0-\xd0]", "\xc8", true));
  EXPECT_FALSE(glob_match("[\xc0-a]", "b", true));
}

TEST(Glob, ManyStarsOnALongTextEndQuickly) {
  std::string pattern;
  for (int i = 0; i < 2'000; ++i) pattern += "*a";
  const std::string text(20'000, 'a');
  const auto start = std::chrono::steady_clock::now();
  EXPECT_FALSE(glob_match(pattern + "b", text));
  EXPECT_TRUE(glob_match(pattern, text));
  EXPECT_FALSE(glob_match("*?*?*?*?*?*?*?*?*?*?*?*?*b", text));
  // An exponential matcher would not come back at all; the bound leaves room for sanitizers and a busy
  // machine.
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20));
}

TEST(Glob, TellsLiteralsFromPatterns) {
  EXPECT_TRUE(glob_is_literal(""));
  EXPECT_TRUE(glob_is_literal("/ion/room/a-b]^"));
  for (const std::string_view pattern : {"a*", "?", "[a]", "\\a", "x["})
    EXPECT_FALSE(glob_is_literal(pattern)) << pattern;
}

// --- The reference: what a pattern means, said as recursion over its elements. Slow, and simple enough to be
// checked by reading.

struct Set {
  bool matches;
  std::string_view rest;
};

Set reference_set(std::string_view p, char c) {
  const bool negated = p.starts_with('^');
  if (negated) p.remove_prefix(1);
  bool in = false;
  while (!p.empty() && p[0] != ']') {
    if (p[0] == '\\' && p.size() > 1) {
      in = in || p[1] == c;
      p.remove_prefix(2);
    } else if (p.size() > 2 && p[1] == '-') {
      const int a = static_cast<signed char>(p[0]);
      const int b = static_cast<signed char>(p[2]);
      const int value = static_cast<signed char>(c);
      in = in || (std::min(a, b) <= value && value <= std::max(a, b));
      p.remove_prefix(3);
    } else {
      in = in || p[0] == c;
      p.remove_prefix(1);
    }
  }
  if (!p.empty()) p.remove_prefix(1);
  return {in != negated, p};
}

bool reference_match(std::string_view p, std::string_view t) {
  if (p.empty()) return t.empty();
  if (p[0] == '*') {
    for (std::size_t taken = 0; taken <= t.size(); ++taken) {
      if (reference_match(p.substr(1), t.substr(taken))) return true;
    }
    return false;
  }
  if (t.empty()) return false;
  if (p[0] == '[') {
    const Set set = reference_set(p.substr(1), t[0]);
    return set.matches && reference_match(set.rest, t.substr(1));
  }
  if (p[0] == '\\' && p.size() > 1) return p[1] == t[0] && reference_match(p.substr(2), t.substr(1));
  return (p[0] == '?' || p[0] == t[0]) && reference_match(p.substr(1), t.substr(1));
}

std::string random_text(std::mt19937& random, std::string_view alphabet, std::size_t longest) {
  std::string text(random() % (longest + 1), ' ');
  for (char& c : text) c = alphabet[random() % alphabet.size()];
  return text;
}

TEST(Glob, AgreesWithThePlainRecursiveReference) {
  std::mt19937 random(20230711);
  int matches = 0;
  for (int i = 0; i < 300'000; ++i) {
    const std::string pattern = random_text(random, "aab*?[]^-\\\xf0", 9);
    const std::string text = random_text(random, "aab-]\\\xf0", 7);
    const bool expected = text.empty() ? pattern.empty() : reference_match(pattern, text);
    ASSERT_EQ(glob_match(pattern, text), expected) << "pattern " << pattern << " text " << text;
    matches += expected ? 1 : 0;
  }
  // Otherwise the test would prove little.
  EXPECT_GT(matches, 10'000);
}

}  // namespace
}  // namespace isthmus
