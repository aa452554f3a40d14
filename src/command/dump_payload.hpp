// A value as DUMP gives it and RESTORE takes it: Redis's own format (RDB), of which only the types that we
// have.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "src/command/key_copy.hpp"

namespace isthmus {

/// The value of a key that is there, as redis-server 7.0 restores it: type, value, RDB version 10, CRC64.
/// O(N) of its size.
std::string dump_payload(const Node& node);

/// Whether the payload ends with a version that we know (up to 11, which is Redis 7.2) and its right
/// checksum.
bool is_intact_payload(std::string_view payload);

/// What an intact payload holds, without a deadline; nothing if it is no value of ours, whatever its bytes
/// are: another type, no elements, elements that come twice, a length that does not fit. Of a compressed
/// string the memory is bounded by a hundred times the payload.
std::optional<KeyCopy> parse_payload(std::string_view payload);

}  // namespace isthmus
