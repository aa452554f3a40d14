// Appending to the log in PostgreSQL, the lease that guards it, and what is known after a session broke.
#include "backend/postgresql_log.hpp"

#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresCluster;
using isthmus::test::PostgresSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using namespace std::chrono_literals;

constexpr auto kPatience = 30s;

std::string all_bytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

/// Asks until `condition` holds.
template <typename Condition>
::testing::AssertionResult becomes(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return ::testing::AssertionFailure() << "not in 30 s";
    std::this_thread::sleep_for(5ms);
  }
  return ::testing::AssertionSuccess();
}

/// The kind and text of the AppendError that `body` throws.
template <typename Body>
std::string failure(const Body& body) {
  try {
    body();
  } catch (const AppendError& error) {
    return (error.kind == AppendError::Kind::rejected ? "rejected " : "unavailable ") +
           std::string(error.what());
  }
  return "nothing";
}

class PostgresqlLogTest : public ::testing::Test {
 protected:
  explicit PostgresqlLogTest(std::chrono::seconds retention = 600s)
      : log_(open_connected(database_.url(), retention)) {}
  SharedLog& shared() const { return *log_->shared(); }
  void append(const std::vector<Row>& rows) const { log_->append(make_batch(rows)); }
  /// Ends the session of this name from outside.
  void terminate(const std::string& name) const {
    database_.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '" + name +
                  "' AND datname = current_database()");
  }
  bool connect() const {
    std::string why;
    return shared().connect(why);
  }

  TestDatabase database_;
  std::unique_ptr<Log> log_;
};

TEST_F(PostgresqlLogTest, KeepsEveryColumn) {
  Row row = make_row(3, RowKind::set, "k", "", "v");
  row.version = 5;
  row.db = 15;
  row.group_end = false;
  row.expire_at = -1;
  row.event = "set,expire";
  row.requester = 17;
  row.request = 4;
  row.reply = "+OK\r\n";
  Row message = make_row(1, RowKind::publish, "channel", "", "hello");
  message.origin = 2000;
  message.sent_at = 1234;
  Row count = make_row(6, RowKind::hincr, "h", "f", "10");
  count.count = {2, 8, 1001, -5};
  Row elsewhere = make_row(7, RowKind::incr, "nothing");
  elsewhere.site = 8;
  elsewhere.copied = true;
  append(
      {row, message, make_row(4, RowKind::hset, "h", "", ""), make_row(5, RowKind::flush), count, elsewhere});
  EXPECT_THAT(
      database_.sql(
          "SELECT site, origin, seq, version, db, kind, group_end, key, field, expire_at, sent_at, event, "
          "requester, request, reply, copied, base_version, base_site, counter, total, value FROM "
          "isthmus.log "
          "ORDER BY ctid"),
      ElementsAre("7|1000|3|5|15|set|f|\\x6b||-1||set,expire|17|4|\\x2b4f4b0d0a|f|||||\\x76",
                  "7|2000|1|1|0|publish|t|\\x6368616e6e656c|||1234|||||f|||||\\x68656c6c6f",
                  "7|1000|4|4|0|hset|t|\\x68|\\x|||||||f|||||\\x", "7|1000|5|5|0|flush|t|||||||||f|||||",
                  "7|1000|6|6|0|hincr|t|\\x68|\\x66|||||||f|2|8|1001|-5|\\x3130",
                  "8|1000|7|7|0|incr|t|\\x6e6f7468696e67||||||||t|0|0|0|0|"));
  const std::vector<OwnedRow> rows = database_.load().rows;
  ASSERT_EQ(rows.size(), 6U);
  EXPECT_EQ(rows[3].row.count.total, -5);
  EXPECT_EQ(rows[3].row.count.base_version, 2U);
  EXPECT_EQ(rows[3].value, "10");
  EXPECT_TRUE(rows[4].row.copied);
  EXPECT_FALSE(rows[3].row.copied);
  EXPECT_EQ(database_.integer(
                "SELECT count(*) FROM isthmus.log WHERE kind = 'flush' AND key IS NULL AND value IS NULL"),
            1);
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log_default"), 0);
}

// Few rows go in by an INSERT, many by COPY.
TEST_F(PostgresqlLogTest, WritesFewRowsAsItWritesMany) {
  std::vector<Row> rows = test::changes_of_all_kinds();
  append(rows);
  for (Row& row : rows) row.origin = 2000;
  for (std::size_t at = 0, count = 1; at < rows.size(); at += count, count = count % 3 + 1)
    append({rows.begin() + static_cast<std::ptrdiff_t>(at),
            rows.begin() + static_cast<std::ptrdiff_t>(std::min(at + count, rows.size()))});
  const auto of = [&](int origin) {
    return database_.sql(
        "SELECT site, seq, version, db, kind, group_end, key, field, expire_at, sent_at, event, requester, "
        "request, reply, copied, base_version, base_site, counter, total, value FROM isthmus.log WHERE "
        "origin = " +
        std::to_string(origin) + " ORDER BY seq");
  };
  EXPECT_EQ(of(1000).size(), rows.size());
  EXPECT_EQ(of(2000), of(1000));
  EXPECT_EQ(database_.integer("SELECT count(DISTINCT xmin::text) FROM isthmus.log WHERE origin = 2000"), 8)
      << "a transaction for each append";
}

/// Partitions of hours, so that no test meets the edge between two.
class PostgresqlPlaceTest : public PostgresqlLogTest {
 protected:
  PostgresqlPlaceTest() : PostgresqlLogTest(24h) {}
};

TEST_F(PostgresqlPlaceTest, FindsAnotherWhenThePartitionOfTheTimeTakesNoMore) {
  append({make_row(1, RowKind::set, "k")});
  const std::string partition = database_.value("SELECT tableoid::regclass FROM isthmus.log");
  EXPECT_NE(partition, "isthmus.log_default");
  database_.sql("BEGIN; ALTER TABLE isthmus.log DETACH PARTITION " + partition +
                "; ALTER TABLE isthmus.log ATTACH PARTITION " + partition +
                " FOR VALUES FROM ('2020-01-01') TO (now() + interval '1 microsecond'); COMMIT");
  append({make_row(2, RowKind::set, "k")});
  append({make_row(3, RowKind::set, "k")});
  EXPECT_THAT(database_.sql("SELECT seq, tableoid::regclass FROM isthmus.log ORDER BY seq"),
              ElementsAre("1|" + partition, "2|isthmus.log_default", "3|isthmus.log_default"));
}

TEST_F(PostgresqlPlaceTest, FindsAnotherWhenThePartitionOfTheTimeIsGone) {
  append({make_row(1, RowKind::set, "k")});
  database_.sql("DROP TABLE " + database_.value("SELECT tableoid::regclass FROM isthmus.log"));
  append({make_row(2, RowKind::set, "k")});
  EXPECT_THAT(database_.sql("SELECT seq, tableoid::regclass FROM isthmus.log"),
              ElementsAre("2|isthmus.log_default"));
}

TEST_F(PostgresqlLogTest, KeepsEveryByte) {
  const std::string bytes = all_bytes();
  append({make_row(1, RowKind::hset, bytes, bytes, bytes)});
  const Recorder got = database_.load();
  ASSERT_EQ(got.rows.size(), 1U);
  EXPECT_EQ(got.rows[0].key, bytes);
  EXPECT_EQ(got.rows[0].field, bytes);
  EXPECT_EQ(got.rows[0].value, bytes);
}

TEST_F(PostgresqlLogTest, TakesABatchOfManyPieces) {
  RowBatch batch;
  const std::string value(1'000'000, 'v');
  for (Seq seq = 1; seq <= 20; ++seq) batch.append(make_row(seq, RowKind::set, "k", "", value));
  log_->append(batch);
  EXPECT_EQ(database_.integer("SELECT sum(length(value)) FROM isthmus.log"), 20'000'000);
}

TEST_F(PostgresqlLogTest, DeletesWhatItStampedInTheSameTransaction) {
  database_.sql("SELECT isthmus.publish('c', 'm' || i) FROM generate_series(1, 3) i");
  shared().append(make_batch({make_row(1, RowKind::publish, "c", "", "m1")}), {1, 2});
  EXPECT_THAT(database_.sql("SELECT id FROM isthmus.inbox"), ElementsAre("3"));
  shared().append({}, {3});
  EXPECT_THAT(database_.sql("SELECT id FROM isthmus.inbox"), IsEmpty());
  EXPECT_EQ(database_.integer("SELECT count(DISTINCT xmin::text) FROM isthmus.log"), 1);
}

TEST_F(PostgresqlLogTest, RejectsWhatSqlCannotHold) {
  Row row = make_row(1, RowKind::set, "k", "", "v");
  row.version = std::uint64_t{1} << 63U;
  EXPECT_THAT(failure([&] { append({row}); }), HasSubstr("rejected"));
  Row event = make_row(1, RowKind::set, "k", "", "v");
  event.event = "\xff";
  database_.sql("SELECT isthmus.publish('c', 'm')");
  EXPECT_THAT(failure([&] { shared().append(make_batch({event}), {1}); }), HasSubstr("rejected"));
  EXPECT_TRUE(shared().connected()) << "the session is as good as before";
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log"), 0);
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.inbox"), 1)
      << "all of the transaction is taken back";
  append({make_row(1, RowKind::set, "k", "", "v")});
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log"), 1);
}

TEST_F(PostgresqlLogTest, IsUnavailableWhileSomebodyElseIsInTheWay) {
  ASSERT_TRUE(shared().try_lock());
  PostgresSession other(database_.url());
  other.sql("BEGIN; LOCK TABLE isthmus.log IN ACCESS EXCLUSIVE MODE");
  EXPECT_THAT(failure([&] { append({make_row(1, RowKind::set, "k", "", "v")}); }), HasSubstr("unavailable"));
  EXPECT_TRUE(shared().connected()) << "which costs no lease";
  other.sql("COMMIT");
  append({make_row(1, RowKind::set, "k", "", "v")});
}

TEST_F(PostgresqlLogTest, IsUnavailableWithoutASession) {
  shared().disconnect();
  EXPECT_FALSE(shared().connected());
  EXPECT_THAT(failure([&] { append({make_row(1, RowKind::set, "k", "", "v")}); }), HasSubstr("unavailable"));
  EXPECT_TRUE(connect());
  append({make_row(1, RowKind::set, "k", "", "v")});
}

TEST_F(PostgresqlLogTest, GivesTheLockToOneSession) {
  const auto other = open_connected(database_.url());
  EXPECT_TRUE(shared().try_lock());
  EXPECT_TRUE(shared().try_lock()) << "it has it already";
  EXPECT_FALSE(other->shared()->try_lock());
  shared().disconnect();
  EXPECT_TRUE(becomes([&] { return other->shared()->try_lock(); })) << "after asking for it twice";
  ASSERT_TRUE(connect());
  EXPECT_FALSE(shared().try_lock()) << "a new session is a new lease";
}

TEST_F(PostgresqlLogTest, HandsTheLockOverWhenItsSessionDies) {
  const auto other = open_connected(database_.url());
  ASSERT_TRUE(shared().try_lock());
  terminate("isthmus commit");
  std::string why;
  EXPECT_THAT(failure([&] { shared().beat(1); }), HasSubstr("unavailable"));
  EXPECT_FALSE(shared().connected());
  other->shared()->disconnect();
  ASSERT_TRUE(other->shared()->connect(why)) << why;
  EXPECT_TRUE(becomes([&] { return other->shared()->try_lock(); }));
}

TEST_F(PostgresqlLogTest, WritesTheLeaseWithItsRow) {
  ASSERT_TRUE(shared().try_lock());
  EXPECT_EQ(shared().newest_lease().lease, 0) << "nobody has had it";
  append({lease_row(500, 17, "host'1:6379"), make_row(1, RowKind::set, "k", "", "v")});
  const LeaseRow lease = shared().newest_lease();
  EXPECT_EQ(lease.lease, 500);
  EXPECT_EQ(lease.server, 17);
  EXPECT_EQ(lease.address, "host'1:6379");
  EXPECT_THAT(database_.sql("SELECT kind, requester, convert_from(key, 'UTF8'), convert_from(value, 'UTF8') "
                            "FROM isthmus.log WHERE origin = 500"),
              ElementsAre("lease|17|host'1:6379|0:0"));
  database_.sql("UPDATE isthmus.lease SET beat = now() - interval '1 hour'");
  shared().beat(499);
  EXPECT_EQ(database_.value("SELECT beat < now() - interval '1 minute' FROM isthmus.lease"), "t")
      << "of another lease";
  shared().beat(500);
  EXPECT_EQ(database_.value("SELECT beat > now() - interval '1 minute' FROM isthmus.lease"), "t");
}

TEST_F(PostgresqlLogTest, TakesTheLastLeaseOfABatchOnly) {
  database_.sql(
      "CREATE TABLE taken (id bigint); CREATE FUNCTION note_lease() RETURNS trigger LANGUAGE plpgsql AS "
      "'BEGIN INSERT INTO public.taken VALUES (NEW.id); RETURN NULL; END'; CREATE TRIGGER note AFTER UPDATE "
      "ON isthmus.lease FOR EACH ROW EXECUTE FUNCTION note_lease()");
  ASSERT_TRUE(shared().try_lock());
  append({lease_row(500, 17, "a:1"), make_row(1, RowKind::set, "k", "", "v"), lease_row(501, 18, "b:2")});
  EXPECT_EQ(shared().newest_lease().lease, 501);
  EXPECT_EQ(shared().newest_lease().address, "b:2");
  EXPECT_THAT(database_.sql("SELECT id FROM taken"), ElementsAre("501"));
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log WHERE kind = 'lease'"), 2);
}

TEST_F(PostgresqlLogTest, KeepsTheMarkOfTheCheckpoint) {
  Row elsewhere = make_row(4, RowKind::set, "k", "", "v");
  elsewhere.site = 8;
  elsewhere.origin = 77;
  Row reach = make_row(2, RowKind::reach, "", "", "78=9 79=1");
  reach.site = 9;
  reach.origin = 80;
  reach.copied = true;
  append({make_row(1, RowKind::set, "k", "", "v"), reach, elsewhere});
  log_->put_mark({{{kOrigin, 2}, {77, 4}, {78, 9}, {5, 5}, {80, 2}},
                  {{0, 10, 7}, {3, 11, 8}},
                  {{7, 8, 100}, {8, 7, 90}}});
  EXPECT_THAT(database_.sql("SELECT origin, seq, site FROM isthmus.progress ORDER BY 1"),
              ElementsAre("5|5|0", "77|4|8", "78|9|9", "80|2|0", "1000|2|7"))
      << "a copy may have rows of several sites";
  log_->put_mark({{{kOrigin, 2}}, {{3, 12, 8}}, {{7, 8, 99}, {8, 7, 91}}});
  EXPECT_THAT(database_.sql("SELECT * FROM isthmus.flush"), ElementsAre("3|12|8")) << "replaced";
  EXPECT_THAT(database_.sql("SELECT * FROM isthmus.frontier ORDER BY 1"), ElementsAre("7|8|100", "8|7|91"))
      << "only higher ones";
  struct Sink : Recorder {
    void covered(OriginId origin, Seq /*seq*/, SiteId site) override { sites[origin] = site; }
    void flushed(const StoredFlush& flush) override { flushes.push_back(flush); }
    void frontier(const StoredFrontier& frontier) override { frontiers.push_back(frontier); }
    std::map<OriginId, SiteId> sites;
    std::vector<StoredFlush> flushes;
    std::vector<StoredFrontier> frontiers;
  } sink;
  PgConnection connection(database_.url());
  FeedReads(connection).read_state(sink);
  EXPECT_EQ(sink.sites, (std::map<OriginId, SiteId>{{5, 0}, {77, 8}, {78, 9}, {80, 0}, {kOrigin, 7}}));
  ASSERT_EQ(sink.flushes.size(), 1U);
  EXPECT_EQ(sink.flushes[0].version, 12U);
  EXPECT_EQ(sink.frontiers.size(), 2U);
}

TEST_F(PostgresqlLogTest, RemembersTheOriginsOfPeersForThirtyDays) {
  append({lease_row(500, 17, "here:1")});
  database_.sql(
      "INSERT INTO isthmus.progress (origin, seq, site, updated_at) SELECT site * 100 + days, 1, site, "
      "now() - make_interval(days => days::integer) FROM (VALUES (0), (7), (8), (9)) AS s (site), "
      "(VALUES (3), (31)) AS d (days)");
  const std::string left = "SELECT origin FROM isthmus.progress ORDER BY 1";
  database_.sql("INSERT INTO isthmus.peer (name, id, conninfo) VALUES ('eight', 8, '')");
  shared().upkeep({17, "here:1", "test", 0, true}, 500);
  EXPECT_THAT(database_.sql(left), ElementsAre("3", "803"));
  database_.sql("DELETE FROM isthmus.peer");
  open_shared(database_.url())->shared()->upkeep({17, "here:1", "test", 0, true}, 500);
  EXPECT_THAT(database_.sql(left), ElementsAre());
}

TEST_F(PostgresqlLogTest, KnowsTheLastSeqOfAnOrigin) {
  EXPECT_EQ(shared().last_seq(kOrigin), 0U);
  append({make_row(1, RowKind::set, "k", "", "v"), make_row(2, RowKind::set, "k", "", "v")});
  EXPECT_EQ(shared().last_seq(kOrigin), 2U);
  log_->finish_checkpoint({{kOrigin, 2}, {77, 5}});
  database_.sql("DELETE FROM isthmus.log");
  EXPECT_EQ(shared().last_seq(kOrigin), 2U) << "from the checkpoint";
  EXPECT_EQ(shared().last_seq(77), 5U);
  append({make_row(3, RowKind::set, "k", "", "v")});
  EXPECT_EQ(shared().last_seq(kOrigin), 3U);
}

/// Ends the committing session in the middle of many commits: the log tells what became of the last one.
TEST_F(PostgresqlLogTest, TellsWhetherAnUnknownBatchIsInTheLog) {
  Seq acknowledged = 0;
  for (int round = 0; round < 12; ++round) {
    ASSERT_TRUE(becomes([&] { return connect() && shared().try_lock(); }));
    std::thread killer([&] {
      std::this_thread::sleep_for(std::chrono::milliseconds(5 + round * 3));
      terminate("isthmus commit");
    });
    Seq attempted = acknowledged;
    try {
      for (;;) {
        RowBatch batch;
        for (int i = 0; i < 50; ++i)
          batch.append(make_row(++attempted, RowKind::set, "k", "", std::string(2000, 'v')));
        log_->append(batch);
        acknowledged = attempted;
      }
    } catch (const AppendError& error) {
      EXPECT_EQ(error.kind, AppendError::Kind::unavailable) << error.what();
    }
    killer.join();
    ASSERT_FALSE(shared().connected());
    ASSERT_TRUE(becomes([&] { return connect() && shared().try_lock(); }));
    const Seq last = shared().last_seq(kOrigin);
    EXPECT_TRUE(last == acknowledged || last == attempted)
        << last << " is neither " << acknowledged << " nor " << attempted;
    EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log"), static_cast<std::int64_t>(last));
    acknowledged = last;
  }
}

TEST(PostgresqlOutageTest, HealsWhenPostgresqlComesBack) {
  PostgresCluster cluster;
  const auto log = open_connected(cluster.url());
  SharedLog& shared = *log->shared();
  ASSERT_TRUE(shared.try_lock());
  log->append(make_batch({lease_row(500, 1, "a:1")}));
  cluster.kill();
  EXPECT_THAT(failure([&] { log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")})); }),
              HasSubstr("unavailable"));
  std::string why;
  EXPECT_FALSE(shared.connect(why));
  EXPECT_THAT(why, HasSubstr("postgresql://127.0.0.1:"));
  EXPECT_THAT(failure([&] { shared.upkeep({1, "a:1", "v", 0, true}, 500); }), HasSubstr("unavailable"));
  cluster.start();
  ASSERT_TRUE(shared.connect(why)) << why;
  ASSERT_TRUE(shared.try_lock());
  EXPECT_EQ(shared.newest_lease().lease, 500) << "what was acknowledged is there";
  log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  EXPECT_EQ(shared.upkeep({1, "a:1", "v", 0, true}, 500).servers.size(), 1U);
}

// ---- upkeep ----

TEST_F(PostgresqlLogTest, RegistersServersAndMeasures) {
  const auto other = open_connected(database_.url());
  shared().upkeep({1, "one:1", "0.1", 0, true}, 0);
  const UpkeepReport report = other->shared()->upkeep({2, "two:2", "0.2", 0, false}, 0);
  ASSERT_EQ(report.servers.size(), 2U);
  EXPECT_EQ(report.servers[0].address, "one:1");
  EXPECT_TRUE(report.servers[0].writer);
  EXPECT_EQ(report.servers[1].id, 2);
  EXPECT_EQ(report.servers[1].version, "0.2");
  EXPECT_FALSE(report.servers[1].writer);
  EXPECT_LT(std::abs(report.clock_offset_ms), 1000) << "the same machine";
  EXPECT_GT(report.disk_bytes, 0U);
  EXPECT_EQ(other->disk_bytes(), report.disk_bytes);
  shared().sign_off(1);
  EXPECT_EQ(other->shared()->upkeep({2, "two:2", "0.2", 0, false}, 0).servers.size(), 1U);
}

TEST_F(PostgresqlLogTest, EndsAHolderThatIsSilentAndNoOther) {
  const auto candidate = open_connected(database_.url());
  ASSERT_TRUE(shared().try_lock());
  append({lease_row(500, 1, "a:1")});
  const ServerRow self{2, "b:2", "v", 0, false};
  const auto begin = std::chrono::steady_clock::now();
  auto silent = begin;  // from its last beat on
  while (std::chrono::steady_clock::now() - begin < 4s) {
    silent = std::chrono::steady_clock::now();
    shared().beat(500);
    candidate->shared()->upkeep(self, 0);
    ASSERT_FALSE(candidate->shared()->try_lock()) << "while it beats";
    std::this_thread::sleep_for(100ms);
  }
  EXPECT_TRUE(becomes([&] {
    candidate->shared()->upkeep(self, 0);
    return candidate->shared()->try_lock();
  }));
  const auto took = std::chrono::steady_clock::now() - silent;
  EXPECT_GT(took, 2800ms);
  EXPECT_LT(took, 20s);
  EXPECT_THAT(failure([&] { append({make_row(1, RowKind::set, "k", "", "v")}); }), HasSubstr("unavailable"));
}

TEST_F(PostgresqlLogTest, GivesANewHolderTheTimeForItsFirstBeat) {
  const auto candidate = open_connected(database_.url());
  const ServerRow self{2, "b:2", "v", 0, false};
  ASSERT_TRUE(shared().try_lock());
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(becomes([&] {
    candidate->shared()->upkeep(self, 0);
    return candidate->shared()->try_lock();
  })) << "it never wrote a lease row";
  EXPECT_GT(std::chrono::steady_clock::now() - begin, 2900ms);
}

TEST_F(PostgresqlLogTest, AdvancesThePermanentSlot) {
  char name[40];
  std::snprintf(name, sizeof name, "isthmus_%llx", static_cast<unsigned long long>(log_->site()));
  database_.sql(std::string("SELECT pg_create_logical_replication_slot('") + name + "', 'pgoutput')");
  append({lease_row(500, 1, "a:1"), make_row(1, RowKind::set, "k", "", std::string(100'000, 'v'))});
  EXPECT_TRUE(becomes([&] {
    shared().upkeep({1, "a:1", "v", 0, true}, 500);
    return database_.value(
               std::string("SELECT confirmed_flush_lsn > (SELECT pg_current_wal_lsn() - 50000::numeric) "
                           "FROM pg_replication_slots WHERE slot_name = '") +
               name + "'") == "t";
  }));
  database_.sql(std::string("SELECT pg_drop_replication_slot('") + name + "')");
}

// ---- cutting the log ----

/// A retention whose partitions are the shortest there are, and rows that look older than it.
class PostgresqlCutTest : public PostgresqlLogTest {
 protected:
  void SetUp() override {
    database_.sql(
        "CREATE TABLE isthmus.log_old (LIKE isthmus.log INCLUDING DEFAULTS); "
        "ALTER TABLE isthmus.log ATTACH PARTITION isthmus.log_old FOR VALUES FROM ('2020-01-01') TO "
        "('2020-01-02')");
    for (Seq seq = 1; seq <= 3; ++seq) insert_old(kOrigin, seq, "set");
    insert_old(2000, 9, "publish");
    log_->append(make_batch({lease_row(500, 1, "a:1")}));
    shared().guard_checkpoint(500);
  }
  void insert_old(OriginId origin, Seq seq, const std::string& kind,
                  const std::string& when = "2020-01-01 12:00") const {
    database_.sql(
        "INSERT INTO isthmus.log (arrived, site, origin, seq, version, db, kind, group_end, key, value) "
        "VALUES ('" +
        when + "', 7, " + std::to_string(origin) + ", " + std::to_string(seq) + ", 1, 0, '" + kind +
        "', true, 'k', 'v')");
  }
  bool has_old_partition() const {
    return database_.value("SELECT to_regclass('isthmus.log_old') IS NOT NULL") == "t";
  }
  UpkeepReport upkeep() const { return shared().upkeep({1, "a:1", "v", 0, true}, 500); }
};

TEST_F(PostgresqlCutTest, DropsAPartitionThatIsOldAndCovered) {
  EXPECT_FALSE(log_->cut()) << "no checkpoint covers it";
  log_->finish_checkpoint({{kOrigin, 3}});
  EXPECT_TRUE(log_->cut());
  EXPECT_FALSE(has_old_partition());
  EXPECT_FALSE(log_->cut()) << "the others are young";
  EXPECT_THAT(database_.sql("SELECT origin, seq, cut FROM isthmus.progress ORDER BY origin"),
              ElementsAre("1000|3|3", "2000|9|9"));
  EXPECT_EQ(shared().last_seq(kOrigin), 3U);
}

TEST_F(PostgresqlCutTest, KeepsAPartitionWithRowsThatNoCheckpointCovers) {
  log_->finish_checkpoint({{kOrigin, 2}});
  EXPECT_FALSE(log_->cut());
  EXPECT_TRUE(has_old_partition());
  EXPECT_EQ(database_.integer("SELECT max(cut) FROM isthmus.progress"), 0);
}

TEST_F(PostgresqlCutTest, WaitsForNobodyWhoReadsTheLog) {
  log_->finish_checkpoint({{kOrigin, 3}});
  PostgresSession reader(database_.url());
  reader.sql("BEGIN; SELECT count(*) FROM isthmus.log");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_FALSE(log_->cut());
  EXPECT_FALSE(log_->cut());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 9s);
  append({make_row(4, RowKind::set, "k", "", "v")});
  EXPECT_TRUE(has_old_partition());
  reader.sql("COMMIT");
  EXPECT_TRUE(becomes([&] { return log_->cut(); })) << "it is tried again some seconds later";
  EXPECT_FALSE(has_old_partition());
}

TEST_F(PostgresqlCutTest, IsNotHeldUpByAForeignTransactionElsewhere) {
  log_->finish_checkpoint({{kOrigin, 3}});
  PostgresSession foreign(database_.url());
  foreign.sql("CREATE TABLE song (title text); BEGIN; INSERT INTO song VALUES ('x')");
  upkeep();
  EXPECT_FALSE(has_old_partition());
}

TEST_F(PostgresqlCutTest, CountsAndClearsTheDefaultPartition) {
  insert_old(kOrigin, 4, "set", "2021-01-01");
  insert_old(2000, 10, "publish", "2999-01-01");
  EXPECT_EQ(upkeep().default_partition_rows, 1U) << "a message of a time to come goes at once";
  log_->finish_checkpoint({{kOrigin, 3}});
  EXPECT_EQ(upkeep().default_partition_rows, 1U) << "a row that is not covered stays";
  log_->finish_checkpoint({{kOrigin, 4}});
  EXPECT_EQ(upkeep().default_partition_rows, 0U);
  EXPECT_THAT(
      database_.sql("SELECT origin, cut FROM isthmus.progress WHERE origin IN (1000, 2000) ORDER BY 1"),
      ElementsAre("1000|4", "2000|10"));
}

TEST_F(PostgresqlCutTest, ReadsWhatNoCheckpointCovers) {
  log_->finish_checkpoint({{kOrigin, 3}, {2000, 9}});
  append({make_row(5, RowKind::hset, "h", "f", "value"), make_row(4, RowKind::set, "k", "", "value")});
  struct Uncovered : Recorder {
    void covered(OriginId origin, Seq seq, SiteId /*site*/) override { vector[origin] = seq; }
    Vector vector;
  } uncovered;
  shared().read_uncovered(uncovered);
  EXPECT_EQ(uncovered.vector, (Vector{{kOrigin, 3}, {2000, 9}}));
  std::vector<std::string> lines;
  for (const OwnedRow& row : uncovered.rows) {
    lines.push_back(std::to_string(row.row.seq) + " " + row.key + " " + row.field + " " + row.value);
  }
  EXPECT_THAT(lines, ElementsAre("1 a:1  ", "4 k  ", "5 h f ")) << "per origin by seq, without values";
}

TEST_F(PostgresqlCutTest, RefusesTheCheckpointOfAnOlderLease) {
  const auto zombie = open_connected(database_.url());
  zombie->shared()->guard_checkpoint(500);
  StoredKey key;
  key.key = "k";
  zombie->write_checkpoint({{key}, {}});
  Row next = lease_row(501, 2, "b:2");
  next.origin = 501;
  append({next});
  EXPECT_THAT(failure([&] { zombie->write_checkpoint({{key}, {}}); }), HasSubstr("rejected"));
  EXPECT_THAT(failure([&] { zombie->finish_checkpoint({{kOrigin, 3}}); }), HasSubstr("rejected"));
  EXPECT_THAT(failure([&] { zombie->forget_flushed(0, 9, 9); }), HasSubstr("rejected"));
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.progress"), 0);
  shared().guard_checkpoint(501);
  log_->write_checkpoint({{key}, {}});
}

// The database may have come back without the pieces: their commits do not wait for the disk.
TEST_F(PostgresqlCutTest, MarksNoCheckpointOfWhichAPieceMayBeLost) {
  StoredKey key;
  key.key = "k";
  log_->write_checkpoint({{key}, {}});
  terminate("isthmus upkeep");
  EXPECT_THAT(failure([&] { log_->write_checkpoint({{key}, {}}); }), HasSubstr("unavailable"));
  EXPECT_THAT(failure([&] { log_->put_mark({{{kOrigin, 3}}, {}, {}}); }), HasSubstr("unavailable"));
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.progress"), 0);
  shared().guard_checkpoint(500);
  log_->put_mark({{{kOrigin, 3}}, {}, {}});
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.progress"), 1);
}

TEST_F(PostgresqlCutTest, TakingTheLeaseWaitsForAPieceOfTheOldOne) {
  PostgresSession piece(database_.url());
  piece.sql("BEGIN; SELECT id FROM isthmus.lease FOR KEY SHARE");
  shared().beat(500);  // does not wait
  std::thread taker([&] { append({lease_row(501, 2, "b:2")}); });
  EXPECT_TRUE(becomes([&] {
    return database_.integer(
               "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'isthmus commit' "
               "AND wait_event_type = 'Lock' AND datname = current_database()") == 1;
  }));
  piece.sql("COMMIT");
  taker.join();
  EXPECT_EQ(shared().newest_lease().lease, 501);
}

}  // namespace
}  // namespace isthmus::backend::test
