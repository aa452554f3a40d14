// Many connections do everything at once for a few seconds. Made for ThreadSanitizer and AddressSanitizer:
// what matters is that nothing races, hangs or dies, and that the state is in order afterwards.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

using Words = std::vector<std::string>;

seconds hammer_time() {
  const char* wanted = std::getenv("ISTHMUS_HAMMER_SECONDS");
  return seconds(wanted == nullptr ? 4 : std::atoi(wanted));
}

// Random commands over a small key space, from a seed.
class Commands {
 public:
  explicit Commands(unsigned seed) : random_(seed) {}

  unsigned below(unsigned bound) { return static_cast<unsigned>(random_() % bound); }

  Words any() {
    switch (below(5)) {
      case 0:
        return on_strings();
      case 1:
        return on_hashes();
      case 2:
        return on_keys();
      case 3:
        return on_channels();
      default:
        return on_server();
    }
  }

  Words on_state() { return below(2) == 0 ? on_strings() : on_hashes(); }
  std::string key() { return "k" + std::to_string(below(40)); }
  std::string channel() { return "c" + std::to_string(below(6)); }

 private:
  std::string number() { return std::to_string(below(1000)); }
  std::string field() { return "f" + std::to_string(below(20)); }
  std::string text() { return std::string(below(8) == 0 ? 3000 : below(60), 'x'); }
  Words pick(std::vector<Words> choices) { return choices[below(static_cast<unsigned>(choices.size()))]; }

  Words on_strings() {
    return pick({{"SET", key(), text()},
                 {"SET", key(), number(), "PX", std::to_string(1 + below(200))},
                 {"SET", key(), number(), "NX", "GET"},
                 {"GET", key()},
                 {"INCR", key()},
                 {"INCRBYFLOAT", key(), "0.5"},
                 {"APPEND", key(), "y"},
                 {"SETRANGE", key(), "5", "z"},
                 {"GETRANGE", key(), "0", "10"},
                 {"MSET", key(), number(), key(), number()},
                 {"MGET", key(), key(), key()},
                 {"MSETNX", key(), "1", key(), "2"},
                 {"GETDEL", key()},
                 {"GETEX", key(), "PX", "50"},
                 {"STRLEN", key()}});
  }

  Words on_hashes() {
    return pick({{"HSET", key(), field(), text(), field(), number()},
                 {"HGET", key(), field()},
                 {"HMGET", key(), field(), field()},
                 {"HGETALL", key()},
                 {"HDEL", key(), field(), field()},
                 {"HINCRBY", key(), field(), "3"},
                 {"HINCRBYFLOAT", key(), field(), "1.5"},
                 {"HLEN", key()},
                 {"HSCAN", key(), "0"},
                 {"HRANDFIELD", key(), "3", "WITHVALUES"},
                 {"HSETNX", key(), field(), "n"},
                 {"HKEYS", key()}});
  }

  Words on_keys() {
    return pick({{"DEL", key(), key()},
                 {"UNLINK", key()},
                 {"EXISTS", key(), key()},
                 {"PEXPIRE", key(), std::to_string(1 + below(300))},
                 {"PEXPIRE", key(), "100", "GT"},
                 {"PERSIST", key()},
                 {"PTTL", key()},
                 {"TYPE", key()},
                 {"RENAME", key(), key()},
                 {"RENAMENX", key(), key()},
                 {"COPY", key(), key(), "REPLACE"},
                 {"COPY", key(), key(), "DB", "1"},
                 {"MOVE", key(), "1"},
                 {"KEYS", "k1*"},
                 {"SCAN", "0", "COUNT", "100"},
                 {"RANDOMKEY"},
                 {"DBSIZE"},
                 {"OBJECT", "ENCODING", key()},
                 {"TOUCH", key()},
                 {"MEMORY", "USAGE", key()},
                 {below(40) == 0 ? "FLUSHALL" : "PING"},
                 {below(40) == 0 ? "FLUSHDB" : "PING"},
                 {"SWAPDB", "0", below(10) == 0 ? "1" : "0"}});
  }

  Words on_channels() {
    return pick({{"PUBLISH", channel(), text()},
                 {"SPUBLISH", channel(), text()},
                 {"PUBLISH", channel(), std::string(20'000, 'p')},
                 {"PUBSUB", "CHANNELS"},
                 {"PUBSUB", "NUMSUB", channel(), channel()},
                 {"PUBSUB", "NUMPAT"}});
  }

  Words on_server() {
    return pick({{"CONFIG", "SET", "notify-keyspace-events", below(2) == 0 ? "AKE" : ""},
                 {"CONFIG", "SET", "maxmemory", below(4) == 0 ? "100000000" : "0"},
                 {"CONFIG", "SET", "slowlog-log-slower-than", number()},
                 {"CONFIG", "SET", "client-output-buffer-limit",
                  below(2) == 0 ? "pubsub 1mb 0 0" : "pubsub 32mb 8mb 60"},
                 {"CONFIG", "GET", "*max*"},
                 {"CONFIG", "RESETSTAT"},
                 {"CLIENT", "LIST"},
                 {"CLIENT", "INFO"},
                 {"CLIENT", "SETNAME", "n" + number()},
                 {"INFO"},
                 {"SLOWLOG", "GET"},
                 {"SLOWLOG", "RESET"},
                 {"COMMAND", "COUNT"},
                 {"TIME"},
                 {"LATENCY", "LATEST"},
                 {"ECHO", text()}});
  }

  std::mt19937 random_;
};

class Hammer : public ::testing::TestWithParam<const char*> {
 protected:
  using Clock = std::chrono::steady_clock;

  bool over() const { return Clock::now() > end_; }

  // Runs `session` on fresh connections until the time is over; being killed by CLIENT KILL is part of the
  // game.
  void repeat(unsigned seed, int protocol, const std::function<void(Client&, Commands&)>& session) {
    Commands commands(seed);
    while (!over()) {
      try {
        Client client(server_.port(), protocol);
        session(client, commands);
      } catch (const Closed&) {
      }
    }
  }

  // Pipelines of anything.
  void everything(Client& client, Commands& commands) {
    for (int round = 0; round < 50 && !over(); ++round) {
      std::string batch;
      const unsigned count = 1 + commands.below(30);
      for (unsigned i = 0; i < count; ++i) batch += encode(commands.any());
      client.send_raw(batch);
      for (unsigned i = 0; i < count; ++i) client.read();
      done_ += count;
    }
  }

  void transactions(Client& client, Commands& commands) {
    for (int round = 0; round < 50 && !over(); ++round) {
      if (commands.below(2) == 0) client.call({"WATCH", commands.key(), commands.key()});
      if (commands.below(9) == 0) client.call({"UNWATCH"});
      std::string batch = encode({"MULTI"});
      const unsigned count = 1 + commands.below(6);
      for (unsigned i = 0; i < count; ++i)
        batch += encode(commands.below(4) == 0 ? commands.any() : commands.on_state());
      client.send_raw(batch + encode({commands.below(6) == 0 ? "DISCARD" : "EXEC"}));
      for (unsigned i = 0; i < count + 2; ++i) client.read();
      done_ += count;
    }
  }

  // Subscriptions come and go while messages and events flow. RESP3, so that any command may be sent.
  void subscriptions(Client& client, Commands& commands) {
    for (int round = 0; round < 100 && !over(); ++round) {
      const char* kinds[] = {"SUBSCRIBE",   "PSUBSCRIBE",   "SSUBSCRIBE",
                             "UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"};
      std::string batch;
      for (int i = 0; i < 4; ++i) {
        const auto kind = commands.below(6);
        batch += encode({kinds[kind], kind % 3 == 1 ? "c?" : commands.channel()});
      }
      if (commands.below(4) == 0) batch += encode({"PSUBSCRIBE", "__key*__:*"});
      if (commands.below(4) == 0) batch += encode({"UNSUBSCRIBE"}) + encode({"PUNSUBSCRIBE"});
      if (commands.below(10) == 0) batch += encode({"RESET"}) + encode({"HELLO", "3"});
      client.send_raw(batch + encode({"ECHO", "round"}));
      while (client.read().text != "round") {
      }
      client.kept_pushes().clear();
    }
    client.close(commands.below(2) == 0);
    throw Closed("by itself");
  }

  // Somebody who kills connections, pauses writers and watches by MONITOR.
  void administration(Client& client, Commands& commands) {
    for (int round = 0; round < 30 && !over(); ++round) {
      const auto list = client.call({"CLIENT", "LIST"}).text;
      const auto lines = static_cast<unsigned>(std::count(list.begin(), list.end(), '\n'));
      std::size_t at = 0;
      for (unsigned skip = commands.below(std::max(lines, 1u)); skip > 0; --skip)
        at = list.find('\n', at) + 1;
      const auto id = list.substr(at + 3, list.find(' ', at) - at - 3);
      client.call({"CLIENT", "KILL", "ID", id});
      if (commands.below(5) == 0) client.call({"CLIENT", "PAUSE", "10", "WRITE"});
      if (commands.below(5) == 0) client.call({"CLIENT", "UNPAUSE"});
      Client monitor(server_.port());
      monitor.call({"MONITOR"});
      for (int i = 0; i < 20 && !over(); ++i) {
        client.call({"PING"});  // something to see, also if all others have just come to their end
        monitor.read();
      }
    }
  }

  // Subscribers that never read, and go.
  void deaf_subscriber(Commands& commands) {
    Client deaf(server_.port(), 2, 4096);
    deaf.send({"PSUBSCRIBE", "*"});
    for (int i = 0; i < 20 && !over(); ++i)
      Client(server_.port()).call({"PUBLISH", "c1", std::string(100'000, 'd')});
    deaf.close(commands.below(2) == 0);
  }

  static std::string encode(const Words& words) {
    return resp::encode_request(std::vector<std::string_view>(words.begin(), words.end()));
  }

  // Afterwards: DBSIZE, KEYS and SCAN agree, and each key can be read.
  void expect_order() {
    Client client(server_.port(), 3);
    client.call({"CONFIG", "SET", "maxmemory", "0"});
    for (const auto* db : {"0", "1"}) {
      client.call({"SELECT", db});
      for (const auto& key : client.call({"KEYS", "*"}).items) client.call({"PERSIST", key.text});
      // A key that ended in between may be counted a moment longer.
      std::vector<Value> keys;
      EXPECT_TRUE(eventually([&] {
        keys = client.call({"KEYS", "*"}).items;
        return client.call({"DBSIZE"}).integer == static_cast<std::int64_t>(keys.size());
      }));
      for (const auto& key : keys) {
        const auto type = client.call({"TYPE", key.text}).text;
        EXPECT_FALSE(client.call({type == "hash" ? "HGETALL" : "GET", key.text}).is_error());
      }
    }
    EXPECT_TRUE(eventually([&] { return info_field(client, "clients", "connected_clients") == "1"; }));
    EXPECT_TRUE(client.call({"PUBSUB", "CHANNELS"}).items.empty());
  }

  Server server_{{.backend = GetParam(), .more = {"--threads", "4"}}};
  Clock::time_point end_ = Clock::now() + hammer_time();
  std::atomic<std::uint64_t> done_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Backends, Hammer, ::testing::Values("memory:", "sqlite:"),
                         [](const auto& suite) { return std::string(suite.param).substr(0, 6); });

TEST_P(Hammer, EverythingAtOnce) {
  const auto work = [&](int thread) {
    const auto seed = static_cast<unsigned>(thread) * 7919 + 17;
    const int protocol = 2 + thread % 2;
    if (thread < 5)
      return repeat(seed, protocol, [&](auto& client, auto& commands) { everything(client, commands); });
    if (thread < 8)
      return repeat(seed, protocol, [&](auto& client, auto& commands) { transactions(client, commands); });
    if (thread < 11)
      return repeat(seed, 3, [&](auto& client, auto& commands) { subscriptions(client, commands); });
    if (thread == 11)
      return repeat(seed, 2, [&](auto& client, auto& commands) { administration(client, commands); });
    repeat(seed, 2, [&](auto&, auto& commands) { deaf_subscriber(commands); });
  };
  in_threads(13, work);
  ASSERT_TRUE(server_.process().running()) << server_.log();
  std::printf("    %llu commands\n", static_cast<unsigned long long>(done_.load()));
  expect_order();
  const auto status = server_.stop();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 0) << server_.log();
}

}  // namespace
}  // namespace isthmus::test
