// Links between the databases of real clusters: what they bring, what they leave out, and what breaks them.
#include "backend/postgresql_links.hpp"

#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/postgresql_admin_sql.hpp"
#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed.hpp"
#include "backend/postgresql_schema.hpp"
#include "tests/backend/postgresql_schema_v1.hpp"
#include "tests/backend/site_database.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresCluster;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using Clock = std::chrono::steady_clock;

/// The role has to show its password from a moment from now on.
void ask_for_password(PostgresCluster& cluster, const std::string& role) {
  const std::string rules = cluster.socket_folder() + "/data/pg_hba.conf";
  std::string others;
  {
    std::ifstream in(rules);
    others.assign(std::istreambuf_iterator<char>(in), {});
  }
  std::ofstream(rules) << "host all " << role << " 127.0.0.1/32 scram-sha-256\n" << others;
  cluster.reload();
}

// ---- what a link brings ----

TEST(PostgresqlLinksTest, BringsRowsWithAllThatMattersElsewhere) {
  SiteDatabase a, b;
  link(a, b);
  Row row = make_row(2, RowKind::set, std::string_view("\0key", 4), "", "value");
  row.origin = a.lease;
  row.expire_at = 99;
  row.event = "set";
  row.requester = 5;
  row.request = 6;
  row.reply = "+OK\r\n";
  Row count = make_row(3, RowKind::incr, "n", "", "10");
  count.origin = a.lease;
  count.count = {7, 8, a.lease, -5};
  const Clock::time_point begin = Clock::now();
  a.write({row, count});
  ASSERT_TRUE(becomes([&] { return b.rows_of(a) >= 2; }));
  EXPECT_LT(Clock::now() - begin, std::chrono::seconds(10));
  EXPECT_THAT(b.cluster().sql(
                  "SELECT origin - " + std::to_string(a.lease) +
                  ", seq, kind, key, expire_at, event, requester, reply, copied, base_version, base_site, "
                  "total, value, arrived > now() - interval '1 minute' FROM isthmus.log WHERE kind <> "
                  "'lease' ORDER BY seq"),
              ElementsAre("0|2|set|\\x006b6579|99|set|||f||||\\x76616c7565|t",
                          "0|3|incr|\\x6e|||||f|7|8|-5|\\x3130|t"));
  const auto subscriptions = b.links->subscriptions();
  ASSERT_TRUE(subscriptions.contains(a.site()));
  EXPECT_TRUE(subscriptions.at(a.site()).enabled);
  ASSERT_TRUE(becomes([&] { return b.links->subscriptions().at(a.site()).applying; }));
  EXPECT_GT(b.links->subscriptions().at(a.site()).received, 0U);
  EXPECT_TRUE(a.links->subscriptions().empty());
  const auto kept = a.links->kept_slots();
  ASSERT_TRUE(kept.contains(b.site()));
  EXPECT_EQ(kept.at(b.site()).state, "reserved");
  EXPECT_TRUE(kept.at(b.site()).active);
  EXPECT_EQ(b.cluster().value("SELECT subbinary::text || subsynccommit FROM pg_subscription"), "trueon");
}

TEST(PostgresqlLinksTest, PassesNothingOnInAMesh) {
  SiteDatabase sites[3];
  for (const SiteDatabase& from : sites) {
    for (const SiteDatabase& to : sites) {
      if (&from != &to) link(from, to);
    }
  }
  for (SiteDatabase& site : sites) site.write_sets(10);
  // What the first takes over from the third by hand stays with the first.
  Row copied = make_row(77, RowKind::set, "copied", "", "v");
  copied.site = sites[2].site();
  copied.origin = 9999;
  copied.copied = true;
  Row own = copied;
  own.seq = 78;
  own.site = sites[0].site();
  sites[0].links->append(make_batch({copied, own}), sites[0].lease);
  for (SiteDatabase& site : sites) site.write_sets(1);
  for (const SiteDatabase& to : sites) {
    for (const SiteDatabase& from : sites) {
      if (&from == &to) continue;
      ASSERT_TRUE(becomes([&] {
        return to.integer("SELECT coalesce(max(seq), 0) FROM isthmus.log WHERE origin = " +
                          std::to_string(from.lease)) == static_cast<std::int64_t>(from.seq);
      }));
      // The lease row may have come before the link.
      EXPECT_EQ(to.integer("SELECT count(*) FROM isthmus.log WHERE kind = 'set' AND origin = " +
                           std::to_string(from.lease)),
                11);
    }
    EXPECT_EQ(to.integer("SELECT count(*) FROM isthmus.log WHERE origin = 9999"), &to == &sites[0] ? 2 : 0);
  }
}

// ---- what breaks a link ----

/// Takes what `to` lacks of the origin from `from`, and makes the link anew.
void relink(const SiteDatabase& from, const SiteDatabase& to) {
  to.links->drop_subscription(from.site());
  const auto peer = to.links->connect(from.url());
  const std::string slot = peer->create_slot();
  Position end = 0;
  const OriginReach theirs = peer->reaches(end)[from.lease];
  Seq have = to.links->reaches()[from.lease].last;
  Copier copier;
  ASSERT_TRUE(peer->read_rows(from.lease, have + 1, theirs.last, copier));
  to.links->append(copier.batch, to.lease);
  to.links->create_subscription(from.as_peer(), slot);
  peer->drop_slots(slot);
  EXPECT_TRUE(peer->slot(slot).exists);
}

TEST(PostgresqlLinksTest, LeavesNoGapWhenALinkIsMadeAnewUnderWriters) {
  SiteDatabase a, b;
  link(a, b);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    while (!stop) a.write_sets(7);
  });
  for (int round = 0; round < 5; ++round) {
    relink(a, b);
    const std::int64_t before = b.rows_of(a);
    EXPECT_TRUE(becomes([&] { return b.rows_of(a) > before; }));
  }
  stop = true;
  writer.join();
  const std::string of = " FROM isthmus.log WHERE origin = " + std::to_string(a.lease) + " AND seq > 1";
  ASSERT_TRUE(becomes(
      [&] { return b.integer("SELECT coalesce(max(seq), 0)" + of) == static_cast<std::int64_t>(a.seq); }));
  EXPECT_EQ(b.integer("SELECT count(DISTINCT seq)" + of), static_cast<std::int64_t>(a.seq) - 1);
  EXPECT_EQ(a.integer("SELECT count(*) FROM pg_replication_slots WHERE slot_name LIKE 'isthmus_link%'"), 1);
}

TEST(PostgresqlLinksTest, SeesThatASlotHasLostItsWal) {
  SiteDatabase a({{"max_slot_wal_keep_size", "1MB"},
                  {"wal_keep_size", "0"},
                  {"max_wal_size", "32MB"},
                  {"min_wal_size", "32MB"}});
  SiteDatabase b;
  const std::string slot = link(a, b);
  b.cluster().stop();
  const auto lost = [&] {
    a.cluster().sql("SELECT pg_switch_wal()");
    a.write_sets(1);
    a.cluster().sql("CHECKPOINT");
    return a.links->kept_slots()[b.site()].state == "lost";
  };
  ASSERT_TRUE(becomes(lost));
  b.cluster().start();
  failure([&] { b.links->check(); });  // its session has ended with the cluster
  const auto peer = b.links->connect(a.url());
  EXPECT_TRUE(peer->slot(slot).lost);
  EXPECT_TRUE(peer->slot(slot).exists);
  EXPECT_FALSE(peer->slot("isthmus_link_none").exists);
  // The site's own server makes its permanent slot anew.
  a.shared().open_feed()->begin();
  relink(a, b);
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] {
    return b.integer("SELECT coalesce(max(seq), 0) FROM isthmus.log WHERE origin = " +
                     std::to_string(a.lease)) == static_cast<std::int64_t>(a.seq);
  }));
  EXPECT_FALSE(peer->slot(slot).exists) << "dropped, as another one is in use";
}

TEST(PostgresqlLinksTest, GoesOnByItselfAndLetsGoWhileThePeerIsDown) {
  SiteDatabase a, b;
  link(a, b);
  a.write_sets(1);
  ASSERT_TRUE(becomes([&] { return b.rows_of(a) >= 1; }));
  a.cluster().stop("immediate");
  EXPECT_THAT(failure([&] { b.links->connect(a.url()); }), Not("nothing"));
  ASSERT_TRUE(becomes([&] { return !b.links->subscriptions().at(a.site()).applying; }));
  a.cluster().start();
  std::string why;
  a.shared().disconnect();
  ASSERT_TRUE(a.shared().connect(why)) << why;
  const std::int64_t before = b.rows_of(a);
  a.write_sets(3);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= before + 3; }));
  a.cluster().stop("immediate");
  b.links->drop_subscription(a.site());
  EXPECT_TRUE(b.links->subscriptions().empty());
  b.links->drop_subscription(a.site());
}

// ---- connecting ----

TEST(PostgresqlLinksTest, RefusesWhatIsNoPeerInOneClearLine) {
  SiteDatabase a;
  const TestDatabase empty, foreign, old, newer, unreplicated;
  foreign.sql("CREATE SCHEMA isthmus");
  old.sql(kSchemaVersion1);
  open_shared(newer.url());
  newer.sql("INSERT INTO isthmus.schema_version (version) VALUES (99)");
  const auto refusal = [&](const std::string& url) { return failure([&] { a.links->connect(url); }); };
  const std::string ours = std::to_string(kPostgresqlSchemaVersion);
  EXPECT_THAT(refusal(empty.url()), HasSubstr(empty.name() + ": there is no Isthmus in this database"));
  EXPECT_THAT(refusal(foreign.url()), HasSubstr("not ours"));
  EXPECT_THAT(refusal(old.url()), HasSubstr("version 1, ours " + ours + ": upgrade it first"));
  EXPECT_THAT(refusal(newer.url()), HasSubstr("version 99, ours " + ours + ": upgrade this site first"));
  EXPECT_THAT(refusal(shared_cluster().url("no_such_database")), HasSubstr("does not exist"));
  EXPECT_THAT(refusal("postgresql://127.0.0.1:1/db"), HasSubstr("postgresql://127.0.0.1:1/db"));
  const std::string role = "role_of_" + empty.name();
  open_shared(unreplicated.url());
  unreplicated.sql("CREATE ROLE " + role + " LOGIN; GRANT USAGE ON SCHEMA isthmus TO " + role +
                   "; GRANT SELECT ON ALL TABLES IN SCHEMA isthmus TO " + role);
  EXPECT_THAT(refusal(unreplicated.url(role)), HasSubstr("ALTER ROLE " + role + " REPLICATION"));
  unreplicated.sql("DROP OWNED BY " + role + "; DROP ROLE " + role);
  // A database that no feed has used.
  const TestDatabase idle;
  open_shared(idle.url());
  EXPECT_THAT(failure([&] { a.links->connect(idle.url())->create_slot(); }), HasSubstr("has not run yet"));
}

TEST(PostgresqlLinksTest, ShowsNoPassword) {
  SiteDatabase a, b;
  b.cluster().sql("CREATE ROLE linker LOGIN SUPERUSER PASSWORD 'right one'");
  ask_for_password(b.cluster(), "linker");
  const std::string port = std::to_string(b.cluster().port());
  const auto url = [&](const std::string& password) {
    return "postgresql://linker:" + password + "@127.0.0.1:" + port + "/postgres";
  };
  std::string line;
  ASSERT_TRUE(becomes([&] {
    line = failure([&] { a.links->connect(url("s3cret")); });
    return line != "nothing";
  }));
  EXPECT_THAT(line, HasSubstr("password authentication failed"));
  EXPECT_THAT(line, Not(HasSubstr("s3cret")));
  EXPECT_THAT(failure([&] { a.links->connect("postgresql://linker:s3cret%@127.0.0.1/db"); }),
              Not(HasSubstr("s3cret")));
  PeerRow peer = b.as_peer();
  peer.conninfo = url("s3cret");
  line = failure([&] { a.links->create_subscription(peer, "slot"); });
  EXPECT_THAT(line, HasSubstr("password authentication failed"));
  EXPECT_THAT(line, Not(HasSubstr("s3cret")));
  const auto right = a.links->connect(url("right%20one"));
  peer.conninfo = url("right%20one");
  a.links->create_subscription(peer, right->create_slot());
  b.write_sets(1);
  EXPECT_TRUE(becomes([&] { return a.rows_of(b) >= 1; }));
}

/// What an administrator does with it in psql.
void install_admin_sql(PostgresCluster& cluster, const std::string& role) {
  std::string sql;
  std::istringstream lines{std::string(postgresql_admin_sql())};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("\\")) continue;
    constexpr std::string_view kVariable = ":\"role\"";
    const std::size_t at = line.find(kVariable);
    if (at != std::string::npos) line.replace(at, kVariable.size(), role);
    sql += line + "\n";
  }
  cluster.sql(sql);
}

// As a function of an administrator lets it before PostgreSQL 16, and membership in a role from then on.
TEST(PostgresqlLinksTest, NeedsNoSuperuser) {
  SiteDatabase a, b;
  for (SiteDatabase* site : {&a, &b}) {
    // Owns what postgres owns, and is no superuser.
    site->cluster().sql("CREATE ROLE linker LOGIN REPLICATION PASSWORD 'secret'; GRANT postgres TO linker");
  }
  const bool new_enough = b.integer("SHOW server_version_num") >= 160000;
  const std::unique_ptr<Links> links = open_postgresql_links(b.cluster().url("postgres", "linker"), b.site());
  EXPECT_THAT(links->check(), ElementsAre(HasSubstr(new_enough ? "GRANT pg_create_subscription TO linker"
                                                               : "isthmus --print-admin-sql | psql")));
  if (new_enough) {
    b.cluster().sql("GRANT pg_create_subscription TO linker");
  } else {
    install_admin_sql(b.cluster(), "linker");
    install_admin_sql(b.cluster(), "linker");
  }
  EXPECT_THAT(links->check(), IsEmpty());
  ask_for_password(a.cluster(), "linker");
  PeerRow peer = a.as_peer();
  peer.conninfo = a.cluster().url("postgres", "linker");
  const std::string slot = links->connect(a.url())->create_slot();
  EXPECT_THAT(failure([&] { links->create_subscription(peer, slot); }), HasSubstr("password"));
  peer.conninfo.replace(peer.conninfo.find('@'), 1, ":secret@");
  links->create_subscription(peer, slot);
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 1; }));
  EXPECT_EQ(b.cluster().value("SELECT rolname || rolsuper FROM pg_roles, pg_subscription WHERE subowner = "
                              "pg_roles.oid"),
            "linkerfalse");
  peer.conninfo += "?keepalives_count=5";
  links->update_subscription(peer, false);
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 2; }));
  links->drop_subscription(a.site());
  EXPECT_TRUE(links->subscriptions().empty());
}

TEST(PostgresqlLinksTest, MakesOnlyItsOwnSubscriptionsForOthers) {
  SiteDatabase a;
  a.cluster().sql("CREATE ROLE linker LOGIN; CREATE ROLE other LOGIN");
  install_admin_sql(a.cluster(), "linker");
  const auto refusal = [&](const std::string& role, const std::string& name, const std::string& connection) {
    try {
      a.cluster().sql("SELECT isthmus_admin.create_subscription('" + name + "', $$" + connection +
                          "$$, 'isthmus_link_1_2')",
                      "postgres", role);
    } catch (const std::runtime_error& error) {
      return std::string(error.what());
    }
    return std::string("none");
  };
  const std::string whole = "host='h' password='x'";
  EXPECT_THAT(refusal("linker", "mine", whole), HasSubstr("only for the links"));
  EXPECT_THAT(refusal("linker", "isthmus_link_1", "host='h'"), HasSubstr("must hold a password"));
  EXPECT_THAT(refusal("other", "isthmus_link_1", whole), HasSubstr("permission denied"));
}

TEST(PostgresqlLinksTest, CompletesConnectionStrings) {
  const std::string whole = link_conninfo("postgresql://u:p%27w@h:5/d?keepalives_idle=9");
  EXPECT_THAT(whole, HasSubstr("password='p\\'w'"));
  EXPECT_THAT(whole, HasSubstr("keepalives_idle='9'"));
  EXPECT_THAT(whole, HasSubstr("tcp_user_timeout='4000'"));
  EXPECT_THAT(whole, HasSubstr("options='-c wal_sender_timeout=60s -c tcp_user_timeout=4000"));
  EXPECT_THAT(link_conninfo("host=h options='-c statement_timeout=0'"), Not(HasSubstr("wal_sender")));
  // Of several hosts the one that takes writes is meant.
  EXPECT_THAT(whole, Not(HasSubstr("target_session_attrs")));
  EXPECT_THAT(link_conninfo("postgresql://u@h1:1,h2:2/d"), HasSubstr("target_session_attrs='read-write'"));
  EXPECT_THAT(link_conninfo("host=h1,h2 target_session_attrs=any"),
              AllOf(HasSubstr("target_session_attrs='any'"), Not(HasSubstr("read-write"))));
}

TEST(PostgresqlLinksTest, ChangesAConnectionOnlyWhenItMust) {
  SiteDatabase a, b;
  link(a, b);
  PeerRow peer = a.as_peer();
  const auto version = [&] { return b.cluster().value("SELECT xmin FROM pg_subscription"); };
  const std::string before = version();
  b.links->update_subscription(peer, false);
  EXPECT_EQ(version(), before);
  b.cluster().sql("ALTER SUBSCRIPTION isthmus_link_" + site_hex(a.site()) + " DISABLE");
  peer.conninfo = "host=127.0.0.1 user=postgres dbname=postgres port=" + std::to_string(a.cluster().port());
  b.links->update_subscription(peer, false);
  EXPECT_THAT(b.cluster().value("SELECT subconninfo FROM pg_subscription"), HasSubstr("host='127.0.0.1'"));
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 1; }));
}

TEST(PostgresqlLinksTest, FlushesLessOftenWhileFarBehind) {
  SiteDatabase a, b;
  link(a, b);
  const auto commit = [&] { return b.cluster().value("SELECT subsynccommit FROM pg_subscription"); };
  EXPECT_EQ(commit(), "on");
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 1; }));
  const auto worker = [&] {
    return b.cluster().value("SELECT pid FROM pg_stat_subscription WHERE pid IS NOT NULL");
  };
  const std::string before = worker();
  b.links->update_subscription(a.as_peer(), true);
  EXPECT_EQ(commit(), "off");
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 2; }));
  b.links->update_subscription(a.as_peer(), false);
  EXPECT_EQ(commit(), "on");
  a.write_sets(1);
  EXPECT_TRUE(becomes([&] { return b.rows_of(a) >= 3; }));
  EXPECT_EQ(worker(), before) << "the link was not broken for it";
}

// ---- this site's side ----

TEST(PostgresqlLinksTest, AppendsOnlyUnderTheLease) {
  SiteDatabase a;
  Row row = make_row(4, RowKind::set, "k", "", "v");
  row.site = 99;
  row.copied = true;
  a.links->append(make_batch({row}), a.lease);
  EXPECT_THAT(failure([&] { a.links->append(make_batch({row}), a.lease + 1); }),
              HasSubstr("taken the lease"));
  EXPECT_EQ(a.integer("SELECT count(*) FROM isthmus.log WHERE copied AND site = 99"), 1);
  EXPECT_EQ(a.links->reaches()[kOrigin].last, 4U) << "the session goes on";
  EXPECT_EQ(a.links->reaches()[kOrigin].site, 0) << "an origin of copied rows is nobody's";
}

TEST(PostgresqlLinksTest, RemembersItsPeersAndItsName) {
  SiteDatabase a, b;
  EXPECT_TRUE(a.links->peers().empty());
  PeerRow peer = b.as_peer();
  peer.slot = "slot";
  peer.state = "down";
  peer.detail = "it's away";
  peer.since_ms = 1'700'000'000'123;
  peer.clock_offset_ms = -4;
  peer.lag_ms = 5;
  peer.lag_rows = 6;
  peer.slot_bytes = 7;
  peer.slot_state = "reserved";
  a.links->put_peer(peer);
  peer.lag_rows = 8;
  a.links->put_peer(peer);
  for (const auto& peers : {a.links->peers(), a.shared().upkeep({1, "here:1", "test", 0, false}, 0).peers}) {
    ASSERT_EQ(peers.size(), 1U);
    EXPECT_EQ(peers[0].conninfo, b.url());
    EXPECT_EQ(peers[0].detail, "it's away");
    EXPECT_EQ(peers[0].since_ms, 1'700'000'000'123);
    EXPECT_EQ(peers[0].clock_offset_ms, -4);
    EXPECT_EQ(peers[0].lag_rows, 8U);
    EXPECT_EQ(peers[0].slot_state, "reserved");
  }
  a.links->name_site("north");
  a.links->name_site("north");
  EXPECT_THAT(failure([&] { a.links->name_site("south"); }), HasSubstr("site 'north' and not of 'south'"));
  EXPECT_EQ(open_shared(a.url())->shared()->site_name(), "north");
  EXPECT_EQ(b.links->connect(a.url())->name(), "north");
  link(a, b);
  link(b, a);
  a.cluster().sql("INSERT INTO isthmus.frontier VALUES (" + std::to_string(b.site()) + ", 1, 2), (1, 2, 3)");
  ASSERT_TRUE(becomes([&] { return a.links->kept_slots()[b.site()].active; }));
  a.links->forget_peer(peer);
  EXPECT_TRUE(a.links->peers().empty());
  EXPECT_TRUE(a.links->subscriptions().empty());
  EXPECT_TRUE(a.links->kept_slots().empty()) << "although it was in use";
  EXPECT_EQ(a.integer("SELECT count(*) FROM isthmus.frontier"), 1);
}

// Nor does who still works for a peer bring it back.
TEST(PostgresqlLinksTest, WritesNothingOfAPeerThatIsNotThisOne) {
  SiteDatabase a;
  const auto rows = [&] {
    return a.cluster().sql("SELECT name, id, conninfo, slot, state FROM isthmus.peer ORDER BY name");
  };
  PeerRow peer;
  peer.name = "b";
  peer.conninfo = "host=new";
  peer.state = "new";
  EXPECT_FALSE(a.links->update_peer(peer));
  a.links->put_peer(peer);
  peer.id = 7;
  peer.slot = "slot";
  peer.state = "up";
  EXPECT_TRUE(a.links->update_peer(peer));
  PeerRow other = peer;
  other.state = "down";
  other.conninfo = "host=old";
  EXPECT_FALSE(a.links->update_peer(other));
  other.conninfo = peer.conninfo;
  other.id = 8;
  EXPECT_FALSE(a.links->update_peer(other));
  EXPECT_THAT(rows(), ElementsAre("b|7|host=new|slot|up"));
  PeerRow lost = peer;
  lost.name = "c";
  lost.id = 9;
  a.links->put_peer(lost);
  a.links->expel_peer(lost);
  EXPECT_THAT(rows(), ElementsAre("b|7|host=new||up", "c|9|host=new|slot|up"));
  EXPECT_TRUE(a.links->update_peer(lost)) << "it may come back";
  a.links->forget_peer(lost);
  EXPECT_FALSE(a.links->update_peer(lost));
  EXPECT_THAT(rows(), ElementsAre("b|7|host=new||up"));
}

TEST(PostgresqlLinksTest, NamesWhatKeepsPostgresqlFromLinking) {
  const TestDatabase database;
  const std::string role = "role_of_" + database.name();
  database.sql("CREATE ROLE " + role + " LOGIN REPLICATION; GRANT CREATE ON DATABASE " + database.name() +
               " TO " + role);
  const auto limited = open_shared(database.url(role))->shared()->open_links()->check();
  EXPECT_THAT(limited, testing::Contains(HasSubstr("the role " + role + " may not create subscriptions")));
  database.sql("DROP OWNED BY " + role + " CASCADE; DROP ROLE " + role);
  SiteDatabase a;
  EXPECT_THAT(a.links->check(), IsEmpty());
  a.cluster().configure({{"max_logical_replication_workers", "0"},
                         {"max_replication_slots", "1"},
                         {"max_slot_wal_keep_size", "-1"},
                         {"wal_retrieve_retry_interval", "5s"}});
  a.cluster().restart();
  failure([&] { a.links->check(); });  // the session has ended
  EXPECT_THAT(
      a.links->check(),
      ElementsAre(HasSubstr("max_logical_replication_workers = 0"), HasSubstr("max_replication_slots = 1"),
                  HasSubstr("max_slot_wal_keep_size = -1"), HasSubstr("wal_retrieve_retry_interval")));
}

}  // namespace
}  // namespace isthmus::backend::test
