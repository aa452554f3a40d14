// What the files of the key commands share: their parts of the table, and arguments that name a database.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string_view>

#include "src/command/call.hpp"

namespace isthmus {

std::span<const Command> expiry_commands();
std::span<const Command> walking_commands();
std::span<const Command> moving_commands();
std::span<const Command> database_commands();
std::span<const Command> object_commands();

namespace error {
inline constexpr std::string_view kSameObject = "ERR source and destination objects are the same";
inline constexpr std::string_view kIntOutOfRange =
    "ERR value is out of range, value must between -2147483648 and 2147483647";
}  // namespace error

/// The number of a database in args[index] (COPY, MOVE). Replies with the error and returns nothing if it is
/// none.
std::optional<std::uint8_t> database_argument(Call& call, std::size_t index);

/// What TYPE and SCAN's TYPE call the type of a key that is there.
inline std::string_view type_name(const Node& node) {
  return node.is_hash() ? "hash" : node.is_set() ? "set" : "string";
}

/// So many integers Redis keeps as an intset (set-max-intset-entries).
inline constexpr std::uint32_t kMaxIntset = 512;
/// Whether Redis would keep the set as an intset. O(N) up to kMaxIntset.
bool is_intset(const Node& node);

/// What OBJECT ENCODING says of a key that is there: the encoding in which Redis 7.0 would keep it.
std::string_view encoding_name(const Node& node);

}  // namespace isthmus
