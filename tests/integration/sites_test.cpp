// Sites that are linked by PostgreSQL: each goes on alone, and all are whole again when the links are.
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

constexpr milliseconds kLinkPatience{30'000};

const PostgresCluster::Settings kLinked = {{"max_replication_slots", "20"},
                                           {"max_wal_senders", "20"},
                                           {"max_logical_replication_workers", "20"},
                                           {"max_worker_processes", "30"},
                                           {"wal_retrieve_retry_interval", "'200ms'"},
                                           {"max_slot_wal_keep_size", "'1GB'"}};

/// Sites a, b, c …, each a cluster of its own; each reaches the others through proxies that can be cut.
class Sites : public SiteFixture {
 protected:
  struct Place {
    std::string name;
    std::unique_ptr<PostgresCluster> cluster;
    std::vector<std::unique_ptr<DatabaseProxy>> ways;  // to the others, by their index
    Server* server = nullptr;
  };

  void SetUp() override { ISTHMUS_ONLY(); }
  void TearDown() override {
    SiteFixture::TearDown();
    for (Place& place : places_) place.ways.clear();
    places_.clear();
  }

  void prepare(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) {
      places_.push_back(
          {std::string(1, static_cast<char>('a' + i)), std::make_unique<PostgresCluster>(kLinked), {}});
    }
    for (Place& place : places_) {
      for (const Place& other : places_) {
        place.ways.push_back(std::make_unique<DatabaseProxy>(other.cluster->port()));
      }
    }
  }
  std::string way(const Place& from, std::size_t to) const {
    return "postgresql://postgres@127.0.0.1:" + std::to_string(from.ways[to]->port()) + "/postgres";
  }
  Options options(std::size_t site, const std::vector<std::size_t>& peers) const {
    Options options = {"--site", places_[site].name, "--commit-timeout", "30s"};
    for (const std::size_t peer : peers) {
      options.insert(options.end(), {"--peer", places_[peer].name + "=" + way(places_[site], peer)});
    }
    return options;
  }
  Server& serve(std::size_t site, const std::vector<std::size_t>& peers) {
    Server& server = add_server(places_[site].cluster->url(), options(site, peers));
    if (places_[site].server == nullptr) places_[site].server = &server;
    return server;
  }
  std::string state_of(std::size_t at, std::size_t peer) {
    Client client(places_[at].server->port());
    return info_field(client, "sites", "peer_" + places_[peer].name).value_or("");
  }
  std::int64_t lag_ms(std::size_t at, std::size_t peer) {
    const std::string state = state_of(at, peer);
    const std::size_t lag = state.find("lag_ms=");
    return lag == std::string::npos ? -1 : std::stoll(state.substr(lag + 7));
  }
  // A server that is not told of the peers can be told to forget one.
  std::string forget(std::size_t at, std::initializer_list<std::size_t> peers) {
    Server& server = add_server(places_[at].cluster->url(), options(at, {}));
    Client client(server.port());
    std::string answers;
    for (const std::size_t peer : peers)
      answers += show(client.call({"ISTHMUS", "PEER", "FORGET", places_[peer].name})) + "\n";
    return answers;
  }
  bool is_up(std::size_t at, std::size_t peer) { return state_of(at, peer).starts_with("state=up"); }
  std::uint64_t count(std::size_t at, const std::string& name) {
    Client client(places_[at].server->port());
    return std::stoull(info_field(client, "sites", name).value_or("0"));
  }
  void expect_linked(const std::vector<std::size_t>& sites) {
    for (const std::size_t a : sites) {
      for (const std::size_t b : sites) {
        if (a == b) continue;
        EXPECT_TRUE(eventually([&] { return is_up(a, b); }, kLinkPatience))
            << places_[a].name << " to " << places_[b].name << ": " << state_of(a, b) << "\n"
            << places_[a].server->log();
      }
    }
  }
  void link(std::size_t count) {
    prepare(count);
    std::vector<std::size_t> all;
    for (std::size_t i = 0; i < count; ++i) all.push_back(i);
    for (const std::size_t i : all) {
      std::vector<std::size_t> peers;
      for (const std::size_t j : all) {
        if (j != i) peers.push_back(j);
      }
      serve(i, peers);
    }
    expect_linked(all);
  }
  void cut(std::size_t a, std::size_t b) {
    places_[a].ways[b]->cut();
    places_[b].ways[a]->cut();
  }
  void heal(std::size_t a, std::size_t b) {
    places_[a].ways[b]->open();
    places_[b].ways[a]->open();
  }
  // So that the slots that a site keeps for its peers can be changed.
  void end_walsenders(std::size_t site) {
    EXPECT_TRUE(eventually([&] {
      return places_[site].cluster->value(
                 "SELECT count(pg_terminate_backend(active_pid)) FROM pg_replication_slots WHERE slot_name "
                 "LIKE 'isthmus_link_%' AND active") == "0";
    }));
  }
  // As PostgreSQL does by itself where a slot keeps too much.
  void drop_kept_slots(std::size_t site) {
    end_walsenders(site);
    places_[site].cluster->sql(
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE "
        "'isthmus_link_%'");
  }
  Client client(std::size_t site) { return Client(places_[site].server->port()); }
  std::string call(std::size_t site, std::initializer_list<std::string_view> args) {
    return show(client(site).call(args));
  }
  void expect_everywhere(std::initializer_list<std::string_view> args, const std::string& reply) {
    for (std::size_t i = 0; i < places_.size(); ++i) {
      EXPECT_TRUE(eventually([&] { return call(i, args) == reply; }, kLinkPatience))
          << places_[i].name << ": " << call(i, args) << "\n"
          << places_[i].server->log();
    }
  }
  bool all_equal() {
    const std::string first = call(0, {"DEBUG", "DIGEST"});
    for (std::size_t i = 1; i < places_.size(); ++i) {
      if (call(i, {"DEBUG", "DIGEST"}) != first) return false;
    }
    return true;
  }

  std::vector<Place> places_;
};

TEST_F(Sites, ShareStateAndMessages) {
  link(2);
  Client subscriber = client(1);
  subscriber.subscribe("SUBSCRIBE", {"news", "__keyspace@0__:k"});
  EXPECT_EQ(call(0, {"SET", "k", "v"}), "OK");
  EXPECT_EQ(call(0, {"HSET", "h", "f", "1", "g", "2"}), "(integer) 2");
  Client asker = client(0);
  EXPECT_TRUE(eventually([&] { return flat(asker.call({"PUBSUB", "NUMSUB", "news"})) == "news 1"; }));
  EXPECT_EQ(call(0, {"PUBLISH", "news", "hi"}), "(integer) 1");
  EXPECT_EQ(subscriber.next_message(kLinkPatience).payload, "new");
  EXPECT_EQ(subscriber.next_message(kLinkPatience).payload, "set");
  EXPECT_EQ(subscriber.next_message(kLinkPatience).payload, "hi");
  expect_everywhere({"GET", "k"}, "\"v\"");
  expect_everywhere({"HGET", "h", "g"}, "\"2\"");
  EXPECT_EQ(call(1, {"DEL", "k"}), "(integer) 1");
  EXPECT_EQ(subscriber.next_message(kLinkPatience).payload, "del");
  expect_everywhere({"GET", "k"}, "(nil)");
  EXPECT_TRUE(eventually([&] { return all_equal(); }));
  EXPECT_FALSE(subscriber.message_within(milliseconds(300)));
}

// A site that cannot be reached, or whose server has died, counts no more; it counts again when it is back.
TEST_F(Sites, CountSubscribersOfLiveSites) {
  link(2);
  Client here = client(0), there = client(1);
  here.subscribe("SUBSCRIBE", {"c"});
  there.subscribe("SUBSCRIBE", {"c"});
  there.subscribe("PSUBSCRIBE", {"c*"});
  const auto comes_to = [&](std::size_t site, std::int64_t count) {
    EXPECT_TRUE(eventually(
        [&] {
          return client(site).call({"PUBLISH", "c", "m"}).integer == count;
        },
        kLinkPatience))
        << places_[site].name << " counts " << call(site, {"PUBLISH", "c", "m"}) << ", not " << count;
  };
  comes_to(0, 3);
  comes_to(1, 3);
  cut(0, 1);
  comes_to(0, 1);
  comes_to(1, 2);
  heal(0, 1);
  comes_to(0, 3);
  comes_to(1, 3);
  places_[1].server->kill_now();
  comes_to(0, 1);
}

TEST_F(Sites, GoOnAloneAndAddUpWhatTheyCounted) {
  link(3);
  EXPECT_EQ(call(0, {"SET", "base", "10"}), "OK");
  EXPECT_EQ(call(0, {"SET", "both", "before"}), "OK");
  EXPECT_EQ(call(0, {"SET", "gone", "1"}), "OK");
  expect_everywhere({"GET", "gone"}, "\"1\"");
  EXPECT_EQ(call(0, {"SADD", "members", "kept", "removed"}), "(integer) 2");
  expect_everywhere({"SCARD", "members"}, "(integer) 2");
  cut(0, 1);
  cut(0, 2);
  cut(1, 2);
  for (std::size_t i = 0; i < 3; ++i) {
    // What is under way when a link is cut may still arrive, so only the sums in the end are certain.
    EXPECT_EQ(client(i).call({"INCRBY", "base", "5"}).type, resp::Value::Type::integer);
    EXPECT_EQ(client(i).call({"INCR", "fresh"}).type, resp::Value::Type::integer);
    EXPECT_EQ(client(i).call({"HINCRBY", "hash", "n", "2"}).type, resp::Value::Type::integer);
    EXPECT_EQ(call(i, {"SET", "own:" + places_[i].name, "1"}), "OK");
    EXPECT_EQ(call(i, {"SADD", "members", places_[i].name}), "(integer) 1");
  }
  // Taken out at two sites, and added again at the third, which knows nothing of that.
  EXPECT_EQ(call(2, {"SADD", "members", "kept"}), "(integer) 0");
  EXPECT_EQ(call(0, {"SREM", "members", "kept", "removed"}), "(integer) 2");
  EXPECT_EQ(call(1, {"SREM", "members", "kept"}), "(integer) 1");
  EXPECT_EQ(call(1, {"DEL", "gone"}), "(integer) 1");
  EXPECT_EQ(call(2, {"SET", "both", "after"}), "OK");
  heal(0, 1);
  heal(0, 2);
  heal(1, 2);
  expect_everywhere({"GET", "base"}, "\"25\"");
  expect_everywhere({"GET", "fresh"}, "\"3\"");
  expect_everywhere({"HGET", "hash", "n"}, "\"6\"");
  expect_everywhere({"GET", "gone"}, "(nil)");
  expect_everywhere({"GET", "both"}, "\"after\"");
  expect_everywhere({"GET", "own:c"}, "\"1\"");
  expect_everywhere({"SMISMEMBER", "members", "a", "b", "c", "kept", "removed"},
                    "1) (integer) 1\n2) (integer) 1\n3) (integer) 1\n4) (integer) 1\n5) (integer) 0");
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
}

TEST_F(Sites, TellOfAnExpiryOnceEach) {
  link(2);
  Client here = client(0), there = client(1);
  here.subscribe("SUBSCRIBE", {"__keyevent@0__:expired"});
  there.subscribe("SUBSCRIBE", {"__keyevent@0__:expired"});
  EXPECT_EQ(call(0, {"SET", "short", "1", "PX", "6000"}), "OK");
  EXPECT_TRUE(eventually([&] { return call(1, {"GET", "short"}) == "\"1\""; }));
  EXPECT_EQ(here.next_message(kLinkPatience).payload, "short");
  EXPECT_EQ(there.next_message(kLinkPatience).payload, "short");
  expect_everywhere({"DBSIZE"}, "(integer) 0");
  EXPECT_FALSE(here.message_within(milliseconds(500)));
  EXPECT_FALSE(there.message_within(milliseconds(500)));
}

TEST_F(Sites, TakeInANewOne) {
  prepare(2);
  serve(0, {1});
  for (int i = 0; i < 500; ++i) call(0, {"SET", "k" + std::to_string(i), std::to_string(i), "EX", "1000"});
  EXPECT_EQ(call(0, {"HSET", "h", "f", "1"}), "(integer) 1");
  EXPECT_EQ(call(0, {"INCR", "n"}), "(integer) 1");
  EXPECT_TRUE(eventually([&] { return state_of(0, 1).starts_with("state=down"); })) << state_of(0, 1);
  serve(1, {0});
  expect_linked({0, 1});
  expect_everywhere({"DBSIZE"}, "(integer) 502");
  expect_everywhere({"GET", "k499"}, "\"499\"");
  EXPECT_EQ(call(1, {"INCR", "n"}), "(integer) 2");
  expect_everywhere({"GET", "n"}, "\"2\"");
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
}

TEST_F(Sites, CopyTheStateWhenASlotIsLost) {
  link(2);
  EXPECT_EQ(call(0, {"SET", "before", "1"}), "OK");
  expect_everywhere({"GET", "before"}, "\"1\"");
  cut(0, 1);
  EXPECT_EQ(call(0, {"SET", "meanwhile", "1"}), "OK");
  EXPECT_EQ(call(0, {"DEL", "before"}), "(integer) 1");
  drop_kept_slots(0);
  heal(0, 1);
  expect_everywhere({"GET", "meanwhile"}, "\"1\"");
  expect_everywhere({"GET", "before"}, "(nil)");
  EXPECT_TRUE(eventually([&] { return count(1, "reseeds") >= 2; }));
  EXPECT_EQ(call(0, {"SET", "afterwards", "1"}), "OK");
  expect_everywhere({"GET", "afterwards"}, "\"1\"");
}

// The copy stands for rows of a former lease of the peer, which our log does not have. Our feed breaks before
// a checkpoint tells how far they are known.
TEST_F(Sites, KnowACopyFromADatabaseThatWentBack) {
  link(2);
  cut(0, 1);
  EXPECT_EQ(call(0, {"SET", "meanwhile", "1"}), "OK");
  places_[0].server->kill_now();
  drop_kept_slots(0);
  places_[0].server->start();
  EXPECT_TRUE(eventually([&] { return call(0, {"SET", "afterwards", "1"}) == "OK"; }, kLinkPatience));
  PostgresSession no_checkpoint(places_[1].cluster->url());
  no_checkpoint.sql("BEGIN; LOCK TABLE isthmus.progress IN SHARE MODE");
  heal(0, 1);
  expect_everywhere({"GET", "meanwhile"}, "\"1\"");
  EXPECT_TRUE(eventually([&] { return count(1, "reseeds") >= 2; }, kLinkPatience));
  const std::uint64_t restarts = site_count(*places_[1].server, "feed_restarts");
  places_[1].cluster->sql(
      "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND temporary");
  EXPECT_TRUE(eventually([&] { return site_count(*places_[1].server, "feed_restarts") > restarts; }));
  EXPECT_EQ(call(1, {"SET", "behind", "1"}), "OK");
  expect_everywhere({"GET", "behind"}, "\"1\"");
  EXPECT_EQ(places_[1].server->log().find("went back in time"), std::string::npos)
      << places_[1].server->log();
}

TEST_F(Sites, FetchRowsThatALinkHasLost) {
  link(2);
  EXPECT_EQ(call(0, {"SET", "before", "1"}), "OK");
  expect_everywhere({"GET", "before"}, "\"1\"");
  // What PostgreSQL does when the receiving database goes back in time: the slot is ahead of it.
  cut(0, 1);
  EXPECT_EQ(call(0, {"SET", "lost", "1"}), "OK");
  EXPECT_EQ(call(0, {"PUBLISH", "news", "lost as well"}), "(integer) 0");
  end_walsenders(0);
  places_[0].cluster->sql(
      "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots "
      "WHERE slot_name LIKE 'isthmus_link_%'");
  heal(0, 1);
  // The changes and the messages of a site are numbered apart, and miss something each.
  EXPECT_EQ(call(0, {"PUBLISH", "news", "behind it"}), "(integer) 0");
  expect_everywhere({"GET", "lost"}, "\"1\"");
  EXPECT_TRUE(eventually([&] { return count(1, "gaps_repaired") >= 2; }, kLinkPatience));
  EXPECT_TRUE(eventually([&] { return count(1, "gaps_found") >= 2; }));
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
}

// Rows of a site that it has lost, which one peer has as a state only, and another has never seen.
TEST_F(Sites, TellAThirdOneWhatHasComeBack) {
  link(3);
  EXPECT_EQ(call(0, {"SET", "before", "1"}), "OK");
  expect_everywhere({"GET", "before"}, "\"1\"");
  cut(0, 2);
  EXPECT_EQ(call(0, {"SET", "lost", "1"}), "OK");
  EXPECT_TRUE(eventually([&] { return call(1, {"GET", "lost"}) == "\"1\""; }, kLinkPatience));
  // It is in the checkpoint now, and need not be in the log.
  ASSERT_TRUE(eventually(
      [&] {
        return places_[1].cluster->value("SELECT count(*) FROM isthmus.entry WHERE key = 'lost'") == "1";
      },
      kLinkPatience));
  places_[1].cluster->sql("DELETE FROM isthmus.log WHERE key = 'lost'");
  const auto streams = [&] {
    return places_[0].cluster->sql("SELECT subname, subslotname FROM pg_subscription ORDER BY subname");
  };
  const std::vector<std::string> before = streams();
  places_[0].server->kill_now();
  cut(0, 1);
  // The database of the first site goes back to before it: no table has it, and no slot brings it.
  const std::string lost = "(SELECT origin, seq FROM isthmus.log WHERE key = 'lost') g";
  places_[0].cluster->sql("UPDATE isthmus.progress p SET seq = least(p.seq, g.seq - 1) FROM " + lost +
                          " WHERE p.origin = g.origin; DELETE FROM isthmus.log l USING " + lost +
                          " WHERE l.origin = g.origin AND l.seq >= g.seq; DELETE FROM isthmus.entry WHERE "
                          "key = 'lost'");
  // Nor does the one from which the site's own feed begins.
  end_walsenders(0);
  EXPECT_TRUE(eventually([&] {
    return places_[0].cluster->value("SELECT count(*) FROM pg_replication_slots WHERE active") == "0";
  }));
  places_[0].cluster->sql(
      "SELECT pg_replication_slot_advance(slot_name, pg_current_wal_flush_lsn()) FROM pg_replication_slots");
  places_[0].server->start();
  heal(0, 1);
  heal(0, 2);
  expect_everywhere({"GET", "lost"}, "\"1\"");
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
  EXPECT_GE(count(0, "reseeds"), 1U);
  EXPECT_EQ(streams(), before) << "the streams to it went on beside the copy";
}

// Two sites take the halves of a hash at the same time: each tells that it is gone when it sees the other's.
TEST_F(Sites, SayThatNothingIsLeftOfAKey) {
  link(2);
  EXPECT_EQ(call(0, {"HSET", "h", "f", "1", "g", "2"}), "(integer) 2");
  expect_everywhere({"HGET", "h", "g"}, "\"2\"");
  Client here = client(0), there = client(1);
  here.subscribe("SUBSCRIBE", {"__keyspace@0__:h"});
  there.subscribe("SUBSCRIBE", {"__keyspace@0__:h"});
  cut(0, 1);
  EXPECT_EQ(call(0, {"HDEL", "h", "f"}), "(integer) 1");
  EXPECT_EQ(call(1, {"HDEL", "h", "g"}), "(integer) 1");
  heal(0, 1);
  expect_everywhere({"EXISTS", "h"}, "(integer) 0");
  for (Client* listener : {&here, &there}) {
    std::string last;
    while (last != "del") {
      const auto event = listener->message_within(kLinkPatience);
      ASSERT_TRUE(event.has_value()) << "the last one was " << last;
      last = event->payload;
    }
  }
}

TEST_F(Sites, ReachEveryServerOfASite) {
  link(2);
  Server& second = serve(1, {0});
  Client follower(second.port());
  follower.subscribe("SUBSCRIBE", {"news"});
  call(0, {"PUBLISH", "news", "hi"});
  EXPECT_EQ(follower.next_message(kLinkPatience).payload, "hi");
  EXPECT_FALSE(follower.message_within(milliseconds(200)));
  Client other(second.port());
  EXPECT_EQ(show(other.call({"SET", "k", "v"})), "OK");
  expect_everywhere({"GET", "k"}, "\"v\"");
}

TEST_F(Sites, RefuseAPeerThatIsNotTheOneItShouldBe) {
  prepare(2);
  serve(0, {1});
  add_server(places_[1].cluster->url(), {"--site", "x"});
  EXPECT_TRUE(eventually([&] { return state_of(0, 1).find("it calls itself 'x'") != std::string::npos; },
                         kLinkPatience))
      << state_of(0, 1);
  EXPECT_TRUE(state_of(0, 1).starts_with("state=refused")) << state_of(0, 1);
}

// What is deleted is not remembered for ever for a peer that has never been there.
TEST_F(Sites, WaitForAPeerThatNeverComesOnlySoLong) {
  prepare(2);
  Options first = options(0, {1});
  first.insert(first.end(), {"--tombstone-retention", "10s"});
  places_[0].server = &add_server(places_[0].cluster->url(), first);
  EXPECT_EQ(call(0, {"SET", "kept", "1"}), "OK");
  const auto stable = [&] {
    Client asker = client(0);
    return info_field(asker, "sites", "stable_ms").value_or("");
  };
  EXPECT_EQ(stable(), "-1");
  EXPECT_TRUE(eventually([&] { return state_of(0, 1).starts_with("state=expelled"); }, kLinkPatience))
      << state_of(0, 1);
  // A checkpoint says so, for which there must be something to write.
  EXPECT_TRUE(eventually(
      [&] {
        return call(0, {"SET", "kept", "1"}) == "OK" && stable() != "-1";
      },
      kLinkPatience));
  serve(1, {0});
  expect_linked({0, 1});
  expect_everywhere({"GET", "kept"}, "\"1\"");
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
}

TEST_F(Sites, ForgetAPeer) {
  link(2);
  EXPECT_EQ(call(0, {"SET", "k", "v"}), "OK");
  expect_everywhere({"GET", "k"}, "\"v\"");
  EXPECT_EQ(call(0, {"ISTHMUS", "PEER", "FORGET", "b"}),
            "(error) ERR this peer is still named by --peer; restart the servers without it first");
  Server& second = add_server(places_[0].cluster->url(), {"--site", "a"});
  Client client(second.port());
  EXPECT_EQ(show(client.call({"ISTHMUS", "PEER", "FORGET", "nobody"})), "(error) ERR no such peer");
  EXPECT_EQ(show(client.call({"ISTHMUS", "PEER", "FORGET", "b"})), "OK");
  EXPECT_EQ(places_[0].cluster->value("SELECT count(*) FROM isthmus.peer"), "0");
  EXPECT_EQ(places_[0].cluster->value("SELECT count(*) FROM pg_subscription"), "0");
}

// The writer, which still works for them, makes nothing of them anew: neither of one that it can reach nor of
// one that it cannot.
TEST_F(Sites, ForgetPeersForGood) {
  link(3);
  cut(0, 2);
  EXPECT_TRUE(eventually([&] { return state_of(0, 2).starts_with("state=down"); }, kLinkPatience));
  // Its server would make its own link to the first site anew. The database is there.
  places_[1].server->kill_now();
  const auto slots = [&] {
    return places_[1].cluster->sql(
        "SELECT slot_name FROM pg_replication_slots WHERE slot_name LIKE 'isthmus_link_%' ORDER BY "
        "slot_name COLLATE \"C\"");
  };
  const std::vector<std::string> before = slots();
  EXPECT_EQ(forget(0, {1, 2}), "OK\nOK\n");
  const auto left = [&] {
    return places_[0].cluster->value(
        "SELECT (SELECT count(*) FROM isthmus.peer) + (SELECT count(*) FROM pg_subscription) + (SELECT "
        "count(*) FROM pg_replication_slots WHERE slot_name LIKE 'isthmus_link_%')");
  };
  EXPECT_FALSE(eventually([&] { return left() != "0"; }, milliseconds(6000))) << places_[0].server->log();
  EXPECT_EQ(state_of(0, 1) + state_of(0, 2), "");
  const std::vector<std::string> after = slots();
  EXPECT_TRUE(std::includes(before.begin(), before.end(), after.begin(), after.end()))
      << places_[0].server->log();
}

// What a site had given only one of the others before it was lost, a write and a deletion.
TEST_F(Sites, GiveEachOtherWhatALostOneHasLeft) {
  link(3);
  EXPECT_EQ(call(0, {"SET", "gone", "1"}), "OK");
  expect_everywhere({"GET", "gone"}, "\"1\"");
  cut(1, 2);
  EXPECT_EQ(call(2, {"SET", "left", "1"}), "OK");
  EXPECT_EQ(call(2, {"DEL", "gone"}), "(integer) 1");
  EXPECT_TRUE(eventually([&] { return call(0, {"GET", "gone"}) == "(nil)"; }, kLinkPatience));
  EXPECT_EQ(call(0, {"GET", "left"}), "\"1\"");
  EXPECT_EQ(call(1, {"GET", "left"}), "(nil)");
  places_[2].server->kill_now();
  places_[2].cluster->stop("immediate");
  EXPECT_EQ(forget(0, {2}), "OK\n");
  EXPECT_EQ(forget(1, {2}), "OK\n");
  places_.pop_back();
  expect_everywhere({"GET", "left"}, "\"1\"");
  expect_everywhere({"GET", "gone"}, "(nil)");
  EXPECT_TRUE(eventually([&] { return all_equal(); }, kLinkPatience));
}

// A site that was restored has a deadline that its peer has taken back, so long ago that it knows of none.
TEST_F(Sites, TakeBackADeadlineOfWhichThePeerKnowsNothing) {
  constexpr milliseconds kForgetting{90'000};
  link(2);
  EXPECT_EQ(call(0, {"SET", "k", "v", "EX", "1000"}), "OK");
  expect_everywhere({"GET", "k"}, "\"v\"");
  // A checkpoint needs something to write.
  const auto stored = [&](std::size_t site, const std::string& condition) {
    call(site, {"SET", "other", "1"});
    return places_[site].cluster->value("SELECT count(*) FROM isthmus.entry WHERE key = 'k' AND " +
                                        condition) == "1";
  };
  ASSERT_TRUE(eventually([&] { return stored(0, "expire_at IS NOT NULL"); }, kLinkPatience));
  places_[0].cluster->sql("CREATE TABLE backup AS SELECT * FROM isthmus.entry WHERE key = 'k'");
  EXPECT_EQ(call(1, {"PERSIST", "k"}), "(integer) 1");
  expect_everywhere({"TTL", "k"}, "(integer) -1");
  for (const std::size_t site : {0U, 1U}) {
    ASSERT_TRUE(eventually([&] { return stored(site, "expire_version = 0"); }, kForgetting));
  }
  cut(0, 1);
  places_[0].server->kill_now();
  places_[0].cluster->sql(
      "DELETE FROM isthmus.entry WHERE key = 'k'; INSERT INTO isthmus.entry SELECT * FROM backup");
  drop_kept_slots(1);
  heal(0, 1);
  places_[0].server->start();
  expect_everywhere({"TTL", "k"}, "(integer) -1");
  expect_everywhere({"GET", "k"}, "\"v\"");
}

// While one site is away, a new writer at another says no frontier: the one that is away may have rows that
// it lacks. Those who receive all from it are not behind.
TEST_F(Sites, ShowNoLagWhileNothingIsMissing) {
  link(3);
  places_[2].server->kill_now();
  places_[2].cluster->stop("immediate");
  places_[0].server->kill_now();
  places_[0].server->start();
  EXPECT_TRUE(eventually([&] { return call(0, {"SET", "k", "v"}) == "OK"; }, kLinkPatience));
  EXPECT_TRUE(eventually([&] { return call(1, {"GET", "k"}) == "\"v\""; }, kLinkPatience));
  EXPECT_FALSE(eventually([&] { return lag_ms(1, 0) >= 10'000; }, milliseconds(15'000))) << state_of(1, 0);
  EXPECT_TRUE(is_up(1, 0)) << state_of(1, 0);
}

// A state is not copied again and again for a link that PostgreSQL refuses to make.
TEST_F(Sites, CopyLessAndLessOftenWithoutASubscription) {
  prepare(2);
  places_[0].cluster->sql(
      "CREATE FUNCTION refuse() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'none today'; END "
      "$$; CREATE EVENT TRIGGER refuse ON ddl_command_start WHEN TAG IN ('CREATE SUBSCRIPTION') EXECUTE "
      "FUNCTION refuse()");
  serve(1, {0});
  serve(0, {1});
  EXPECT_TRUE(
      eventually([&] { return state_of(0, 1).find("none today") != std::string::npos; }, kLinkPatience))
      << state_of(0, 1);
  const auto copies = [&] {
    const std::string log = places_[0].server->log(), line = "The state of a peer is being copied";
    int found = 0;
    for (std::size_t at = log.find(line); at != std::string::npos; at = log.find(line, at + 1)) ++found;
    return found;
  };
  // 1, 2 and 4 seconds after the one before.
  EXPECT_FALSE(eventually([&] { return copies() > 5; }, milliseconds(12'000))) << places_[0].server->log();
  EXPECT_GE(copies(), 2);
  places_[0].cluster->sql("DROP EVENT TRIGGER refuse");
  expect_linked({0, 1});
}

}  // namespace
}  // namespace isthmus::test
