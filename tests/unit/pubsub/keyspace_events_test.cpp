// The names, classes and channels of keyspace events.
#include "src/pubsub/keyspace_events.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(EventClass, IsKnownForEveryEventThatCommandsRaise) {
  const std::pair<const char*, EventClass> kExpected[] = {
      {"set", kEventString},      {"append", kEventString},       {"setrange", kEventString},
      {"incrby", kEventString},   {"incrbyfloat", kEventString},  {"hset", kEventHash},
      {"hdel", kEventHash},       {"hincrby", kEventHash},        {"hincrbyfloat", kEventHash},
      {"del", kEventGeneric},     {"expire", kEventGeneric},      {"persist", kEventGeneric},
      {"copy_to", kEventGeneric}, {"rename_from", kEventGeneric}, {"rename_to", kEventGeneric},
      {"move_to", kEventGeneric}, {"move_from", kEventGeneric},   {"expired", kEventExpired},
      {"new", kEventNew},         {"keymiss", kEventKeyMiss}};
  for (const auto& [event, its_class] : kExpected) EXPECT_EQ(event_class(event), its_class) << event;
  EXPECT_EQ(event_class("nothing"), 0U);
  EXPECT_EQ(event_class(""), 0U);
}

std::vector<std::string> channels(std::uint32_t wanted) {
  std::vector<std::string> all;
  for_each_event_channel(wanted, "set", 3, "a key", [&](std::string_view channel, std::string_view payload) {
    all.push_back(std::string(channel) + " " + std::string(payload));
  });
  return all;
}

TEST(EventChannels, AreThoseThatAreWanted) {
  EXPECT_EQ(channels(kEventKeyspace), std::vector<std::string>{"__keyspace@3__:a key set"});
  EXPECT_EQ(channels(kEventKeyevent), std::vector<std::string>{"__keyevent@3__:set a key"});
  EXPECT_EQ(channels(kEventKeyspace | kEventKeyevent).size(), 2U);
  EXPECT_TRUE(channels(kEventAll).empty());
}

}  // namespace
}  // namespace isthmus
