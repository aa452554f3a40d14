// The text of INFO, and the figures that other commands show too.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "src/command/client.hpp"
#include "src/command/services.hpp"

namespace isthmus {

/// The Redis whose behaviour is matched; INFO and HELLO name it, because clients choose what they send by it.
inline constexpr std::string_view kRedisVersion = "7.0.15";

/// Bytes that a connection is taken to hold: its own state, its buffers, what waits to be sent to it.
std::uint64_t connection_bytes(const Client& client);

/// Bytes in use for keys, connections and the slow log, in the sense of INFO's used_memory; the process has
/// more (used_memory_rss). Raises Stats::peak_memory_bytes. Any thread; visits all connections.
std::uint64_t used_memory_bytes(Services& services);

/// Resident bytes of the process, from /proc/self/statm. 0 if that cannot be read.
std::uint64_t resident_bytes();

/// 1536 as "1.50K", in the way of INFO's *_human fields.
std::string human_bytes(std::uint64_t bytes);

/// The sections of those names (lower case, or default, all, everything) in INFO's order; unknown names say
/// nothing. No name means default. `now_ms` is milliseconds since the Unix epoch.
std::string info_text(Services& services, std::span<const std::string_view> sections, std::int64_t now_ms);

}  // namespace isthmus
