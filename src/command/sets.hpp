// What the files of the set commands share.
#pragma once

#include <span>
#include <string_view>

#include "src/command/call.hpp"

namespace isthmus {

namespace error {
inline constexpr std::string_view kNotPositive = "ERR value is out of range, must be positive";
}  // namespace error

/// Adds a member to a key that is a set or absent. True if it was not there. Raises no event but `new`.
bool add_member(Call& call, const Key& key, std::string_view member);

}  // namespace isthmus
