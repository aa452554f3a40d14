// The arguments of each command, for COMMAND DOCS: redis-cli shows them as hints while somebody types.
#pragma once

#include <string_view>
#include <vector>

#include "src/command/command.hpp"

namespace isthmus {

/// An argument as COMMAND DOCS describes it
/// (https://redis.io/docs/latest/develop/reference/command-arguments/). Views of static text.
struct Argument {
  std::string_view name;
  std::string_view type;   ///< string, integer, double, key, pattern, unix-time, pure-token, oneof or block
  std::string_view token;  ///< the word before it or, of a pure token, the word itself; empty: none
  std::string_view since;  ///< if later than the command itself
  std::string_view deprecated_since;  ///< empty if it is not
  int key_spec = -1;                  ///< of a key: its key specification
  bool optional = false;
  bool multiple = false;
  bool multiple_token = false;      ///< the token stands before each of them
  std::vector<Argument> arguments;  ///< of oneof and block
};

/// The arguments of the command; empty if it has none.
std::vector<Argument> command_arguments(const Command& command);

/// Reads the notation of the table, which must be well formed. Arguments are separated by a blank:
///
///     name                  a string; name%i an integer, %d a double, %p a pattern, %u a Unix time, %t a
///     pure token, %k0 a
///                           key of key specification 0
///     name<a|b>  name{a b}  one of several arguments; several together
///     TOKEN=name            behind a token
///     name@6.2.0  name!6.0  since; deprecated since
///     name*  name*+         several times; several times with its token
///     [name]                optional
std::vector<Argument> parse_arguments(std::string_view text);

}  // namespace isthmus
