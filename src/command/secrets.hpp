// Which arguments MONITOR and SLOWLOG must not show.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/command/command.hpp"

namespace isthmus {

/// What stands in the place of a secret, as in Redis.
inline constexpr std::string_view kRedacted = "(redacted)";

/// Whether the command can carry a secret at all: almost none does, and then nothing needs to be copied.
bool may_carry_secrets(const Command& command);

/// The arguments with kRedacted for each secret: those of AUTH, user and password of HELLO … AUTH, the
/// passwords among what CONFIG SET sets. The views are those of `args`, or static.
std::vector<std::string_view> without_secrets(const Command& command, std::span<const std::string_view> args);

}  // namespace isthmus
