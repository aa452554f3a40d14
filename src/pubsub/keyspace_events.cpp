#include "src/pubsub/keyspace_events.hpp"

#include <array>
#include <utility>

namespace isthmus {
namespace {

// In the order in which Redis 7.0 prints them.
constexpr std::array<std::pair<char, std::uint32_t>, 10> kClasses{{{'g', kEventGeneric},
                                                                   {'$', kEventString},
                                                                   {'l', kEventList},
                                                                   {'s', kEventSet},
                                                                   {'h', kEventHash},
                                                                   {'z', kEventZset},
                                                                   {'x', kEventExpired},
                                                                   {'e', kEventEvicted},
                                                                   {'t', kEventStream},
                                                                   {'d', kEventModule}}};
constexpr std::array<std::pair<char, std::uint32_t>, 4> kOutsideOfA{
    {{'K', kEventKeyspace}, {'E', kEventKeyevent}, {'m', kEventKeyMiss}, {'n', kEventNew}}};

// The events that commands raise, as Redis names them.
constexpr std::array<std::pair<std::string_view, EventClass>, 27> kEvents{{{"set", kEventString},
                                                                           {"setrange", kEventString},
                                                                           {"append", kEventString},
                                                                           {"incrby", kEventString},
                                                                           {"incrbyfloat", kEventString},
                                                                           {"hset", kEventHash},
                                                                           {"sadd", kEventSet},
                                                                           {"srem", kEventSet},
                                                                           {"spop", kEventSet},
                                                                           {"sinterstore", kEventSet},
                                                                           {"sunionstore", kEventSet},
                                                                           {"sdiffstore", kEventSet},
                                                                           {"hdel", kEventHash},
                                                                           {"hincrby", kEventHash},
                                                                           {"hincrbyfloat", kEventHash},
                                                                           {"del", kEventGeneric},
                                                                           {"expire", kEventGeneric},
                                                                           {"persist", kEventGeneric},
                                                                           {"rename_from", kEventGeneric},
                                                                           {"rename_to", kEventGeneric},
                                                                           {"move_from", kEventGeneric},
                                                                           {"move_to", kEventGeneric},
                                                                           {"copy_to", kEventGeneric},
                                                                           {"restore", kEventGeneric},
                                                                           {"expired", kEventExpired},
                                                                           {"keymiss", kEventKeyMiss},
                                                                           {"new", kEventNew}}};

}  // namespace

std::uint32_t event_class(std::string_view event) {
  for (const auto& [name, its_class] : kEvents) {
    if (name == event) return its_class;
  }
  return 0;
}

std::optional<std::uint32_t> parse_event_flags(std::string_view letters) {
  std::uint32_t flags = 0;
  for (const char letter : letters) {
    std::uint32_t bit = letter == 'A' ? std::uint32_t{kEventAll} : 0;
    for (const auto& [name, value] : kClasses) bit |= name == letter ? value : 0;
    for (const auto& [name, value] : kOutsideOfA) bit |= name == letter ? value : 0;
    if (bit == 0) return std::nullopt;
    flags |= bit;
  }
  return flags;
}

std::string event_flags_text(std::uint32_t flags) {
  std::string text;
  if ((flags & kEventAll) == kEventAll) {
    text = "A";
  } else {
    for (const auto& [name, value] : kClasses) {
      if ((flags & value) != 0) text.push_back(name);
    }
  }
  for (const auto& [name, value] : kOutsideOfA) {
    if ((flags & value) != 0) text.push_back(name);
  }
  return text;
}

}  // namespace isthmus
