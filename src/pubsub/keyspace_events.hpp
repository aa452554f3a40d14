// Keyspace events: which are wanted (notify-keyspace-events), and how they read.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace isthmus {

/// The classes of https://redis.io/docs/latest/develop/use/keyspace-notifications/ as bits.
enum EventClass : std::uint32_t {
  kEventKeyspace = 1 << 0,  // K
  kEventKeyevent = 1 << 1,  // E
  kEventGeneric = 1 << 2,   // g
  kEventString = 1 << 3,    // $
  kEventList = 1 << 4,      // l
  kEventSet = 1 << 5,       // s
  kEventHash = 1 << 6,      // h
  kEventZset = 1 << 7,      // z
  kEventExpired = 1 << 8,   // x
  kEventEvicted = 1 << 9,   // e
  kEventStream = 1 << 10,   // t
  kEventKeyMiss = 1 << 11,  // m, not in A
  kEventModule = 1 << 12,   // d
  kEventNew = 1 << 13,      // n, not in A
  kEventAll = kEventGeneric | kEventString | kEventList | kEventSet | kEventHash | kEventZset |
              kEventExpired | kEventEvicted | kEventStream | kEventModule,
};

/// Reads a value of notify-keyspace-events; nothing if it has an unknown letter.
std::optional<std::uint32_t> parse_event_flags(std::string_view letters);
/// The same as CONFIG GET shows it: letters in Redis's order, `A` for all of its classes.
std::string event_flags_text(std::uint32_t flags);

/// The class of an event by its name, as `hset` is one of hashes; 0 for a name that nobody knows.
std::uint32_t event_class(std::string_view event);

/// Calls `send(channel, payload)` for the channels on which the event is heard: `__keyspace@<db>__:<key>` and
/// `__keyevent@<db>__:<event>`, as far as `wanted` has them.
template <class Send>
void for_each_event_channel(std::uint32_t wanted, std::string_view event, std::uint8_t db,
                            std::string_view key, Send&& send) {
  std::string channel;
  const auto name = [&](std::string_view space, std::string_view of) -> const std::string& {
    channel = "__";
    return channel.append(space).append("@").append(std::to_string(db)).append("__:").append(of);
  };
  if ((wanted & kEventKeyspace) != 0) send(name("keyspace", key), event);
  if ((wanted & kEventKeyevent) != 0) send(name("keyevent", event), key);
}

}  // namespace isthmus
