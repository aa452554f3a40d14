// Redis's glob patterns, for PSUBSCRIBE, KEYS, SCAN MATCH and CONFIG GET.
#pragma once

#include <string_view>

namespace isthmus {

/// Whether the whole of `text` matches `pattern`, byte by byte, as Redis 7.0 decides it (`stringmatchlen`;
/// the KEYS page of its documentation describes the forms):
/// - `*` any run of bytes, `?` one byte, `\x` the byte x itself; a backslash at the very end stands for
/// itself;
/// - `[abc]`, `[a-z]` (also written `[z-a]`), `[^abc]` one byte in or not in the set; a set ends at the first
/// `]` that is
///   not escaped, even when it is empty, or at the end of the pattern;
/// - the bounds of a range compare as signed bytes, as Redis does on x86: `[a-\xff]` is the range from 0xff
/// to `a`;
/// - an empty text matches an empty pattern only, not `*`.
/// `ignore_case` folds A–Z, except for a byte escaped inside a set (Redis forgets those as well).
/// Cost: no allocation, no recursion; at worst pattern size × text size steps, typically linear. Redis as
/// Debian patches it gives up and says no beyond 1,000 stars; this does not.
bool glob_match(std::string_view pattern, std::string_view text, bool ignore_case = false);

/// Whether the pattern has no special characters, so that it matches exactly the text that equals it.
bool glob_is_literal(std::string_view pattern);

}  // namespace isthmus
