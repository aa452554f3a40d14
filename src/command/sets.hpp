// What the files of the set commands share.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/command/call.hpp"

namespace isthmus {

namespace error {
inline constexpr std::string_view kNotPositive = "ERR value is out of range, must be positive";
}  // namespace error

/// Views into sets; they live until the next effect.
using Members = std::vector<std::string_view>;

/// Puts members in the order in which Redis hands out sets of integers, if there are no more of them than it
/// keeps sorted (an intset's). Others stay as they are.
void sort_integers(Members& members);

/// Adds a member to a key that is a set or absent. True if it was not there. Raises no event but `new`.
bool add_member(Call& call, const Key& key, std::string_view member);

}  // namespace isthmus
