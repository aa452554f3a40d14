// Keyspace events and expiry: what is told, in which order, once, and how soon.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"
#include "tests/support/stalls.hpp"

namespace isthmus::test {
namespace {

using std::chrono::system_clock;

class Events : public ::testing::TestWithParam<int> {
 protected:
  Client connect() { return Client(server_.port(), GetParam()); }
  // A subscriber to `patterns`, with all events switched on as ion does it.
  Client listener(const std::vector<std::string>& patterns) {
    auto client = connect();
    EXPECT_EQ(client.call({"CONFIG", "SET", "notify-keyspace-events", "AKE"}).text, "OK");
    client.subscribe("PSUBSCRIBE", patterns);
    return client;
  }
  Server server_{{.more = {"--threads", "4"}}};
};

INSTANTIATE_TEST_SUITE_P(Resp, Events, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

std::string next_event(Client& client) {
  const auto message = client.next_message();
  return message.channel + " " + message.payload;
}

TEST_P(Events, AreToldTwiceInTheOrderOfTheChanges) {
  auto listening = listener({"__key*__:*"});
  auto client = connect();
  client.call({"SELECT", "3"});
  client.send_raw(resp::encode_request({"SET", "k", "v", "EX", "100"}) +
                  resp::encode_request({"APPEND", "k", "w"}) + resp::encode_request({"RENAME", "k", "l"}) +
                  resp::encode_request({"DEL", "l", "missing"}) +
                  resp::encode_request({"HSET", "h", "f", "v", "g", "w"}) +
                  resp::encode_request({"HDEL", "h", "f", "g"}));
  const std::vector<std::pair<std::string, std::string>> expected{
      {"k", "set"}, {"k", "expire"}, {"k", "append"}, {"k", "rename_from"}, {"l", "rename_to"},
      {"l", "del"}, {"h", "hset"},   {"h", "hdel"},   {"h", "del"}};
  for (const auto& [key, event] : expected) {
    EXPECT_EQ(next_event(listening), "__keyspace@3__:" + key + " " + event);
    EXPECT_EQ(next_event(listening), "__keyevent@3__:" + event + " " + key);
  }
}

TEST_P(Events, AreSwitchedAtRunTime) {
  auto listening = listener({"__key*__:*", "end"});
  auto client = connect();
  client.call({"SET", "k", "1"});
  client.call({"CONFIG", "SET", "notify-keyspace-events", "Eg"});
  client.call({"SET", "k", "2"});
  client.call({"DEL", "k"});
  client.call({"CONFIG", "SET", "notify-keyspace-events", ""});
  client.call({"SET", "k", "3"});
  client.call({"PUBLISH", "end", "end"});
  const std::vector<std::string> expected{"__keyspace@0__:k set", "__keyevent@0__:set k",
                                          "__keyevent@0__:del k", "end end"};
  for (const auto& event : expected) EXPECT_EQ(next_event(listening), event);
}

// Writers on several threads: each listener hears of every change once, those of one key in the order of its
// values.
TEST_P(Events, OfOneKeyFollowTheOrderOfItsChanges) {
  auto listening = listener({"__keyspace@0__:*"});
  constexpr int kRounds = 400;
  in_threads(4, [&](int thread) {
    auto client = connect();
    const auto key = "own:" + std::to_string(thread);
    for (int i = 0; i < kRounds; ++i)
      client.send_raw(resp::encode_request({"SET", key, "v"}) + resp::encode_request({"EXPIRE", key, "100"}) +
                      resp::encode_request({"DEL", key}));
    for (int i = 0; i < 3 * kRounds; ++i) client.read();
  });
  const std::vector<std::string> cycle{"set", "expire", "del"};
  std::map<std::string, std::size_t> heard;
  for (int i = 0; i < 4 * 3 * kRounds; ++i) {
    const auto message = listening.next_message();
    ASSERT_EQ(message.payload, cycle[heard[message.channel]++ % 3]) << message.channel;
  }
}

TEST_P(Events, OfATransactionComeTogetherBeforeItsMessages) {
  auto listening = listener({"__keyevent*", "said"});
  auto client = connect();
  client.send_raw(resp::encode_request({"MULTI"}) + resp::encode_request({"SET", "a", "1"}) +
                  resp::encode_request({"PUBLISH", "said", "m"}) + resp::encode_request({"INCR", "a"}) +
                  resp::encode_request({"EXEC"}));
  for (const auto* event : {"__keyevent@0__:set a", "said m", "__keyevent@0__:incrby a"})
    EXPECT_EQ(next_event(listening), event);
}

// How late a message came, in milliseconds, after `deadline_ms` since the epoch.
double lateness_ms(const Message& message, std::int64_t deadline_ms) {
  const auto arrived = std::chrono::duration<double, std::milli>(message.arrived.time_since_epoch()).count();
  return arrived - static_cast<double>(deadline_ms);
}

// An expired event comes so soon after the deadline, on a machine that does not stand still.
constexpr double kSoonMs = 1000;

// Runs the commands, which give `key` a deadline, and asks for that. All in one go, as the key may not end
// before the answer is known.
std::int64_t deadline_of(Client& client, std::string_view key,
                         const std::vector<std::vector<std::string_view>>& commands) {
  std::string pipeline;
  for (const auto& command : commands) pipeline += resp::encode_request(command);
  client.send_raw(pipeline + resp::encode_request({"PEXPIRETIME", key}));
  for (std::size_t i = 0; i < commands.size(); ++i) client.read();
  return client.read().integer;
}

TEST_P(Events, ExpiredComesSoonThoughNobodyTouchesTheKey) {
  auto listening = listener({"__keyevent@0__:expired"});
  auto client = connect();
  const Stalls stalls;
  std::map<std::string, std::int64_t> deadlines;
  for (int i = 0; i < 20; ++i) {
    const auto key = "brief:" + std::to_string(i);
    deadlines[key] = deadline_of(client, key, {{"SET", key, "v", "PX", std::to_string(50 + 25 * i)}});
  }
  double latest = 0;
  for (int i = 0; i < 20; ++i) {
    const auto message = listening.next_message();
    ASSERT_TRUE(deadlines.contains(message.payload)) << message.payload << " expired twice";
    const auto late = lateness_ms(message, deadlines[message.payload]);
    EXPECT_GE(late, -1.0) << message.payload;
    latest = std::max(latest, late);
    deadlines.erase(message.payload);
  }
  std::printf("    expired events came at most %.1f ms late\n", latest);
  EXPECT_LT(latest, kSoonMs + stalls.ms());
}

// With many keys that carry a TTL, of which few end soon, those few are still told of in time.
TEST_P(Events, ExpiredComesSoonAmongManyKeysWithTtls) {
  ISTHMUS_ONLY();
  const int many = kSanitized ? 50'000 : 400'000;
  auto client = connect();
  std::string batch;
  for (int i = 0; i < many; ++i) {
    resp::append_request(
        batch, std::vector<std::string_view>{"SET", "long:" + std::to_string(i), "v", "EX", "10000"});
    if (i % 1000 != 999) continue;
    client.send_raw(batch);
    batch.clear();
    for (int n = 0; n < 1000; ++n) ASSERT_EQ(client.read().text, "OK");
  }
  auto listening = listener({"__keyevent@0__:expired"});
  const Stalls stalls;
  std::map<std::string, std::int64_t> deadlines;
  for (int i = 0; i < 200; ++i) {
    const auto key = "brief:" + std::to_string(i);
    deadlines[key] =
        deadline_of(client, key, {{"HSET", key, "f", "v"}, {"PEXPIRE", key, std::to_string(100 + i * 5)}});
  }
  double latest = 0;
  for (int i = 0; i < 200; ++i) {
    const auto message = listening.next_message();
    latest = std::max(latest, lateness_ms(message, deadlines.at(message.payload)));
  }
  std::printf("    among %d keys expired events came at most %.1f ms late\n", many, latest);
  EXPECT_LT(latest, kSoonMs + stalls.ms());
  EXPECT_EQ(client.call({"DBSIZE"}).integer, many);
}

// Many keys that end at the same moment: each event once, and others are served meanwhile.
TEST_P(Events, AnAvalancheOfExpiriesIsToldOnceEach) {
  constexpr int kKeys = 20'000;
  auto client = connect();
  const auto deadline = std::to_string(
      std::chrono::duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count() +
      (kSanitized ? 4000 : 1000));
  auto listening = listener({"__keyevent@0__:expired"});
  std::string batch;
  for (int i = 0; i < kKeys; ++i)
    batch += resp::encode_request({"SET", std::to_string(i), "v", "PXAT", deadline});
  client.send_raw(batch);
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(client.read().text, "OK");
  std::set<std::string> expired;
  for (int i = 0; i < kKeys; ++i) {
    if (i % 1000 == 0) {
      ASSERT_EQ(client.call({"PING"}).text, "PONG");
    }
    ASSERT_TRUE(expired.insert(listening.next_message().payload).second);
  }
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 0);
}

// Readers on several threads ask for a key at the very moment of its end. It is never seen afterwards, and
// told of once.
TEST_P(Events, ExpiryUnderManyReadersIsToldOnce) {
  auto listening = listener({"__keyevent@0__:expired", "end"});
  constexpr int kKeys = 50;
  for (int i = 0; i < kKeys; ++i)
    connect().call({"SET", "k" + std::to_string(i), "v", "PX", std::to_string(20 + i * 5)});
  in_threads(4, [&](int) {
    auto client = connect();
    for (int i = 0; i < kKeys; ++i) {
      const auto key = "k" + std::to_string(i);
      ASSERT_TRUE(eventually([&] { return client.call({"GET", key}).is_null(); }));
      ASSERT_EQ(client.call({"EXISTS", key}).integer, 0);
      ASSERT_EQ(client.call({"PTTL", key}).integer, -2);
    }
  });
  std::set<std::string> expired;
  for (int i = 0; i < kKeys; ++i) ASSERT_TRUE(expired.insert(listening.next_message().payload).second);
  connect().call({"PUBLISH", "end", "end"});
  EXPECT_EQ(listening.next_message().payload, "end");
}

// ion's Watch: a pattern over one key, on its own connection, with its answers to `del` and `expired`.
TEST_P(Events, IonHearsOfItsRoom) {
  auto watching = listener({"__key*__:/ion/room/r1/u1"});
  auto client = connect();
  client.call({"hset", "/ion/room/r1/u1", "name", "x"});
  client.call({"expire", "/ion/room/r1/u1", "100"});
  client.call({"hset", "/ion/room/r1/u2", "name", "y"});
  client.call({"del", "/ion/room/r1/u1"});
  for (const auto* event : {"hset", "expire", "del"})
    EXPECT_EQ(next_event(watching), std::string("__keyspace@0__:/ion/room/r1/u1 ") + event);
}

}  // namespace
}  // namespace isthmus::test
