// Fuzzes glob patterns: the input's first byte says how many of the next bytes are the pattern, the rest is
// the text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "src/pubsub/glob.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view input(reinterpret_cast<const char*>(data) + 1, size - 1);
  const std::size_t pattern_size = data[0] < input.size() ? data[0] : input.size();
  const std::string_view pattern = input.substr(0, pattern_size);
  const std::string_view text = input.substr(pattern_size);

  const bool matches = isthmus::glob_match(pattern, text);
  const bool matches_folded = isthmus::glob_match(pattern, text, true);
  // What must hold for any pattern: a literal matches itself alone, and a star in front never loses a match.
  if (isthmus::glob_is_literal(pattern) && matches != (pattern == text)) std::abort();
  if (isthmus::glob_is_literal(pattern) && matches && !matches_folded) std::abort();
  if (matches && !text.empty()) {
    std::string starred("*");
    starred.append(pattern);
    if (!isthmus::glob_match(starred, text)) std::abort();
  }
  return 0;
}
