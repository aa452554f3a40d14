// Times to live and deadlines as commands take them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "src/command/call.hpp"

namespace isthmus {

/// EX, PX, EXAT, PXAT.
enum class ExpiryUnit : std::uint8_t { seconds, milliseconds, unix_seconds, unix_milliseconds };

/// The option of that name in any letter case, or nothing.
std::optional<ExpiryUnit> expiry_option(std::string_view word);

/// The deadline that args[index] gives, in milliseconds since the Unix epoch. Replies with the error and
/// returns nothing if it is no integer, not positive, or beyond 64 bits (SET, SETEX, PSETEX, GETEX:
/// parseExtendedStringArguments and getExpireMillisecondsOrReply of Redis 7.0).
std::optional<std::int64_t> deadline_argument(Call& call, std::size_t index, ExpiryUnit unit);

}  // namespace isthmus
