// Matches glob patterns without recursion: on a mismatch the last star takes one byte more.
#include "src/pubsub/glob.hpp"

#include <cstddef>
#include <utility>

namespace isthmus {
namespace {

constexpr std::string_view kSpecial = "*?[\\";

// ASCII only: Redis runs in the C locale for character classes.
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

bool same(char a, char b, bool ignore_case) { return a == b || (ignore_case && lower(a) == lower(b)); }

// What glibc's tolower() makes of a signed char, which is what Redis gives it: bytes from 0x80 become
// positive, all but 0xff.
int folded(int c) {
  if (c >= 'A' && c <= 'Z') return c + ('a' - 'A');
  return c < -1 ? c + 256 : c;
}

bool in_range(char first, char last, char c, bool ignore_case) {
  int low = static_cast<signed char>(first);
  int high = static_cast<signed char>(last);
  int value = static_cast<signed char>(c);
  if (low > high) std::swap(low, high);
  if (ignore_case) {
    // The bounds were put in order before this, so [Z-a] becomes the empty range z-a, as in Redis.
    low = folded(low);
    high = folded(high);
    value = folded(value);
  }
  return low <= value && value <= high;
}

// Whether `c` is in the set that begins at pattern[at], just behind its `[`. Moves `at` behind the set.
bool match_set(std::string_view pattern, std::size_t& at, char c, bool ignore_case) {
  const bool negated = at < pattern.size() && pattern[at] == '^';
  if (negated) ++at;
  bool found = false;
  while (at < pattern.size() && pattern[at] != ']') {
    const std::size_t left = pattern.size() - at;
    if (pattern[at] == '\\' && left >= 2) {
      found |= pattern[at + 1] == c;
      at += 2;
    } else if (left >= 3 && pattern[at + 1] == '-') {
      found |= in_range(pattern[at], pattern[at + 2], c, ignore_case);
      at += 3;
    } else {
      found |= same(pattern[at], c, ignore_case);
      ++at;
    }
  }
  if (at < pattern.size()) ++at;
  return found != negated;
}

// Whether `c` matches the element at pattern[at], which is not a star. Moves `at` behind the element if it
// does.
bool match_one(std::string_view pattern, std::size_t& at, char c, bool ignore_case) {
  switch (pattern[at]) {
    case '?':
      ++at;
      return true;
    case '[':
      ++at;
      return match_set(pattern, at, c, ignore_case);
    case '\\':
      if (at + 1 < pattern.size()) ++at;
      [[fallthrough]];
    default:
      return same(pattern[at++], c, ignore_case);
  }
}

// Where behind a star the text may go on: the first place from `pos` on that has the byte which the pattern
// wants next. Spares the step by step search for the usual `*literal`.
std::size_t next_candidate(std::string_view pattern, std::size_t at, std::string_view text, std::size_t pos,
                           bool ignore_case) {
  if (ignore_case || kSpecial.find(pattern[at]) != std::string_view::npos) return pos;
  return text.find(pattern[at], pos);
}

std::size_t skip_stars(std::string_view pattern, std::size_t at) {
  while (at < pattern.size() && pattern[at] == '*') ++at;
  return at;
}

}  // namespace

// Every element but the star takes exactly one byte. So when the elements behind a star match somewhere, no
// earlier star can do better by taking more, and only the last star is ever worth another try.
bool glob_match(std::string_view pattern, std::string_view text, bool ignore_case) {
  constexpr std::size_t kNone = std::string_view::npos;
  if (text.empty()) return pattern.empty();
  std::size_t at = 0;
  std::size_t pos = 0;
  std::size_t behind_star = kNone;  // in the pattern: where the elements behind the last star begin
  std::size_t star_end = 0;         // in the text: the end of what the last star takes
  while (pos < text.size()) {
    if (at < pattern.size() && pattern[at] == '*') {
      at = behind_star = skip_stars(pattern, at);
      if (at == pattern.size()) return true;
      pos = star_end = next_candidate(pattern, at, text, pos, ignore_case);
    } else if (at < pattern.size() && match_one(pattern, at, text[pos], ignore_case)) {
      ++pos;
    } else if (behind_star != kNone) {
      at = behind_star;
      pos = star_end = next_candidate(pattern, at, text, star_end + 1, ignore_case);
    } else {
      return false;
    }
  }
  // A candidate that was not found leaves pos beyond the text and an element unmatched.
  return skip_stars(pattern, at) == pattern.size();
}

bool glob_is_literal(std::string_view pattern) {
  return pattern.find_first_of(kSpecial) == std::string_view::npos;
}

}  // namespace isthmus
