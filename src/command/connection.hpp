// What AUTH, HELLO and CLIENT share.
#pragma once

#include <string_view>

#include "src/command/call.hpp"

namespace isthmus {

/// Whether two secrets are equal, in a time that depends on their lengths only.
bool equal_secrets(std::string_view a, std::string_view b);

/// Gives the connection this name (empty: none). Replies with the error and returns false if the name has
/// spaces, control characters or bytes outside ASCII.
bool set_client_name(Call& call, std::string_view name);

/// Whether every byte is a printable ASCII character other than the space: what CLIENT LIST can show in one
/// line.
bool is_client_attribute(std::string_view text);

}  // namespace isthmus
