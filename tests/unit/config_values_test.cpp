// Sizes, durations and lists, by table.
#include "src/config_values.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus {
namespace {

TEST(ConfigValues, ReadsSizesWithRedisUnits) {
  EXPECT_EQ(parse_memory_bytes("0"), 0U);
  EXPECT_EQ(parse_memory_bytes("4096"), 4096U);
  EXPECT_EQ(parse_memory_bytes("1b"), 1U);
  EXPECT_EQ(parse_memory_bytes("1k"), 1000U);
  EXPECT_EQ(parse_memory_bytes("1kb"), 1024U);
  EXPECT_EQ(parse_memory_bytes("3M"), 3'000'000U);
  EXPECT_EQ(parse_memory_bytes("100mb"), 104'857'600U);
  EXPECT_EQ(parse_memory_bytes("1g"), 1'000'000'000U);
  EXPECT_EQ(parse_memory_bytes("1GB"), 1'073'741'824U);
  EXPECT_EQ(parse_memory_bytes("18446744073709551615"), 18446744073709551615U);
}

TEST(ConfigValues, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "mb", "-1", "+1", " 1", "1 mb", "1.5gb", "1tb", "1x", "18446744073709551616", "99999999999gb"}) {
    EXPECT_EQ(parse_memory_bytes(text), std::nullopt) << text;
  }
}

TEST(ConfigValues, ReadsDurations) {
  EXPECT_EQ(parse_duration_ms("5000", 1), 5000);
  EXPECT_EQ(parse_duration_ms("300", 1000), 300'000);
  EXPECT_EQ(parse_duration_ms("500ms", 1000), 500);
  EXPECT_EQ(parse_duration_ms("5s", 1), 5000);
  EXPECT_EQ(parse_duration_ms("2m", 1), 120'000);
  EXPECT_EQ(parse_duration_ms("1h", 1), 3'600'000);
  for (const char* text :
       {"", "s", "-5", "5 s", "1.5s", "5S", "1d", "9223372036854775807s", "9223372036854775808"}) {
    EXPECT_EQ(parse_duration_ms(text, 1), std::nullopt) << text;
  }
}

TEST(ConfigValues, ReadsWholeNumbers) {
  EXPECT_EQ(parse_option_integer("-9223372036854775808"), INT64_MIN);
  EXPECT_EQ(parse_option_integer("42"), 42);
  for (const char* text : {"", "-", "4 2", "0x10", "42 ", "9223372036854775808"})
    EXPECT_EQ(parse_option_integer(text), std::nullopt);
}

TEST(ConfigValues, ReadsAndWritesOutputBufferLimits) {
  OutputBufferLimits limits;
  EXPECT_EQ(format_output_buffer_limits(limits),
            "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60");
  EXPECT_EQ(parse_output_buffer_limits("PUBSUB 1mb 512kb 5 normal 7 8 9", limits), "");
  EXPECT_EQ(format_output_buffer_limits(limits),
            "normal 7 8 9 slave 268435456 67108864 60 pubsub 1048576 524288 5");
  EXPECT_EQ(parse_output_buffer_limits("replica 1 2 3", limits), "");
  EXPECT_EQ(limits.replica, (OutputBufferLimit{1, 2, 3}));
}

TEST(ConfigValues, AWrongOutputBufferLimitChangesNothing) {
  OutputBufferLimits limits;
  EXPECT_EQ(parse_output_buffer_limits("", limits),
            "Wrong number of arguments in buffer limit configuration.");
  EXPECT_EQ(parse_output_buffer_limits("pubsub 1 2", limits),
            "Wrong number of arguments in buffer limit configuration.");
  EXPECT_EQ(parse_output_buffer_limits("normal 1 2 3 master 1 2 3", limits),
            "Invalid client class specified in buffer limit configuration.");
  EXPECT_EQ(parse_output_buffer_limits("normal 1 2 3 pubsub 1 2 -3", limits),
            "Error in hard, soft or soft_seconds setting in buffer limit configuration.");
  EXPECT_EQ(limits, OutputBufferLimits{});
}

TEST(ConfigValues, KnowsTheFlagsOfKeyspaceEvents) {
  EXPECT_TRUE(is_keyspace_event_flags(""));
  EXPECT_TRUE(is_keyspace_event_flags("AKE"));
  EXPECT_TRUE(is_keyspace_event_flags("KEg$lshzxetdmn"));
  EXPECT_FALSE(is_keyspace_event_flags("AKQ"));
  EXPECT_FALSE(is_keyspace_event_flags("a"));
}

TEST(ConfigValues, SplitsListsAtCommasAndBlanks) {
  EXPECT_THAT(split_list("127.0.0.1,::1"), testing::ElementsAre("127.0.0.1", "::1"));
  EXPECT_THAT(split_list("  a, b \t c,,"), testing::ElementsAre("a", "b", "c"));
  EXPECT_THAT(split_list(" , "), testing::IsEmpty());
}

}  // namespace
}  // namespace isthmus
