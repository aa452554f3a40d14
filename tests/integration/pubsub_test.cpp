// Publishing and subscribing: order, no repeats, patterns, shard channels, payloads of every kind.
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

class PubSub : public ::testing::TestWithParam<int> {
 protected:
  Client connect() { return Client(server_.port(), GetParam()); }
  Server server_{{.more = {"--threads", "4"}}};
};

INSTANTIATE_TEST_SUITE_P(Resp, PubSub, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

// What is left on a subscriber's connection once a PING has come back: nothing.
void expect_no_more(Client& subscriber) {
  subscriber.send({"PING", "end"});
  const auto next = subscriber.read_any();
  EXPECT_TRUE(next.text == "end" || (!next.items.empty() && next.items[0].text == "pong")) << to_text(next);
}

TEST_P(PubSub, DeliversToChannelsPatternsAndShardChannels) {
  auto channel = connect(), pattern = connect(), shard = connect(), publisher = connect();
  channel.subscribe("SUBSCRIBE", {"news", "other"});
  pattern.subscribe("PSUBSCRIBE", {"n*s", "n?ws"});
  shard.subscribe("SSUBSCRIBE", {"news"});
  EXPECT_EQ(publisher.call({"PUBLISH", "news", "m1"}).integer, 3);
  EXPECT_EQ(publisher.call({"SPUBLISH", "news", "m2"}).integer, 1);
  EXPECT_EQ(publisher.call({"PUBLISH", "nobody", "m3"}).integer, 0);
  EXPECT_EQ(channel.next_message(), (Message{"message", "", "news", "m1", {}}));
  std::map<std::string, int> patterns;
  for (int i = 0; i < 2; ++i) {
    const auto message = pattern.next_message();
    EXPECT_EQ(message.kind + message.channel + message.payload, "pmessagenewsm1");
    ++patterns[message.pattern];
  }
  EXPECT_EQ(patterns, (std::map<std::string, int>{{"n*s", 1}, {"n?ws", 1}}));
  EXPECT_EQ(shard.next_message(), (Message{"smessage", "", "news", "m2", {}}));
  for (auto* subscriber : {&channel, &pattern, &shard}) expect_no_more(*subscriber);
}

TEST_P(PubSub, AcknowledgesEachSubscriptionWithItsCount) {
  auto client = connect();
  client.send({"SUBSCRIBE", "a", "b", "a"});
  client.send({"PSUBSCRIBE", "p*"});
  client.send({"UNSUBSCRIBE", "a", "never"});
  client.send({"UNSUBSCRIBE"});
  client.send({"PUNSUBSCRIBE"});
  client.send({"UNSUBSCRIBE"});
  const std::vector<std::pair<std::string, int>> expected{
      {"subscribe a", 1},   {"subscribe b", 2},     {"subscribe a", 2},
      {"psubscribe p*", 3}, {"unsubscribe a", 2},   {"unsubscribe never", 2},
      {"unsubscribe b", 1}, {"punsubscribe p*", 0}, {"unsubscribe ", 0}};
  for (const auto& [text, count] : expected) {
    const auto reply = client.read_any();
    EXPECT_EQ(reply.type, GetParam() == 3 ? Value::Type::push : Value::Type::array);
    ASSERT_EQ(reply.items.size(), 3u);
    EXPECT_EQ(reply.items[0].text + " " + reply.items[1].text, text);
    EXPECT_EQ(reply.items[2].integer, count);
  }
}

TEST_P(PubSub, CarriesBinaryAndLargePayloads) {
  auto subscriber = connect(), publisher = connect();
  std::string binary;
  for (int i = 0; i < 256; ++i) binary += static_cast<char>(i);
  subscriber.subscribe("SUBSCRIBE", {binary});
  std::string large(1 << 20, 'p');
  large[12345] = '\r', large[12346] = '\n';
  for (const std::string& payload :
       {binary, std::string(), large, std::string("\r\n"), std::string(70'000, '\0')}) {
    ASSERT_EQ(publisher.call({"PUBLISH", binary, payload}).integer, 1);
    const auto message = subscriber.next_message();
    EXPECT_TRUE(message.payload == payload) << payload.size();
    EXPECT_TRUE(message.channel == binary);
  }
}

// The promise: an acknowledged SUBSCRIBE sees every later PUBLISH, from whichever connection and I/O thread.
TEST_P(PubSub, AnAcknowledgedSubscriptionSeesEveryLaterMessage) {
  in_threads(4, [&](int thread) {
    auto publisher = connect();
    for (int i = 0; i < 100; ++i) {
      auto subscriber = connect();
      const auto channel = "fresh:" + std::to_string(thread) + ":" + std::to_string(i);
      subscriber.subscribe(i % 2 == 0 ? "SUBSCRIBE" : "PSUBSCRIBE", {channel});
      ASSERT_EQ(publisher.call({"PUBLISH", channel, "now"}).integer, 1);
      ASSERT_EQ(subscriber.next_message().payload, "now");
    }
  });
}

// Several publishers, several channels, several subscribers: each publisher's messages arrive in its order,
// each once.
TEST_P(PubSub, KeepsTheOrderOfEachPublisherWithoutLossOrRepeats) {
  constexpr int kPublishers = 4, kSubscribers = 4, kMessages = 3000;
  std::vector<Client> subscribers;
  for (int i = 0; i < kSubscribers; ++i) {
    subscribers.push_back(connect());
    subscribers.back().subscribe(i % 2 == 0 ? "SUBSCRIBE" : "PSUBSCRIBE", {"c0", "c1", "c2"});
  }
  in_threads(kPublishers + kSubscribers, [&](int thread) {
    if (thread < kPublishers) {
      auto client = connect();
      std::string batch;
      for (int i = 0; i < kMessages; ++i) {
        batch += resp::encode_request(
            {"PUBLISH", "c" + std::to_string(i % 3), std::to_string(thread) + ":" + std::to_string(i)});
        if (i % 20 != 19) continue;
        client.send_raw(batch);
        batch.clear();
        for (int n = 0; n < 20; ++n) ASSERT_EQ(client.read().integer, kSubscribers);
      }
      return;
    }
    auto& subscriber = subscribers[static_cast<std::size_t>(thread - kPublishers)];
    std::vector<int> next(kPublishers, 0);
    for (int n = 0; n < kPublishers * kMessages; ++n) {
      const auto message = subscriber.next_message();
      const auto colon = message.payload.find(':');
      const auto publisher = static_cast<std::size_t>(std::stoi(message.payload.substr(0, colon)));
      const auto number = std::stoi(message.payload.substr(colon + 1));
      ASSERT_EQ(number, next[publisher]++) << "of publisher " << publisher;
      ASSERT_EQ(message.channel, "c" + std::to_string(number % 3));
    }
    expect_no_more(subscriber);
  });
}

// Own messages are echoed: a subscriber in RESP3 may publish, and gets what it published.
TEST_P(PubSub, EchoesOwnMessages) {
  if (GetParam() == 2) GTEST_SKIP() << "a subscriber cannot publish in RESP2";
  auto client = connect();
  client.subscribe("SUBSCRIBE", {"self"});
  EXPECT_EQ(client.call({"PUBLISH", "self", "hello"}).integer, 1);
  EXPECT_EQ(client.next_message().payload, "hello");
}

TEST_P(PubSub, ASubscriberMayOnlySayWhatRedisAllows) {
  auto client = connect();
  client.subscribe("SUBSCRIBE", {"c"});
  if (GetParam() == 3) {
    EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
    return;
  }
  EXPECT_EQ(client.call({"GET", "k"}).text,
            "ERR Can't execute 'get': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are "
            "allowed in this "
            "context");
  const auto pong = client.call({"PING"});
  ASSERT_EQ(pong.items.size(), 2u);
  EXPECT_EQ(pong.items[0].text, "pong");
  client.call({"UNSUBSCRIBE"});
  EXPECT_EQ(client.call({"PING"}).text, "PONG");
}

TEST_P(PubSub, CountsSubscribers) {
  auto first = connect(), second = connect(), asker = connect();
  first.subscribe("SUBSCRIBE", {"a", "b"});
  second.subscribe("SUBSCRIBE", {"a"});
  second.subscribe("PSUBSCRIBE", {"*"});
  second.subscribe("SSUBSCRIBE", {"s"});
  const auto counts = asker.call({"PUBSUB", "NUMSUB", "a", "b", "none"});
  ASSERT_EQ(counts.items.size(), 6u);
  EXPECT_EQ(counts.items[1].integer, 2);
  EXPECT_EQ(counts.items[3].integer, 1);
  EXPECT_EQ(counts.items[5].integer, 0);
  EXPECT_EQ(asker.call({"PUBSUB", "NUMPAT"}).integer, 1);
  EXPECT_EQ(asker.call({"PUBSUB", "CHANNELS"}).items.size(), 2u);
  EXPECT_EQ(asker.call({"PUBSUB", "SHARDCHANNELS"}).items.size(), 1u);
  EXPECT_EQ(asker.call({"PUBSUB", "SHARDNUMSUB", "s"}).items[1].integer, 1);
  first.close(true);
  second.close();
  EXPECT_TRUE(eventually([&] { return asker.call({"PUBSUB", "CHANNELS"}).items.empty(); }));
  EXPECT_EQ(asker.call({"PUBSUB", "NUMPAT"}).integer, 0);
  EXPECT_EQ(asker.call({"PUBLISH", "a", "m"}).integer, 0);
}

TEST_P(PubSub, ATransactionPublishesTogether) {
  auto subscriber = connect(), publisher = connect();
  subscriber.subscribe("SUBSCRIBE", {"c"});
  publisher.send_raw(resp::encode_request({"MULTI"}) + resp::encode_request({"PUBLISH", "c", "1"}) +
                     resp::encode_request({"SET", "k", "v"}) + resp::encode_request({"PUBLISH", "c", "2"}) +
                     resp::encode_request({"EXEC"}));
  for (int i = 0; i < 4; ++i) publisher.read();
  const auto exec = publisher.read();
  ASSERT_EQ(exec.items.size(), 3u);
  EXPECT_EQ(exec.items[0].integer, 1);
  EXPECT_EQ(subscriber.next_message().payload, "1");
  EXPECT_EQ(subscriber.next_message().payload, "2");
}

// A message may not overtake the write before it: who hears of it can read what was written.
TEST_P(PubSub, AMessageDoesNotOvertakeTheWriteBeforeIt) {
  auto subscriber = connect(), publisher = connect(), reader = connect();
  subscriber.subscribe("SUBSCRIBE", {"changed"});
  for (int i = 0; i < 200; ++i) {
    const auto n = std::to_string(i);
    publisher.send_raw(resp::encode_request({"SET", "k", n}) +
                       resp::encode_request({"PUBLISH", "changed", n}));
    ASSERT_EQ(subscriber.next_message().payload, n);
    ASSERT_EQ(reader.call({"GET", "k"}).text, n);
    publisher.read();
    publisher.read();
  }
}

TEST_P(PubSub, ManyChannelsOnOneConnection) {
  auto subscriber = connect(), publisher = connect();
  std::vector<std::string> names;
  for (int i = 0; i < 5000; ++i) names.push_back("channel:" + std::to_string(i));
  subscriber.subscribe("SUBSCRIBE", names);
  for (int i = 0; i < 5000; i += 100)
    ASSERT_EQ(publisher.call({"PUBLISH", names[static_cast<std::size_t>(i)], "m"}).integer, 1);
  for (int i = 0; i < 5000; i += 100)
    ASSERT_EQ(subscriber.next_message().channel, names[static_cast<std::size_t>(i)]);
}

}  // namespace
}  // namespace isthmus::test
