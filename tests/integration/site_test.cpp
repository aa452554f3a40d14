// Several servers on one PostgreSQL act as one Redis: what one does the others show, whoever a client asks.
#include <atomic>
#include <csignal>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

/// A database with servers on it. The cluster is shared by the tests of this process.
class Site : public SiteFixture {
 protected:
  // A take-over takes seconds where sanitizers and others slow the machine down.
  inline static const Options kPatient = {"--commit-timeout", "30s"};

  void SetUp() override {
    ISTHMUS_ONLY();
    static PostgresCluster shared({{"max_replication_slots", "64"}, {"max_wal_senders", "64"}});
    cluster_ = &shared;
    database_ = cluster_->create_database();
  }
  // A slot that stays would keep the write-ahead log of the tests to come.
  void TearDown() override {
    SiteFixture::TearDown();
    if (cluster_ == nullptr) return;
    EXPECT_TRUE(
        eventually([&] { return value("SELECT count(*) FROM pg_replication_slots WHERE active") == "0"; }));
    value(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = "
        "current_database()");
  }

  std::string url() const { return cluster_->url(database_); }
  /// One more server, which follows the log.
  Server& add_server() { return SiteFixture::add_server(url(), kPatient); }
  /// Two servers, the writer first.
  std::pair<Server*, Server*> writer_and_follower() {
    return SiteFixture::writer_and_follower(url(), url(), kPatient);
  }
  std::string value(const std::string& sql) const { return cluster_->value(sql, database_); }

  PostgresCluster* cluster_ = nullptr;
  std::string database_;
};

TEST_F(Site, HasOneWriterAndForwardsToIt) {
  const auto [writer, follower] = writer_and_follower();
  EXPECT_EQ(role(*follower), "follower");
  Client at_writer(writer->port()), at_follower(follower->port());
  EXPECT_EQ(show(at_follower.call({"SET", "k", "v"})), "OK");
  EXPECT_EQ(show(at_follower.call({"GET", "k"})), "\"v\"") << "a server shows its own clients' writes";
  EXPECT_EQ(show(at_writer.call({"GET", "k"})), "\"v\"");
  EXPECT_EQ(show(at_writer.call({"INCR", "n"})), "(integer) 1");
  EXPECT_EQ(show(at_follower.call({"INCR", "n"})), "(integer) 2");
  EXPECT_EQ(show(at_follower.call({"HSET", "h", "f", "1", "g", "2"})), "(integer) 2");
  EXPECT_EQ(show(at_follower.call({"HINCRBY", "h", "f", "5"})), "(integer) 6");
  EXPECT_EQ(show(at_follower.call({"INCR", "k"})), "(error) ERR value is not an integer or out of range");
  EXPECT_EQ(show(at_follower.call({"HSET", "k", "f", "1"})),
            "(error) WRONGTYPE Operation against a key holding the wrong kind of value");
  EXPECT_EQ(value("SELECT value FROM isthmus.current WHERE key = 'n'"), "2");
}

TEST_F(Site, LetsOneWinASetNx) {
  const auto [writer, follower] = writer_and_follower();
  const int ports[] = {writer->port(), follower->port()};
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> won{0};
    in_threads(4, [&](int i) {
      Client client(ports[i % 2]);
      if (client.call({"SET", "lock" + std::to_string(round), std::to_string(i), "NX"}).text == "OK") ++won;
    });
    EXPECT_EQ(won.load(), 1) << "round " << round;
  }
}

TEST_F(Site, CountsEveryIncrementOnce) {
  const auto [writer, follower] = writer_and_follower();
  const int ports[] = {writer->port(), follower->port()};
  constexpr int kClients = 8, kEach = 200;
  in_threads(kClients, [&](int i) {
    Client client(ports[i % 2]);
    for (int n = 0; n < kEach; ++n) EXPECT_EQ(client.call({"INCR", "n"}).type, Value::Type::integer);
  });
  Client client(follower->port());
  EXPECT_EQ(show(client.call({"INCRBY", "n", "0"})), "(integer) " + std::to_string(kClients * kEach));
}

TEST_F(Site, CarriesMessagesBothWays) {
  const auto [writer, follower] = writer_and_follower();
  for (const auto& [from, to] : {std::pair{writer, follower}, std::pair{follower, writer}}) {
    Client subscriber(to->port()), own(from->port()), publisher(from->port());
    subscriber.subscribe("SUBSCRIBE", {"news"});
    subscriber.subscribe("PSUBSCRIBE", {"n*"});
    own.subscribe("SUBSCRIBE", {"news"});
    const std::string binary("a\0\r\n\xff", 5);
    EXPECT_EQ(publisher.call({"PUBLISH", "news", binary}).type, resp::Value::Type::integer);
    EXPECT_EQ(subscriber.next_message(), (Message{"message", "", "news", binary, {}}));
    EXPECT_EQ(subscriber.next_message(), (Message{"pmessage", "n*", "news", binary, {}}));
    EXPECT_EQ(own.next_message(), (Message{"message", "", "news", binary, {}}));
    publisher.call({"PUBLISH", "news", "end"});
    EXPECT_EQ(subscriber.next_message().payload, "end") << "nothing comes twice";
    EXPECT_EQ(own.next_message().payload, "end") << "nothing comes twice";
  }
}

// Each of the servers says the same of all subscribers of the site.
TEST_F(Site, CountsSubscribersOfAllServers) {
  const auto [writer, follower] = writer_and_follower();
  Client here(writer->port()), there(follower->port()), pattern(follower->port());
  here.subscribe("SUBSCRIBE", {"news", "only here"});
  there.subscribe("SUBSCRIBE", {"news", std::string("b\0\n", 3)});
  there.subscribe("SSUBSCRIBE", {"shard"});
  here.subscribe("PSUBSCRIBE", {"n*"});
  pattern.subscribe("PSUBSCRIBE", {"n*", "x*"});
  for (Server* server : {writer, follower}) {
    Client asker(server->port());
    const auto comes_to = [&](std::initializer_list<std::string_view> args, const std::string& reply) {
      const auto answer = [&] {
        const resp::Value value = asker.call(args);
        return value.type == resp::Value::Type::integer ? std::to_string(value.integer) : flat(value);
      };
      EXPECT_TRUE(eventually([&] { return answer() == reply; })) << answer() << " instead of " << reply;
    };
    comes_to({"PUBSUB", "NUMSUB", "news", "only here", "none"}, "news 2 only here 1 none 0");
    comes_to({"PUBSUB", "NUMPAT"}, "2");
    comes_to({"PUBLISH", "news", "m"}, "4");
    comes_to({"PUBLISH", "x", "m"}, "1");
    comes_to({"SPUBLISH", "shard", "m"}, "1");
    comes_to({"PUBSUB", "SHARDCHANNELS"}, "shard");
    comes_to({"PUBSUB", "SHARDNUMSUB", "shard"}, "shard 1");
    comes_to({"PUBSUB", "CHANNELS", "*e*"}, "news only here");
    EXPECT_EQ(asker.call({"PUBSUB", "CHANNELS"}).items.size(), 3U);
  }
}

// Who is gone counts no more, whether it could say goodbye or not; who comes knows of all others.
TEST_F(Site, CountsLiveServersOnly) {
  const auto [writer, follower] = writer_and_follower();
  Client first(follower->port()), asker(writer->port());
  first.subscribe("SUBSCRIBE", {"c"});
  const auto receivers = [&](Client& client) { return client.call({"PUBLISH", "c", "m"}).integer; };
  EXPECT_TRUE(eventually([&] { return receivers(asker) == 1; }));
  Server& newcomer = add_server();
  Client young(newcomer.port());
  EXPECT_TRUE(eventually([&] { return receivers(young) == 1; }));
  young.subscribe("SUBSCRIBE", {"c"});
  EXPECT_TRUE(eventually([&] { return receivers(asker) == 2; }));
  follower->kill_now();
  EXPECT_TRUE(eventually([&] { return receivers(asker) == 1; }, milliseconds(20'000)));
  newcomer.stop();
  EXPECT_TRUE(eventually([&] { return receivers(asker) == 0; }));
}

TEST_F(Site, TellsOfManySubscriptionsInFewRows) {
  const auto [writer, follower] = writer_and_follower();
  Client subscriber(follower->port()), asker(writer->port());
  subscriber.subscribe("SUBSCRIBE", {"stays"});
  const auto comes_to = [&](const std::string& name, const std::string& count) {
    const auto answer = [&] { return flat(asker.call({"PUBSUB", "NUMSUB", name})); };
    EXPECT_TRUE(eventually([&] { return answer() == name + " " + count; })) << answer() << ", not " << count;
  };
  comes_to("stays", "1");
  const auto rows = [&] {
    return std::stoi(value("SELECT count(*) FROM isthmus.log WHERE kind = 'subscribers'"));
  };
  const int before = rows();
  const auto begin = std::chrono::steady_clock::now();
  constexpr int kChannels = 100'000, kAtOnce = 1000;
  for (const std::string_view command : {"SUBSCRIBE", "UNSUBSCRIBE"}) {
    for (int first = 0; first < kChannels; first += kAtOnce) {
      std::vector<std::string> names;
      for (int i = first; i < first + kAtOnce; ++i) names.push_back("channel:" + std::to_string(i));
      subscriber.subscribe(command, names);
    }
    comes_to("channel:" + std::to_string(kChannels - 1), command == "SUBSCRIBE" ? "1" : "0");
  }
  EXPECT_TRUE(eventually([&] { return asker.call({"PUBSUB", "CHANNELS"}).items.size() == 1; }));
  const auto took = std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin);
  // Four rounds a second, of one row each or more if they are large: 2.5 MB in all, twice.
  EXPECT_LT(rows() - before, 60 + 6 * took.count() / 1000) << "in " << took.count() << " ms";
}

TEST_F(Site, KeepsTheOrderOfAPublisherAndLosesNothing) {
  const auto [writer, follower] = writer_and_follower();
  Client subscriber(follower->port());
  subscriber.subscribe("SUBSCRIBE", {"c"});
  constexpr int kMessages = 5000;
  in_threads(2, [&](int i) {
    Client publisher(i == 0 ? writer->port() : follower->port());
    std::string pipeline;
    for (int n = 0; n < kMessages; ++n) {
      pipeline += resp::encode_request({"PUBLISH", "c", std::to_string(i) + " " + std::to_string(n)});
    }
    publisher.send_raw(pipeline);
    for (int n = 0; n < kMessages; ++n) EXPECT_EQ(publisher.read().type, Value::Type::integer);
  });
  int next[2] = {0, 0};
  for (int n = 0; n < 2 * kMessages; ++n) {
    const std::string payload = subscriber.next_message().payload;
    const int from = payload[0] - '0';
    EXPECT_EQ(payload.substr(2), std::to_string(next[from]++));
  }
}

TEST_F(Site, RaisesKeyspaceEventsOnEveryServer) {
  const auto [writer, follower] = writer_and_follower();
  Client at_writer(writer->port()), at_follower(follower->port()), commands(follower->port());
  for (Client* client : {&at_writer, &at_follower}) client->subscribe("PSUBSCRIBE", {"__keyevent@*"});
  commands.call({"SET", "k", "1", "PX", "40"});
  commands.call({"HSET", "h", "f", "1"});
  commands.call({"INCRBY", "n", "5"});
  commands.call({"APPEND", "s", "x"});
  commands.call({"RENAME", "h", "g"});
  commands.call({"HDEL", "g", "f"});
  const std::multiset<std::string> expected = {
      "__keyevent@0__:new k",       "__keyevent@0__:set k",         "__keyevent@0__:expire k",
      "__keyevent@0__:expired k",   "__keyevent@0__:new h",         "__keyevent@0__:hset h",
      "__keyevent@0__:new n",       "__keyevent@0__:incrby n",      "__keyevent@0__:new s",
      "__keyevent@0__:append s",    "__keyevent@0__:rename_from h", "__keyevent@0__:new g",
      "__keyevent@0__:rename_to g", "__keyevent@0__:hdel g",        "__keyevent@0__:del g"};
  for (Client* client : {&at_writer, &at_follower}) {
    std::multiset<std::string> heard;
    for (std::size_t i = 0; i < expected.size(); ++i) {
      const Message message = client->next_message();
      heard.insert(message.channel + " " + message.payload);
    }
    EXPECT_EQ(heard, expected);
    EXPECT_EQ(client->message_within(milliseconds(100)), std::nullopt);
  }
}

// Between linked sites the fold decides which events are told. Each of these takes the last of its key.
TEST_F(Site, RaisesTheEventsOfWhatEmptiesAKeyOnEveryServerOfALinkedSite) {
  Options linked = kPatient;
  linked.insert(linked.end(), {"--site", "a", "--peer", "b=postgresql://127.0.0.1:1/nobody"});
  const auto [writer, follower] = SiteFixture::writer_and_follower(url(), url(), linked);
  Client commands(writer->port()), at_writer(writer->port()), at_follower(follower->port());
  for (Client* client : {&at_writer, &at_follower}) client->subscribe("PSUBSCRIBE", {"__keyevent@*"});
  for (const std::string key : {"s", "t", "u"}) commands.call({"SADD", key, "m"});
  commands.call({"HSET", "h", "f", "1"});
  commands.call({"SREM", "s", "m"});
  commands.call({"SPOP", "t"});
  commands.call({"SMOVE", "u", "v", "m"});
  commands.call({"HDEL", "h", "f"});
  commands.call({"SET", "end", "1"});
  const auto told = [](Client& client) {
    std::multiset<std::string> heard;
    std::string last;
    while (last != "__keyevent@0__:set end") {
      const Message message = client.next_message();
      last = message.channel + " " + message.payload;
      heard.insert(last);
    }
    return heard;
  };
  const std::multiset<std::string> expected = told(at_writer);
  EXPECT_EQ(expected.size(), 20U) << "six keys are new and filled; four are emptied, and gone";
  EXPECT_EQ(told(at_follower), expected);
}

TEST_F(Site, ConfirmsASubscriptionBeforeItsMessages) {
  const auto [writer, follower] = writer_and_follower();
  constexpr int kBurst = 100, kRounds = 40, kNames = 300;
  std::string burst;
  for (int i = 0; i < kBurst; ++i) burst += resp::encode_request({"PUBLISH", "c0", "x"});
  std::string subscribe = "SUBSCRIBE";
  for (int i = 0; i < kNames; ++i) subscribe += " c" + std::to_string(i);
  std::atomic<bool> done{false};
  in_threads(2, [&, publishing = follower->port(), subscribing = writer->port()](int thread) {
    if (thread == 0) {
      Client publisher(publishing);
      while (!done.load()) {
        publisher.send_raw(burst);
        for (int i = 0; i < kBurst; ++i) publisher.read();
      }
      return;
    }
    for (int round = 0; round < kRounds; ++round) {
      Client subscriber(subscribing);
      subscriber.send_raw(subscribe + "\r\n");
      EXPECT_EQ(subscriber.read_any().items.at(0).text, "subscribe");
    }
    done.store(true);
  });
}

TEST_F(Site, ShowsAnExecAsAWhole) {
  const auto [writer, follower] = writer_and_follower();
  std::atomic<bool> done{false};
  in_threads(3, [&](int i) {
    if (i == 0) {
      Client client(writer->port());
      for (int n = 0; n < 300; ++n) {
        client.call({"MULTI"});
        client.call({"SET", "a", std::to_string(n)});
        client.call({"SET", "b", std::to_string(n)});
        EXPECT_EQ(client.call({"EXEC"}).items.size(), 2U);
      }
      done = true;
      return;
    }
    Client client(i == 1 ? follower->port() : writer->port());
    while (!done) {
      const Value both = client.call({"MGET", "a", "b"});
      EXPECT_EQ(both.items[0], both.items[1]);
    }
  });
}

TEST_F(Site, GivesWatchItsMeaningOnAnyServer) {
  const auto [writer, follower] = writer_and_follower();
  Client here(follower->port()), there(writer->port());
  here.call({"SET", "k", "1"});
  here.call({"WATCH", "k", "absent"});
  EXPECT_EQ(show(here.call({"GET", "k"})), "\"1\"");
  here.call({"MULTI"});
  here.call({"SET", "k", "2"});
  EXPECT_EQ(show(here.call({"EXEC"})), "1) OK");
  here.call({"WATCH", "k"});
  there.call({"SET", "k", "3"});
  here.call({"MULTI"});
  here.call({"SET", "k", "4"});
  EXPECT_TRUE(here.call({"EXEC"}).is_null());
  EXPECT_EQ(show(there.call({"GET", "k"})), "\"3\"");
  here.call({"WATCH", "absent"});
  there.call({"SET", "absent", "x"});
  here.call({"MULTI"});
  here.call({"SET", "k", "5"});
  EXPECT_TRUE(here.call({"EXEC"}).is_null());
}

TEST_F(Site, LosesNoIncrementToWatchOnTwoServers) {
  const auto [writer, follower] = writer_and_follower();
  constexpr int kEach = 40;
  in_threads(4, [&](int i) {
    Client client(i % 2 == 0 ? writer->port() : follower->port());
    for (int n = 0; n < kEach;) {
      client.call({"WATCH", "n"});
      const Value before = client.call({"GET", "n"});
      const long number = before.is_null() ? 0 : std::stol(before.text);
      client.call({"MULTI"});
      client.call({"SET", "n", std::to_string(number + 1)});
      if (!client.call({"EXEC"}).is_null()) ++n;
    }
  });
  Client client(writer->port());
  EXPECT_EQ(show(client.call({"GET", "n"})), test::quoted(std::to_string(4 * kEach)));
}

TEST_F(Site, TakesRequestsFromSql) {
  const auto [writer, follower] = writer_and_follower();
  Client events(follower->port()), reader(follower->port());
  events.subscribe("PSUBSCRIBE", {"__keyevent@0__:[shde]*", "news"});
  value("SELECT isthmus.set('k', 'v')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:set");
  EXPECT_EQ(show(reader.call({"GET", "k"})), "\"v\"");
  value("SELECT isthmus.hset('h', 'f', '1')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:hset");
  EXPECT_EQ(show(reader.call({"HGET", "h", "f"})), "\"1\"");
  value("SELECT isthmus.expire('k', interval '1 hour')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:expire");
  EXPECT_GT(reader.call({"TTL", "k"}).integer, 3500);
  value("SELECT isthmus.hdel('h', 'f')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:hdel");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:del");
  value("SELECT isthmus.del('k')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:del");
  value("SELECT isthmus.sadd('t', 'm')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:sadd");
  EXPECT_EQ(show(reader.call({"SMEMBERS", "t"})), "1) \"m\"");
  value("SELECT isthmus.srem('t', 'm')");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:srem");
  EXPECT_EQ(events.next_message().channel, "__keyevent@0__:del");
  value("SELECT isthmus.publish('news', 'hi')");
  EXPECT_EQ(events.next_message(), (Message{"pmessage", "news", "news", "hi", {}}));
  EXPECT_TRUE(eventually([&] { return value("SELECT count(*) FROM isthmus.inbox") == "0"; }));
  EXPECT_EQ(events.message_within(milliseconds(100)), std::nullopt) << "each is done once";
}

// The example of the README.
TEST_F(Site, TurnsTheChangeOfATableIntoAMessage) {
  const auto [writer, follower] = writer_and_follower();
  value(
      "CREATE TABLE orders (id int PRIMARY KEY, state text NOT NULL);"
      "CREATE FUNCTION tell_orders() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
      "PERFORM isthmus.publish('orders', NEW.id || ' ' || NEW.state); RETURN NEW; END $$;"
      "CREATE TRIGGER tell AFTER INSERT OR UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION tell_orders()");
  Client at_writer(writer->port()), at_follower(follower->port());
  for (Client* client : {&at_writer, &at_follower}) client->subscribe("SUBSCRIBE", {"orders"});
  value("INSERT INTO orders VALUES (7, 'new')");
  value("BEGIN; UPDATE orders SET state = 'lost'; ROLLBACK");
  value("UPDATE orders SET state = 'paid'");
  for (Client* client : {&at_writer, &at_follower}) {
    EXPECT_EQ(client->next_message().payload, "7 new");
    EXPECT_EQ(client->next_message().payload, "7 paid") << "what was rolled back is not told";
  }
}

TEST_F(Site, ServesTheInboxThatWaitedForAServer) {
  { Server creates_the_schema({.backend = url(), .more = {}}); }
  value("SELECT isthmus.set('early', 'bird')");
  Server& server = add_server();
  Client client(server.port());
  EXPECT_TRUE(eventually([&] { return show(client.call({"GET", "early"})) == "\"bird\""; }));
  EXPECT_TRUE(eventually([&] { return value("SELECT count(*) FROM isthmus.inbox") == "0"; }));
}

TEST_F(Site, KeepsItsStateOverARestart) {
  Server& server = add_server();
  {
    Client client(server.port());
    client.call({"SET", "k", "v"});
    client.call({"HSET", "h", "f", "1"});
    client.call({"SET", "gone", "soon", "PX", "1"});
  }
  EXPECT_EQ(server.stop()->code, 0);
  server.start();
  Client client(server.port());
  EXPECT_EQ(show(client.call({"GET", "k"})), "\"v\"");
  EXPECT_EQ(show(client.call({"HGETALL", "h"})), "1) \"f\"\n2) \"1\"");
  EXPECT_TRUE(client.call({"GET", "gone"}).is_null());
  EXPECT_EQ(show(client.call({"SET", "k", "w"})), "OK");
}

TEST_F(Site, HasANewWriterWhenTheOldOneIsKilled) {
  const auto [writer, follower] = writer_and_follower();
  Client client(follower->port());
  for (int i = 0; i < 100; ++i) client.call({"INCR", "n"});
  writer->kill_now();
  EXPECT_EQ(show(client.call({"INCR", "n"})), "(integer) 101") << "a pause, not an error";
  EXPECT_EQ(role(*follower), "writer");
}

TEST_F(Site, HandsTheLeaseOverOnAnOrderlyEnd) {
  const auto [writer, follower] = writer_and_follower();
  Client client(follower->port());
  client.call({"SET", "k", "v"});
  EXPECT_EQ(writer->stop()->code, 0);
  EXPECT_EQ(show(client.call({"SET", "k", "w"})), "OK");
  EXPECT_EQ(role(*follower), "writer");
}

TEST_F(Site, ReplacesAWriterThatStands) {
  const auto [writer, follower] = writer_and_follower();
  Client client(follower->port());
  client.call({"SET", "k", "before"});
  writer->process().signal(SIGSTOP);
  ASSERT_EQ(show(client.call({"SET", "k", "after"})), "OK") << follower->log();
  EXPECT_EQ(role(*follower), "writer");
  writer->process().signal(SIGCONT);
  Client back(writer->port());
  EXPECT_TRUE(eventually([&] { return show(back.call({"GET", "k"})) == "\"after\""; }));
  EXPECT_TRUE(eventually([&] { return role(*writer) == "follower"; }));
  EXPECT_EQ(show(back.call({"SET", "k", "again"})), "OK");
  EXPECT_EQ(show(back.call({"GET", "k"})), "\"again\"");
}

TEST_F(Site, SurvivesTheEndOfEachOfItsSessions) {
  const auto [writer, follower] = writer_and_follower();
  Client at_writer(writer->port()), at_follower(follower->port()), subscriber(follower->port());
  subscriber.subscribe("SUBSCRIBE", {"c"});
  for (int round = 0; round < 3; ++round) {
    value(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() "
        "AND "
        "application_name LIKE 'isthmus%'");
    const std::string text = std::to_string(round);
    ASSERT_TRUE(eventually([&] { return show(at_writer.call({"SET", "k", text})) == "OK"; }));
    ASSERT_TRUE(eventually([&] { return show(at_follower.call({"SET", "m", text})) == "OK"; }));
    EXPECT_EQ(show(at_follower.call({"GET", "m"})), test::quoted(text));
    ASSERT_TRUE(eventually([&] {
      return at_writer.call({"PUBLISH", "c", text}).type == Value::Type::integer;
    }));
    EXPECT_EQ(subscriber.next_message().payload, text);
  }
}

}  // namespace
}  // namespace isthmus::test
