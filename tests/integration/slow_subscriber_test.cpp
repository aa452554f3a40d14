// Subscribers that do not read: closed at the output buffer limit, alone, and at a bounded cost of memory.
#include <atomic>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;
constexpr int kSmallBuffer = 4096;  // bytes that the kernel takes for a subscriber that does not read, about

class SlowSubscriber : public ::testing::Test {
 protected:
  Client connect(int protocol = 2) { return Client(server_.port(), protocol); }
  Server server_;
};

// Whoever does not read is closed once the hard limit is passed; whoever reads gets every message meanwhile.
TEST_F(SlowSubscriber, IsClosedAtTheHardLimitAndSlowsNobody) {
  Client slow(server_.port(), 2, kSmallBuffer);
  slow.subscribe("SUBSCRIBE", {"c"});
  auto good = connect(3), publisher = connect(), watcher = connect();
  good.subscribe("SUBSCRIBE", {"c"});
  const std::string payload(100'000, 'p');
  constexpr int kMost = 2000;  // 200 MB: far beyond the 32 MB of the limit and what sockets hold
  int published = 0;
  std::int64_t receivers = 2;
  for (; published < kMost && receivers == 2; ++published) {
    receivers = publisher.call({"PUBLISH", "c", payload}).integer;
    ASSERT_EQ(good.next_message().payload.size(), payload.size());
  }
  EXPECT_EQ(receivers, 1) << "the slow subscriber was never closed";
  // 32 MiB wait in the server before it closes, and a few MiB in the sockets.
  EXPECT_GT(published * payload.size(), 32 * kMebibyte);
  EXPECT_LT(published * payload.size(), 64 * kMebibyte);
  EXPECT_TRUE(slow.closed_within());
  EXPECT_EQ(watcher.call({"PUBSUB", "NUMSUB", "c"}).items[1].integer, 1);
}

TEST_F(SlowSubscriber, IsClosedAtALimitSetAtRunTime) {
  Client slow(server_.port(), 2, kSmallBuffer);
  slow.subscribe("SUBSCRIBE", {"c"});
  auto publisher = connect();
  ASSERT_EQ(publisher.call({"CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"}).text, "OK");
  const std::string payload(100'000, 'p');
  int published = 0;
  while (published < 500 && publisher.call({"PUBLISH", "c", payload}).integer == 1) ++published;
  EXPECT_GE(published * payload.size(), kMebibyte);
  EXPECT_LT(published * payload.size(), 16 * kMebibyte);
  EXPECT_TRUE(slow.closed_within());
}

TEST_F(SlowSubscriber, IsClosedAfterTheTimeOfTheSoftLimit) {
  Client slow(server_.port(), 2, kSmallBuffer);
  slow.subscribe("SUBSCRIBE", {"c"});
  auto publisher = connect();
  ASSERT_EQ(publisher.call({"CONFIG", "SET", "client-output-buffer-limit", "pubsub 64mb 1mb 3"}).text, "OK");
  // Few large ones, so that the time has hardly begun when the last one is out.
  const std::string payload(kMebibyte, 'p');
  for (int i = 0; i < 15; ++i) ASSERT_EQ(publisher.call({"PUBLISH", "c", payload}).integer, 1) << i;
  // Nobody publishes any more; the time alone must do it.
  EXPECT_TRUE(eventually([&] { return publisher.call({"PUBSUB", "NUMSUB", "c"}).items[1].integer == 0; }));
}

TEST_F(SlowSubscriber, LeavesALogLineAndACount) {
  ISTHMUS_ONLY();
  Client slow(server_.port(), 2, kSmallBuffer);
  slow.subscribe("SUBSCRIBE", {"c"});
  auto publisher = connect();
  publisher.call({"CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 0 0"});
  const auto before = server_.log().size();
  const std::string payload(100'000, 'p');
  for (int i = 0; i < 500 && publisher.call({"PUBLISH", "c", payload}).integer == 1; ++i) {
  }
  EXPECT_TRUE(server_.process().await_output("client-output-buffer-limit", before)) << server_.log();
  EXPECT_EQ(info_field(publisher, "everything", "closed_slow_subscribers"), "1");
}

// One payload in memory however many subscribers wait for it. Forty subscribers with 8 MiB each would be 320
// MiB of copies.
TEST_F(SlowSubscriber, SharesOnePayloadAmongAll) {
  ISTHMUS_ONLY();
  constexpr int kSubscribers = 40;
  std::vector<Client> slow;
  for (int i = 0; i < kSubscribers; ++i) {
    slow.emplace_back(server_.port(), 2 + i % 2, kSmallBuffer);
    slow.back().subscribe("SUBSCRIBE", {"c"});
  }
  auto publisher = connect();
  // Without a soft limit, which a slow machine would come to before all have read.
  ASSERT_EQ(publisher.call({"CONFIG", "SET", "client-output-buffer-limit", "pubsub 32mb 0 0"}).text, "OK");
  const auto before = server_.process().resident_bytes();
  const auto used_before = std::stoull(info_field(publisher, "memory", "used_memory").value());
  const std::string payload(128 * 1024, 'p');
  for (int i = 0; i < 100; ++i)
    ASSERT_EQ(publisher.call({"PUBLISH", "c", payload}).integer, kSubscribers) << i;
  const auto grown = server_.process().resident_bytes() - before;
  const auto used = std::stoull(info_field(publisher, "memory", "used_memory").value()) - used_before;
  std::printf("    12.5 MiB to %d slow subscribers: RSS grew by %.1f MiB, used_memory by %.1f MiB\n",
              kSubscribers, static_cast<double>(grown) / kMebibyte,
              static_cast<double>(static_cast<std::int64_t>(used)) / kMebibyte);
  EXPECT_LT(grown, (kSanitized ? 200 : 80) * kMebibyte);
  // All of them get all of it in the end.
  for (auto& subscriber : slow)
    for (int i = 0; i < 100; ++i) ASSERT_EQ(subscriber.next_message().payload.size(), payload.size());
}

// A slow subscriber that begins to read in time misses nothing.
TEST_F(SlowSubscriber, CatchesUpInOrder) {
  Client slow(server_.port(), 3, kSmallBuffer);
  slow.subscribe("SUBSCRIBE", {"c"});
  auto publisher = connect();
  for (int i = 0; i < 2000; ++i)
    publisher.call({"PUBLISH", "c", std::to_string(i) + ":" + std::string(5000, 'x')});
  for (int i = 0; i < 2000; ++i)
    ASSERT_TRUE(slow.next_message().payload.starts_with(std::to_string(i) + ":")) << i;
}

// Messages to a connection that is busy receiving a large reply come behind it, whole.
TEST_F(SlowSubscriber, GetsPushesBehindALargeReply) {
  Client reader(server_.port(), 3, kSmallBuffer);
  reader.subscribe("SUBSCRIBE", {"c"});
  auto other = connect();
  other.call({"SET", "big", std::string(20 * kMebibyte, 'b')});
  reader.send({"GET", "big"});
  for (int i = 0; i < 50; ++i) ASSERT_EQ(other.call({"PUBLISH", "c", std::to_string(i)}).integer, 1);
  EXPECT_EQ(reader.read().text.size(), 20 * kMebibyte);
  for (int i = 0; i < 50; ++i) EXPECT_EQ(reader.next_message().payload, std::to_string(i));
}

}  // namespace
}  // namespace isthmus::test
