// HELP of the container commands, and their error for a wrong call.
#pragma once

#include <initializer_list>
#include <string_view>

#include "src/command/call.hpp"

namespace isthmus {

/// Replies with one line for the container's form, the given lines (a form, then what it does, indented by
/// four), and HELP itself, as simple strings: the shape that redis-cli expects.
void reply_help(Call& call, std::string_view container, std::initializer_list<std::string_view> lines);

/// Replies with Redis's error for a subcommand that is unknown or was called with the wrong number of
/// arguments, for commands that find this out themselves. `container` is in capitals.
void reply_subcommand_error(Call& call, std::string_view container);

}  // namespace isthmus
