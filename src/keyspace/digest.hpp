// One number for all that clients can see: two servers that hold the same say the same.
#pragma once

#include <cstdint>
#include <string>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// 40 hexadecimal digits for the keys of all databases that are there at `now_ms`, with their values and
/// deadlines, in whatever order they are kept; all zeros if there is none. Not for security: whoever wants
/// two states with the same digest can make them. Needs all locks. O(N).
std::string digest(const Keyspace& keyspace, std::int64_t now_ms);

}  // namespace isthmus
