// What holds when PostgreSQL, a server, or the way between them fails under load: acknowledged writes stay,
// nothing happens twice, messages come once and in order, and all heals by itself.
#include <csignal>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"
#include "tests/support/site_load.hpp"
#include "tests/support/stalls.hpp"

namespace isthmus::test {
namespace {

using Clock = std::chrono::steady_clock;
using State = std::map<std::string, std::string>;

// Service must be back so soon after the database is. What the machine loses meanwhile counts several times:
// who is late for one step of the way back waits for the next turn of another one.
constexpr double kServiceBackMs = kSanitized ? 20'000 : 3000;
constexpr int kStallWeight = 3;
// However slow the machine is, what is sent in an outage is not stale after it.
const std::vector<std::string> kForgetsNoMessage = {"--message-max-age", "60s"};
// Enough to have every kind of command under way.
constexpr int kSomeWrites = 300;

bool is_outage(const Value& reply) { return reply.is_error() && reply.text.starts_with("CLUSTERDOWN "); }

class Failover : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }
  void TearDown() override {
    load_.reset();
    SiteFixture::TearDown();
  }

  void start_load(const std::vector<Server*>& servers) {
    std::vector<int> ports;
    for (Server* server : servers) ports.push_back(server->port());
    load_ = std::make_unique<SiteLoad>(ports);
    ASSERT_TRUE(load_->acknowledges(kSomeWrites));
  }
  // The strings that SQL shows.
  static State current(const PostgresCluster& cluster) {
    State state;
    for (const std::string& row :
         cluster.sql("SELECT key, value FROM isthmus.current WHERE type = 'string'")) {
      const std::size_t bar = row.find('|');
      state[row.substr(0, bar)] = row.substr(bar + 1);
    }
    return state;
  }
  void end_and_judge(const PostgresCluster& cluster, SiteLoad::Expected expected = {}) {
    load_->stop();
    load_->judge([&] { return current(cluster); }, expected);
  }
  static bool takes_writes(Server& server) {
    Client client(server.port());
    return show(client.call({"SET", "probe", "1"})) == "OK";
  }
  static void expect_service_soon(const std::vector<Server*>& servers) {
    const Stalls stalls;
    const auto begin = Clock::now();
    for (Server* server : servers) EXPECT_TRUE(eventually([&] { return takes_writes(*server); }));
    const std::chrono::duration<double, std::milli> took = Clock::now() - begin;
    EXPECT_LT(took.count(), kServiceBackMs + kStallWeight * stalls.ms());
  }
  // The state is counted as read a moment after clients see it.
  static bool rebuilds_once(Server& server) {
    return eventually([&] { return site_count(server, "state_rebuilds") == 1; });
  }
  // Writes are refused, and everything that needs no database goes on.
  static void expect_outage(Server& server) {
    Client client(server.port()), subscriber(server.port());
    ASSERT_TRUE(eventually([&] { return is_outage(client.call({"SET", "refused", "1"})); }));
    EXPECT_EQ(show(client.call({"GET", "before"})), "\"there\"");
    subscriber.subscribe("SUBSCRIBE", {"local"});
    for (int i = 0; i < 10; ++i) {
      const std::string text = std::to_string(i);
      EXPECT_EQ(show(client.call({"PUBLISH", "local", text})), "(integer) 1");
      EXPECT_EQ(subscriber.next_message().payload, text);
    }
  }

  std::unique_ptr<SiteLoad> load_;
};

// ---- PostgreSQL ends and begins again ----

class DatabaseOutage : public Failover, public testing::WithParamInterface<const char*> {};

TEST_P(DatabaseOutage, LosesNothingAndHeals) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url(), kForgetsNoMessage);
  Client(writer->port()).call({"SET", "before", "there"});
  start_load({writer, follower});
  const std::string how = GetParam();
  how == "kill" ? cluster.kill() : cluster.stop(how);
  expect_outage(*writer);
  expect_outage(*follower);
  Client young(writer->port()), listener(follower->port());
  listener.subscribe("SUBSCRIBE", {"young"});
  EXPECT_EQ(show(young.call({"PUBLISH", "young", "sent in the outage"})), "(integer) 0");
  cluster.start();
  expect_service_soon({writer, follower});
  EXPECT_EQ(listener.next_message().payload, "sent in the outage");
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  end_and_judge(cluster);
}

INSTANTIATE_TEST_SUITE_P(Failover, DatabaseOutage, testing::Values("fast", "immediate", "kill"),
                         [](const auto& value) { return std::string(value.param); });

TEST_F(Failover, DropsAMessageThatOutlivesItsAgeInAnOutage) {
  PostgresCluster cluster;
  const auto [writer, follower] =
      writer_and_follower(cluster.url(), cluster.url(), {"--message-max-age", "300ms"});
  Client(writer->port()).call({"SET", "before", "there"});
  Client publisher(writer->port()), listener(follower->port());
  listener.subscribe("SUBSCRIBE", {"c"});
  cluster.stop();
  expect_outage(*writer);
  EXPECT_EQ(show(publisher.call({"PUBLISH", "c", "old"})), "(integer) 0");
  EXPECT_TRUE(eventually([&] { return site_count(*writer, "dropped_messages") >= 11; }))
      << "ten local ones and this one";
  cluster.start();
  expect_service_soon({writer, follower});
  EXPECT_TRUE(eventually([&] {
    publisher.call({"PUBLISH", "c", "new"});
    return site_info(*follower, "feed_up") == "1" && listener.message_within(milliseconds(100)).has_value();
  }));
  EXPECT_EQ(listener.message_within(milliseconds(100)).value_or(Message{}).payload.find("old"),
            std::string::npos);
}

// ---- a standby takes over ----

// A primary, a standby, and what servers are told of them.
struct Pair {
  Pair() : primary(settings()), standby(PostgresCluster::standby_of(primary, settings())) {}
  static PostgresCluster::Settings settings() { return {{"max_replication_slots", "16"}}; }
  std::string url() const {
    return "postgresql://postgres@127.0.0.1:" + std::to_string(primary.port()) +
           ",127.0.0.1:" + std::to_string(standby->port()) + "/postgres?target_session_attrs=read-write";
  }
  // The same, with the primary behind a proxy. The standby first: libpq does not go on to the next host after
  // one that closes the connection.
  std::string url_through(const DatabaseProxy& proxy) const {
    return "postgresql://postgres@127.0.0.1:" + std::to_string(standby->port()) +
           ",127.0.0.1:" + std::to_string(proxy.port()) + "/postgres?target_session_attrs=read-write";
  }
  // Commits wait for the standby from now on.
  void replicate_synchronously() {
    primary.configure({{"synchronous_standby_names", "'standby_" + std::to_string(standby->port()) + "'"}});
    primary.reload();
    ASSERT_TRUE(eventually([&] { return replication("sync_state = 'sync'") == "1"; }));
  }
  // What the primary commits from now on the standby does not get.
  void cut_replication() {
    standby->sql("ALTER SYSTEM SET primary_conninfo = ''");
    standby->reload();
    ASSERT_TRUE(eventually([&] { return replication("true") == "0"; }));
  }
  // How many standbys receive, and fulfil the condition. Feeds are in the same view.
  std::string replication(const std::string& condition) const {
    return primary.value(
        "SELECT count(*) FROM pg_stat_replication WHERE application_name LIKE 'standby%' AND " + condition);
  }
  void fail_over() {
    primary.kill();
    standby->promote();
  }
  PostgresCluster primary;
  std::unique_ptr<PostgresCluster> standby;
};

TEST_F(Failover, LosesNothingToASynchronousStandby) {
  Pair pair;
  pair.replicate_synchronously();
  const auto [writer, follower] = writer_and_follower(pair.url(), pair.url(), kForgetsNoMessage);
  start_load({writer, follower});
  pair.fail_over();
  expect_service_soon({writer, follower});
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  EXPECT_EQ(pair.standby->value("SELECT count(*) FROM pg_replication_slots WHERE NOT temporary"), "1");
  end_and_judge(*pair.standby);
}

// A client, and what it was promised in the part of the log that gets lost.
void write_a_tail(Server& server) {
  Client client(server.port());
  for (int i = 0; i < 200; ++i) {
    const std::string number = std::to_string(i);
    ASSERT_EQ(show(client.call({"SET", "tail:" + number, number})), "OK");
  }
  ASSERT_EQ(show(client.call({"DEL", "deleted"})), "(integer) 1");
  ASSERT_EQ(show(client.call({"SET", "changed", "after"})), "OK");
  ASSERT_EQ(show(client.call({"HSET", "hash", "new", "1"})), "(integer) 1");
  ASSERT_EQ(show(client.call({"HDEL", "hash", "old"})), "(integer) 1");
  ASSERT_EQ(show(client.call({"PERSIST", "lasting"})), "(integer) 1");
}

void write_before_the_tail(Server& server) {
  Client client(server.port());
  for (const char* key : {"deleted", "changed", "lasting"}) client.call({"SET", key, "before", "EX", "9999"});
  client.call({"HSET", "hash", "old", "1"});
}

bool shows_the_tail(Server& server) {
  Client client(server.port());
  for (int i = 0; i < 200; ++i) {
    const std::string number = std::to_string(i);
    if (client.call({"GET", "tail:" + number}).text != number) return false;
  }
  return client.call({"EXISTS", "deleted"}).integer == 0 && client.call({"GET", "changed"}).text == "after" &&
         show(client.call({"HGETALL", "hash"})) == "1) \"new\"\n2) \"1\"" &&
         client.call({"TTL", "lasting"}).integer == -1;
}

void expect_the_tail_in_sql(const PostgresCluster& cluster) {
  EXPECT_EQ(cluster.value("SELECT count(*) FROM isthmus.current WHERE key LIKE 'tail:%'"), "200");
  EXPECT_EQ(cluster.value("SELECT count(*) FROM isthmus.current WHERE key = 'deleted'"), "0");
  EXPECT_EQ(cluster.value("SELECT value FROM isthmus.current WHERE key = 'changed'"), "after");
}

TEST_F(Failover, AppendsAgainWhatAStandbyLost) {
  Pair pair;
  const auto [writer, follower] = writer_and_follower(pair.url(), pair.url());
  write_before_the_tail(*writer);
  start_load({writer, follower});
  pair.cut_replication();
  write_a_tail(*writer);
  ASSERT_TRUE(load_->acknowledges(kSomeWrites));
  pair.fail_over();
  expect_service_soon({writer, follower});
  EXPECT_TRUE(eventually([&, writer = writer, follower = follower] {
    return site_count(*writer, "seed_rows") + site_count(*follower, "seed_rows") > 0;
  })) << writer->log()
      << "\n"
      << follower->log();
  for (Server* server : {writer, follower}) {
    EXPECT_TRUE(eventually([&] { return shows_the_tail(*server); }));
  }
  expect_the_tail_in_sql(*pair.standby);
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  end_and_judge(*pair.standby, {.all_messages = false});
}

// The row of the lease is in the part that got lost, too.
TEST_F(Failover, AppendsAgainWhatAStandbyLostWithTheLease) {
  Pair pair;
  const auto [first, follower] = writer_and_follower(pair.url(), pair.url());
  write_before_the_tail(*first);
  pair.cut_replication();
  first->stop();
  ASSERT_TRUE(eventually([&] { return role(*follower) == "writer"; }));
  write_a_tail(*follower);
  first->start();
  start_load({follower, first});
  pair.fail_over();
  expect_service_soon({follower, first});
  for (Server* server : {follower, first}) {
    EXPECT_TRUE(eventually([&] { return shows_the_tail(*server); }));
  }
  expect_the_tail_in_sql(*pair.standby);
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  end_and_judge(*pair.standby, {.all_messages = false});
}

TEST_F(Failover, AppendsAgainWhatAStandbyLostWithTheWriter) {
  Pair pair;
  const auto [writer, follower] = writer_and_follower(pair.url(), pair.url());
  write_before_the_tail(*writer);
  pair.cut_replication();
  write_a_tail(*writer);
  ASSERT_TRUE(eventually([&, follower = follower] { return shows_the_tail(*follower); }));
  writer->kill_now();
  pair.fail_over();
  expect_service_soon({follower});
  EXPECT_GE(site_count(*follower, "seed_rows"), 200U);
  EXPECT_TRUE(shows_the_tail(*follower));
  expect_the_tail_in_sql(*pair.standby);
  writer->start();
  EXPECT_TRUE(shows_the_tail(*writer));
  start_load({writer, follower});
  end_and_judge(*pair.standby);
}

// Another server went on with the lease before the one that holds more of what was acknowledged came back.
TEST_F(Failover, TakesTheLeaseToAppendWhatOnlyItHolds) {
  Pair pair;
  DatabaseProxy proxy(pair.primary.port());
  const auto [writer, follower] = writer_and_follower(pair.url(), pair.url_through(proxy));
  write_before_the_tail(*writer);
  Client at_follower(follower->port());
  ASSERT_TRUE(eventually([&] { return show(at_follower.call({"GET", "changed"})) == "\"before\""; }));
  pair.cut_replication();
  // From here on the follower sees nothing more.
  proxy.stall();
  write_a_tail(*writer);
  writer->process().signal(SIGSTOP);
  pair.fail_over();
  proxy.cut();
  ASSERT_TRUE(eventually([&, follower = follower] { return role(*follower) == "writer"; }))
      << follower->log();
  EXPECT_EQ(show(at_follower.call({"SET", "meanwhile", "1"})), "OK");
  writer->process().signal(SIGCONT);
  for (Server* server : {writer, follower}) {
    EXPECT_TRUE(eventually([&] { return shows_the_tail(*server); })) << writer->log() << "\n"
                                                                     << follower->log();
    Client client(server->port());
    EXPECT_TRUE(eventually([&] { return show(client.call({"GET", "meanwhile"})) == "\"1\""; }));
  }
  EXPECT_GE(site_count(*writer, "seed_rows"), 200U);
  expect_the_tail_in_sql(*pair.standby);
  start_load({writer, follower});
  end_and_judge(*pair.standby);
}

// ---- a server stands, or is cut off ----

TEST_F(Failover, LosesNothingToAWriterThatStands) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url(), kForgetsNoMessage);
  start_load({writer, follower});
  writer->process().signal(SIGSTOP);
  EXPECT_TRUE(eventually([&, follower = follower] { return role(*follower) == "writer"; }));
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  writer->process().signal(SIGCONT);
  EXPECT_TRUE(eventually([&, writer = writer] { return role(*writer) == "follower"; }));
  expect_service_soon({writer, follower});
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  end_and_judge(cluster);
}

TEST_F(Failover, LosesNothingToAWriterWithoutADatabase) {
  PostgresCluster cluster;
  DatabaseProxy proxy(cluster.port());
  Options options = {"--commit-timeout", "1500ms"};
  options.insert(options.end(), kForgetsNoMessage.begin(), kForgetsNoMessage.end());
  const auto [writer, follower] = writer_and_follower(proxy.url(), cluster.url(), options);
  start_load({writer, follower});
  Client client(writer->port());
  proxy.stall();
  EXPECT_TRUE(is_outage(client.call({"SET", "dirty", "never told"})));
  EXPECT_TRUE(eventually([&, follower = follower] { return role(*follower) == "writer"; }));
  expect_service_soon({follower});
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  proxy.open();
  EXPECT_TRUE(eventually([&, writer = writer] { return role(*writer) == "follower"; }));
  expect_service_soon({writer, follower});
  EXPECT_TRUE(eventually([&] {
    const Value seen = client.call({"GET", "dirty"});
    EXPECT_TRUE(seen.is_null() || is_outage(seen)) << show(seen);
    return seen.is_null();
  }));
  EXPECT_TRUE(rebuilds_once(*writer)) << writer->log();
  EXPECT_TRUE(Client(follower->port()).call({"GET", "dirty"}).is_null());
  end_and_judge(cluster);
}

// Nothing but a message was under way when the writer lost its lease: the next one hears of it all the same.
TEST_F(Failover, DeliversTheMessagesOfAFormerWriter) {
  PostgresCluster cluster;
  DatabaseProxy proxy(cluster.port());
  const auto [writer, follower] = writer_and_follower(proxy.url(), cluster.url(), kForgetsNoMessage);
  Client publisher(writer->port()), listener(follower->port());
  listener.subscribe("SUBSCRIBE", {"c"});
  proxy.cut();
  ASSERT_TRUE(eventually([&, writer = writer] { return site_info(*writer, "feed_up") == "0"; }));
  // The first ones may wait for a commit that never comes; those that come when the outage is known do not.
  int sent = 0;
  ASSERT_TRUE(eventually([&] {
    return !publisher.call({"PUBLISH", "c", std::to_string(++sent)}).is_error();
  }));
  ASSERT_TRUE(eventually([&, follower = follower] { return role(*follower) == "writer"; }));
  proxy.open();
  std::string last;
  while (last != std::to_string(sent)) {
    const auto message = listener.message_within(kPatience);
    ASSERT_TRUE(message.has_value()) << "the last one was " << last << "\n" << writer->log();
    last = message->payload;
  }
}

// ---- a follower was away for too long ----

TEST_F(Failover, ReadsTheStateAsAWholeAfterTheLogWasCut) {
  PostgresCluster cluster;
  DatabaseProxy proxy(cluster.port());
  const auto [writer, follower] = writer_and_follower(cluster.url(), proxy.url());
  Client at_writer(writer->port());
  at_writer.call({"SET", "old", "1"});
  at_writer.call({"SET", "kept", "1"});
  Client at_follower(follower->port());
  ASSERT_TRUE(eventually([&] { return show(at_follower.call({"GET", "kept"})) == "\"1\""; }));
  proxy.cut();
  // A new process and a new lease, of which the follower cannot hear.
  writer->stop();
  writer->start();
  Client again(writer->port());
  ASSERT_TRUE(eventually([&] { return show(again.call({"DEL", "old"})) == "(integer) 1"; }));
  for (int i = 0; i < 100; ++i) again.call({"SET", "new:" + std::to_string(i), "1"});
  ASSERT_TRUE(eventually([&] { return info_field(again, "isthmus", "dirty_entries") == "0"; }));
  // As partitions of the log that are older than the retention go.
  cluster.sql(
      "UPDATE isthmus.progress p SET cut = seq; DELETE FROM isthmus.log l USING isthmus.progress p WHERE "
      "l.origin = p.origin AND l.seq <= p.seq");
  ASSERT_EQ(cluster.value("SELECT count(*) FROM isthmus.log WHERE kind = 'lease'"), "0");
  proxy.open();
  EXPECT_TRUE(eventually([&] { return show(at_follower.call({"GET", "new:99"})) == "\"1\""; }));
  EXPECT_TRUE(at_follower.call({"GET", "old"}).is_null());
  EXPECT_TRUE(rebuilds_once(*follower)) << follower->log();
  EXPECT_TRUE(eventually([&, writer = writer, follower = follower] {
    return site_info(*follower, "site_lease") == site_info(*writer, "site_lease");
  }));
  EXPECT_EQ(show(at_follower.call({"INCR", "kept"})), "(integer) 2") << "it knows the writer";
  start_load({writer, follower});
  end_and_judge(cluster);
}

void end_feeds(const PostgresCluster& cluster) {
  cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND temporary");
}

// The feed of a writer was down for so long that messages of another server came and were cut meanwhile. What
// its clients write while it reads the state must not go with the old one.
TEST_F(Failover, GivesTheLeaseBackToReadTheStateAsAWhole) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url());
  start_load({writer, follower});
  cluster.sql("INSERT INTO isthmus.progress (origin, seq, cut, site) SELECT 77, 5, 5, id FROM isthmus.site");
  end_feeds(cluster);
  EXPECT_TRUE(eventually([&, writer = writer] {
    return writer->log().find("This server gives the lease back") != std::string::npos;
  })) << writer->log();
  for (Server* server : {writer, follower}) {
    EXPECT_TRUE(eventually([&] { return takes_writes(*server) && site_info(*server, "feed_up") == "1"; }))
        << server->log();
  }
  EXPECT_TRUE(eventually([&, writer = writer] { return site_count(*writer, "state_rebuilds") >= 1; }));
  EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  // Of the messages that nobody had read before the state was, some are not in the stream any more.
  end_and_judge(cluster, {.all_messages = false});
}

// ---- rows that were lost come back ----

// A peer gives them back under the numbers that they had.
TEST_F(Failover, DeliversNoMessageAgainThatTheDatabaseHadLost) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url(), kForgetsNoMessage);
  Client publisher(writer->port()), listener(follower->port());
  listener.subscribe("SUBSCRIBE", {"c"});
  // The writer asks once who subscribes, under the same numbers.
  const std::string server = site_info(*writer, "site_server_id");
  ASSERT_TRUE(eventually(
      [&] { return cluster.value("SELECT count(*) FROM isthmus.log WHERE origin = " + server) != "0"; }));
  for (const char* text : {"one", "two"}) {
    publisher.call({"PUBLISH", "c", text});
    EXPECT_EQ(listener.next_message().payload, text);
  }
  cluster.sql(
      "CREATE TABLE public.lost AS SELECT * FROM isthmus.log WHERE kind = 'publish' AND value = 'two'; "
      "DELETE FROM isthmus.log l USING public.lost g WHERE l.origin = g.origin AND l.seq >= g.seq; "
      "UPDATE isthmus.progress p SET seq = least(p.seq, g.seq - 1) FROM public.lost g WHERE p.origin = "
      "g.origin");
  end_feeds(cluster);
  ASSERT_TRUE(eventually([&, follower = follower] {
    return follower->log().find("The database went back in time") != std::string::npos;
  })) << follower->log();
  cluster.sql(
      "UPDATE public.lost SET copied = true, arrived = clock_timestamp(); "
      "INSERT INTO isthmus.log SELECT * FROM public.lost");
  publisher.call({"PUBLISH", "c", "three"});
  EXPECT_EQ(listener.next_message().payload, "three");
}

// ---- SQL refuses a row ----

// Also where it shares a row of SQL with others.
void refuse_poison(PostgresCluster& cluster) {
  // It locks one partition after the other, and so may meet a server's session in a deadlock.
  EXPECT_TRUE(eventually([&] {
    try {
      cluster.sql("ALTER TABLE isthmus.log ADD CHECK (position('poison'::bytea IN key) = 0)");
      return true;
    } catch (const std::runtime_error& error) {
      if (std::string_view(error.what()).find("deadlock detected") == std::string_view::npos) throw;
      return false;
    }
  }));
}

TEST_F(Failover, UndoesOnlyTheCommandThatSqlRefuses) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url());
  refuse_poison(cluster);
  start_load({writer, follower});
  for (Server* server : {writer, follower}) {
    Client client(server->port());
    const Value refused = client.call({"SET", "poison", "1"});
    EXPECT_TRUE(refused.is_error());
    EXPECT_TRUE(eventually([&] { return takes_writes(*server); }));
    EXPECT_TRUE(client.call({"GET", "poison"}).is_null());
    EXPECT_TRUE(load_->acknowledges(kSomeWrites));
  }
  end_and_judge(cluster);
}

// Takes no two rows of the log in one statement, and counts how often it was asked to.
void refuse_two_at_once(const PostgresCluster& cluster) {
  cluster.sql(
      "CREATE SEQUENCE public.refusals; GRANT USAGE ON SEQUENCE public.refusals TO public;"
      "CREATE FUNCTION public.refuse_two() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
      " IF (SELECT count(*) FROM added) < 2 THEN RETURN NULL; END IF;"
      " PERFORM nextval('public.refusals'); RAISE EXCEPTION 'one at a time, please'; END $$;"
      "DO $$ DECLARE part regclass; BEGIN"
      " FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'isthmus.log'::regclass LOOP"
      "  EXECUTE format('CREATE TRIGGER refuse AFTER INSERT ON %s REFERENCING NEW TABLE AS added"
      "   FOR EACH STATEMENT EXECUTE FUNCTION public.refuse_two()', part);"
      " END LOOP; END $$");
}

TEST_F(Failover, PutsWhatSqlTookOneByOneIntoTheCheckpoint) {
  PostgresCluster cluster;
  Server& server = add_server(cluster.url());
  ASSERT_TRUE(eventually([&] { return role(server) == "writer"; }));
  refuse_two_at_once(cluster);
  Client client(server.port());
  const auto stored = [&](const std::string& prefix) {
    return cluster.value("SELECT count(*) FROM isthmus.entry WHERE position('" + prefix +
                         "'::bytea IN key) = 1");
  };
  // From here on the checkpoint is told of what is committed, and does not ask the log.
  client.call({"SET", "first", "v"});
  ASSERT_TRUE(eventually([&] { return stored("first") == "1"; }));
  int keys = 0;
  // The two of a pair are committed together, unless the commit of something else was just under way.
  ASSERT_TRUE(eventually([&] {
    std::string pair;
    for (int end = keys + 2; keys < end; ++keys) pair += "SET pair:" + std::to_string(keys) + " v\r\n";
    client.send_raw(pair);
    for (int i = 0; i < 2; ++i) EXPECT_EQ(show(client.read()), "OK");
    return cluster.value("SELECT is_called FROM public.refusals") == "t";
  }));
  EXPECT_EQ(role(server), "writer") << "nothing was undone";
  EXPECT_TRUE(eventually([&] { return stored("pair:") == std::to_string(keys); }));
}

// A row takes a second if its key says so.
void slow_down(const PostgresCluster& cluster) {
  cluster.sql(
      "CREATE FUNCTION public.wait_a_second() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
      " PERFORM pg_sleep(1); RETURN NEW; END $$;"
      "DO $$ DECLARE part regclass; BEGIN"
      " FOR part IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'isthmus.log'::regclass LOOP"
      "  EXECUTE format('CREATE TRIGGER slow BEFORE INSERT ON %s FOR EACH ROW"
      "   WHEN (position(''slow''::bytea IN NEW.key) = 1) EXECUTE FUNCTION public.wait_a_second()', part);"
      " END LOOP; END $$");
}

// Whoever dies between the groups of a batch has done the first ones, and nobody does them again.
TEST_F(Failover, TakesEachRequestOutOfTheInboxWithItsRows) {
  PostgresCluster cluster;
  Server& server = add_server(cluster.url());
  ASSERT_TRUE(eventually([&] { return role(server) == "writer"; }));
  refuse_two_at_once(cluster);
  slow_down(cluster);
  const auto inbox = [&] {
    return cluster.value("SELECT string_agg(convert_from(key, 'UTF8'), ' ' ORDER BY id) FROM isthmus.inbox");
  };
  // While the first one is committed the others gather in one batch.
  cluster.sql("SELECT isthmus.set('slow:1', 'v')");
  ASSERT_TRUE(eventually([&] { return site_count(server, "inbox_rows") == 1; }));
  cluster.sql("SELECT isthmus.set('quick', 'v'); SELECT isthmus.set('slow:2', 'v')");
  EXPECT_TRUE(eventually([&] { return inbox() == "slow:2"; })) << server.log();
  EXPECT_TRUE(eventually([&] { return inbox().empty(); })) << server.log();
  EXPECT_EQ(cluster.value("SELECT count(*) FROM isthmus.current WHERE value = 'v'"), "3");
}

// A session that waits for a lock is as good as a new one, which would be a new lease with each try.
TEST_F(Failover, KeepsItsLeaseWhileALockHoldsUpItsWrites) {
  PostgresCluster cluster;
  Server& server = add_server(cluster.url(), {"--commit-timeout", "1500ms"});
  ASSERT_TRUE(eventually([&] { return takes_writes(server); }));
  const std::uint64_t leases = site_count(server, "leases_taken");
  PostgresSession other(cluster.url());
  other.sql("BEGIN; LOCK TABLE isthmus.log IN ACCESS EXCLUSIVE MODE");
  Client client(server.port());
  EXPECT_TRUE(is_outage(client.call({"SET", "k", "v"})));
  EXPECT_TRUE(eventually([&] {
    return server.log().find("The backend refuses writes") != std::string::npos;
  })) << server.log();
  other.sql("COMMIT");
  EXPECT_TRUE(eventually([&] { return takes_writes(server); }));
  EXPECT_EQ(site_count(server, "leases_taken"), leases) << server.log();
  EXPECT_EQ(show(client.call({"GET", "k"})), "\"v\"");
}

TEST_F(Failover, DoesNotAskAgainForWhatSqlRefused) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url());
  refuse_poison(cluster);
  cluster.sql("SELECT isthmus.set('poison', '1')");
  EXPECT_TRUE(eventually([&] { return cluster.value("SELECT count(*) FROM isthmus.inbox") == "0"; }));
  expect_service_soon({writer, follower});
  for (Server* server : {writer, follower}) {
    EXPECT_TRUE(eventually([&] { return Client(server->port()).call({"GET", "poison"}).is_null(); }));
  }
  cluster.sql("SELECT isthmus.set('k', 'v')");
  Client client(follower->port());
  EXPECT_TRUE(eventually([&] { return show(client.call({"GET", "k"})) == "\"v\""; }));
}

}  // namespace
}  // namespace isthmus::test
