// The feed of a PostgreSQL log on a private cluster: that no row is lost or invented between what is read
// from the tables and what the stream brings, whatever breaks.
#include "backend/postgresql_feed.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_copy.hpp"
#include "backend/postgresql_schema.hpp"
#include "tests/backend/support.hpp"
#include "tests/support/postgres_cluster.hpp"

namespace isthmus::backend::test {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

/// The longest that anything here may take.
constexpr auto kPatience = 30s;

std::string all_bytes() {
  std::string bytes;
  for (int i = 0; i < 256; ++i) bytes.push_back(static_cast<char>(i));
  return bytes;
}

/// What a server would keep of a feed: rows once, by the vector.
struct Follower : LoadSink, FeedSink {
  void covered(OriginId origin, Seq seq, SiteId /*site*/) override {
    vector[origin] = std::max(vector[origin], seq);
  }
  void key(const StoredKey& stored) override { keys.push_back(stored); }
  void field(const StoredField& stored) override { fields.push_back(stored); }
  void row(const Row& row) override {
    Seq& last = vector[row.origin];
    if (row.seq <= last) {
      ++repeats;
      return;
    }
    if (row.seq != last + 1) ++gaps;
    last = row.seq;
    if (keep) rows.emplace_back(row);
    if (on_row) on_row(row);
  }
  void inbox(const InboxRow& row) override { inbox_rows.push_back(row); }
  void reached(Position position) override {
    EXPECT_GT(position, at);
    at = position;
  }

  Vector vector;
  std::vector<StoredKey> keys;
  std::vector<StoredField> fields;
  std::vector<OwnedRow> rows;
  std::vector<InboxRow> inbox_rows;
  Position at = 0;
  int repeats = 0, gaps = 0;
  bool keep = true;
  std::function<void(const Row&)> on_row;
};

/// A session that commits rows of one origin.
class Writer {
 public:
  Writer(const std::string& url, OriginId origin, Seq from = 0)
      : session_(url), origin_(origin), seq_(from) {}

  /// The next row of the origin; the views of the arguments are copied by `commit`.
  Row next(RowKind kind, std::string_view key, std::string_view field = "", std::string_view value = "") {
    Row row = make_row(++seq_, kind, key, field, value);
    row.origin = origin_;
    return row;
  }
  /// As servers do that all know that rows may share one of SQL.
  void commit(const std::vector<Row>& rows) {
    copy_rows(session_, kLogTable, make_batch(rows), "", true, buffer_);
  }
  void commit_sets(int count, const std::string& value = "value") {
    std::vector<Row> rows;
    for (int i = 0; i < count; ++i) rows.push_back(next(RowKind::set, "key", {}, value));
    commit(rows);
  }
  Seq seq() const { return seq_; }
  PgConnection& session() { return session_; }

 private:
  PgConnection session_;
  OriginId origin_;
  Seq seq_;
  std::string buffer_;
};

class PostgresqlFeedTest : public testing::Test {
 protected:
  void SetUp() override {
    admin_ = std::make_unique<PgConnection>(url());
    create_schema(*admin_);
    site_ = admin_->exec("SELECT id FROM isthmus.site").integer(0, 0);
  }

  std::string url() const { return cluster_.url(); }
  PgConnection& admin() { return *admin_; }
  std::int64_t query_number(const std::string& sql) { return admin().exec(sql).integer(0, 0); }
  std::unique_ptr<Feed> open() const { return open_postgresql_feed(url(), site_); }
  std::string slot() const { return permanent_slot(site_); }
  void advance_slot() {
    admin().exec("SELECT pg_replication_slot_advance('" + slot() + "', pg_current_wal_flush_lsn())");
  }
  /// Streams until `done`.
  static testing::AssertionResult follow(Feed& feed, Follower& follower, const std::function<bool()>& done) {
    const Clock::time_point deadline = Clock::now() + kPatience;
    while (!done()) {
      if (Clock::now() > deadline)
        return testing::AssertionFailure() << "not in " << kPatience.count() << " s";
      feed.stream(follower, 100ms);
    }
    return testing::AssertionSuccess();
  }
  /// Waits for what another session does.
  testing::AssertionResult await(const std::string& condition) {
    const Clock::time_point deadline = Clock::now() + kPatience;
    while (!admin().exec("SELECT " + condition).boolean(0, 0)) {
      if (Clock::now() > deadline) return testing::AssertionFailure() << "never: " << condition;
      std::this_thread::yield();
    }
    return testing::AssertionSuccess();
  }

  isthmus::test::PostgresCluster cluster_{{{"max_replication_slots", "20"}, {"max_wal_senders", "20"}}};
  std::unique_ptr<PgConnection> admin_;
  SiteId site_ = 0;
};

TEST_F(PostgresqlFeedTest, ShowsTheWriterOnlyWhatItHasNotWrittenItself) {
  const auto feed = open();
  feed->begin(FeedScope::others);
  Writer writer(url(), 1);
  const auto row = [&](RowKind kind, SiteId site, Version version) {
    Row made = writer.next(kind, "k", "", "v");
    made.site = site;
    made.version = version;
    return made;
  };
  Row copied = row(RowKind::set, site_, 5);
  copied.copied = true;
  const std::vector<Row> rows = {copied,
                                 row(RowKind::set, site_, 6),
                                 row(RowKind::publish, site_, 7),
                                 row(RowKind::publish, site_, 0),
                                 row(RowKind::set, site_ + 1, 8),
                                 row(RowKind::frontier, site_, 9),
                                 row(RowKind::lease, site_, 10)};
  writer.commit(rows);
  Follower follower;
  ASSERT_TRUE(follow(*feed, follower, [&] { return follower.vector[1] == rows.back().seq; }));
  std::vector<Seq> seen;
  for (const OwnedRow& of : follower.rows) seen.push_back(of.row.seq);
  EXPECT_THAT(seen, testing::ElementsAre(1, 4, 5, 6, 7)) << "its own state and messages are left out";
}

// ---- the seam ----

TEST_F(PostgresqlFeedTest, LosesNothingBetweenTheTablesAndTheStream) {
  std::atomic<bool> stop{false};
  open()->begin();  // makes the permanent slot
  std::map<OriginId, Seq> committed;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (OriginId origin = 1; origin <= 3; ++origin) {
    threads.emplace_back([&, origin] {
      Writer writer(url(), origin);
      while (!stop) {
        writer.commit_sets(4);
        const std::lock_guard lock(mutex);
        committed[origin] = writer.seq();
      }
    });
  }
  // The writer of a site does this once a second.
  threads.emplace_back([&] {
    PgConnection session(url());
    while (!stop) {
      try {
        session.exec("SELECT pg_replication_slot_advance('" + slot() + "', pg_current_wal_flush_lsn())");
      } catch (const PgError&) {  // it is being copied
      }
    }
  });
  for (int round = 0; round < 8; ++round) {
    const auto feed = open();
    Follower follower;
    follower.keep = false;
    feed->begin();
    feed->read_state(follower);
    const Vector read = follower.vector;
    std::map<OriginId, Seq> wanted;
    {
      const std::lock_guard lock(mutex);
      for (const auto& [origin, seq] : committed) wanted[origin] = seq + 40;
    }
    EXPECT_TRUE(follow(*feed, follower, [&] {
      return std::all_of(wanted.begin(), wanted.end(),
                         [&](const auto& of) { return follower.vector[of.first] >= of.second; });
    }));
    EXPECT_EQ(follower.gaps, 0) << "in round " << round;
    EXPECT_GE(follower.vector.size(), read.size());
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
}

TEST_F(PostgresqlFeedTest, WaitsForACommitThatNoSnapshotSeesYet) {
  open()->begin();
  Writer writer(url(), 1);
  // No such standby: the commit is in the WAL, and waits.
  admin().exec("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
  admin().exec("SELECT pg_reload_conf()");
  ASSERT_TRUE(await("current_setting('synchronous_standby_names') = 'nobody'"));
  // The setting counts a moment after the reload, so some commits may still go through.
  std::atomic<bool> stop{false};
  auto commits = std::async(std::launch::async, [&] {
    while (!stop) writer.commit_sets(1);
  });
  ASSERT_TRUE(await("EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')"));
  advance_slot();

  const auto feed = open();
  try {
    feed->begin();
    ADD_FAILURE() << "began beside a commit that it can neither read nor stream";
  } catch (const FeedError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("synchronous standby"));
  }
  stop = true;
  admin().exec("ALTER SYSTEM RESET synchronous_standby_names");
  admin().exec("SELECT pg_reload_conf()");
  commits.get();
  Follower follower;
  feed->begin();
  feed->read_state(follower);
  EXPECT_EQ(follower.vector, (Vector{{1, writer.seq()}}));
  EXPECT_EQ(follower.gaps, 0);
}

TEST_F(PostgresqlFeedTest, HandsOutTransactionsInTheOrderOfCommit) {
  const auto feed = open();
  Follower follower;
  const Position begun = feed->begin();
  follower.at = begun;
  feed->read_state(follower);
  Writer writer(url(), kOrigin);
  Row set = writer.next(RowKind::set, "k", {}, "v");
  set.expire_at = 12345;
  set.event = "set,expire";
  set.group_end = false;
  Row answer = writer.next(RowKind::hset, "h", "f", "");
  answer.requester = 5;
  answer.request = 6;
  answer.reply = ":1\r\n";
  Row message = writer.next(RowKind::publish, "channel", {}, "payload");
  message.sent_at = 99;
  writer.commit({set, answer});
  writer.commit({message});
  ASSERT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] == 3; }));
  ASSERT_EQ(follower.rows.size(), 3U);
  const Row first = follower.rows[0].view();
  EXPECT_EQ(first.site, kSite);
  EXPECT_EQ(first.kind, RowKind::set);
  EXPECT_EQ(first.version, set.version);
  EXPECT_EQ(first.expire_at, set.expire_at);
  EXPECT_FALSE(first.group_end);
  EXPECT_EQ(first.value, "v");
  const Row second = follower.rows[1].view();
  EXPECT_EQ(second.requester, 5);
  EXPECT_EQ(second.request, 6U);
  EXPECT_TRUE(second.group_end);
  EXPECT_EQ(follower.rows[2].view().sent_at, 99);
  ASSERT_TRUE(follow(*feed, follower, [&] { return follower.at > begun; }));
}

TEST_F(PostgresqlFeedTest, CarriesEveryByte) {
  const std::string bytes = all_bytes();
  Writer writer(url(), kOrigin);
  const auto feed = open();
  feed->begin();
  Follower streamed, loaded, missing;
  Row row = writer.next(RowKind::hset, bytes, bytes, bytes);
  row.requester = row.request = 1;
  row.reply = bytes;
  writer.commit({row, writer.next(RowKind::set, std::string_view("\0", 1), {}, "")});
  ASSERT_TRUE(follow(*feed, streamed, [&] { return streamed.vector[kOrigin] == 2; }));
  const auto second = open();
  second->begin();
  second->read_state(loaded);
  ASSERT_TRUE(second->read_missing({}, missing));
  for (const Follower* follower : {&streamed, &loaded, &missing}) {
    ASSERT_EQ(follower->rows.size(), 2U);
    EXPECT_EQ(follower->rows[0].key, bytes);
    EXPECT_EQ(follower->rows[0].field, bytes);
    EXPECT_EQ(follower->rows[0].value, bytes);
    EXPECT_EQ(follower->rows[1].key, std::string("\0", 1));
  }
}

// ---- the slots ----

TEST_F(PostgresqlFeedTest, ForeignTransactionDoesNotDelayIt) {
  open()->begin();
  PgConnection foreign(url());
  foreign.exec("CREATE TABLE other (a int)");
  foreign.exec("BEGIN");
  foreign.exec("INSERT INTO other VALUES (1)");
  const auto feed = open();
  feed->begin();  // if it waited for the transaction, that would end with an error after some seconds
  Writer writer(url(), kOrigin);
  writer.commit_sets(3);
  Follower follower;
  EXPECT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] == 3; }));
}

TEST_F(PostgresqlFeedTest, SaysWhatTheFirstSlotWaitsFor) {
  PgConnection foreign(url());
  foreign.exec("CREATE TABLE other (a int)");
  foreign.exec("BEGIN");
  foreign.exec("INSERT INTO other VALUES (1)");
  const auto feed = open();
  try {
    feed->begin();
    ADD_FAILURE() << "began";
  } catch (const FeedError& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("process " + std::to_string(foreign.backend_pid())));
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
  }
  foreign.exec("ROLLBACK");
  EXPECT_GT(feed->begin(), 0U);
  EXPECT_EQ(query_number("SELECT count(*) FROM pg_replication_slots WHERE NOT temporary"), 1);
}

TEST_F(PostgresqlFeedTest, SeveralMayBeginAtOnceWithoutAPermanentSlot) {
  std::vector<std::unique_ptr<Feed>> feeds;
  std::vector<std::future<Position>> begun;
  for (int i = 0; i < 4; ++i) feeds.push_back(open());
  for (const auto& feed : feeds)
    begun.push_back(std::async(std::launch::async, [&feed] { return feed->begin(); }));
  for (auto& position : begun) EXPECT_GT(position.get(), 0U);
  EXPECT_EQ(query_number("SELECT count(*) FROM pg_replication_slots WHERE temporary"), 4);
  EXPECT_EQ(query_number("SELECT count(*) FROM pg_replication_slots WHERE NOT temporary"), 1);
  feeds.clear();
  EXPECT_TRUE(await("NOT EXISTS (SELECT FROM pg_replication_slots WHERE temporary)"));
}

TEST_F(PostgresqlFeedTest, ReplacesAPermanentSlotThatLostItsWal) {
  open()->begin();
  admin().exec("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'");
  admin().exec("SELECT pg_reload_conf()");
  ASSERT_TRUE(await("current_setting('max_slot_wal_keep_size') = '1MB'"));
  admin().exec("CREATE TABLE filler (a int)");
  for (int i = 0; i < 4; ++i) {
    admin().exec("INSERT INTO filler VALUES (1)");
    admin().exec("SELECT pg_switch_wal()");
  }
  admin().exec("CHECKPOINT");
  ASSERT_TRUE(await("wal_status = 'lost' FROM pg_replication_slots"));
  Writer writer(url(), kOrigin);
  writer.commit_sets(2);
  const auto feed = open();
  feed->begin();
  Follower follower;
  feed->read_state(follower);
  writer.commit_sets(2);
  EXPECT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] == 4; }));
  EXPECT_EQ(follower.gaps, 0);
}

// ---- breaks ----

TEST_F(PostgresqlFeedTest, InterruptEndsAWait) {
  const auto feed = open();
  feed->begin();
  Follower follower;
  feed->stream(follower, 0ms);
  feed->interrupt();  // before the wait
  const Clock::time_point start = Clock::now();
  // What is left of the WAL's end may be reached first.
  auto waiting = std::async(std::launch::async, [&] { feed->stream(follower, kPatience); });
  ASSERT_EQ(waiting.wait_for(kPatience / 2), std::future_status::ready);
  waiting.get();
  waiting = std::async(std::launch::async, [&] {
    for (Position at = 1; at != follower.at;) {
      at = follower.at;
      feed->stream(follower, kPatience);
    }
  });
  while (waiting.wait_for(1ms) != std::future_status::ready) feed->interrupt();
  EXPECT_LT(Clock::now() - start, kPatience / 2);
}

TEST_F(PostgresqlFeedTest, ContinuesWithoutAGapWhenItsSessionsAreEnded) {
  std::atomic<bool> stop{false};
  std::atomic<Seq> committed{0};
  std::thread writing([&] {
    Writer writer(url(), kOrigin);
    while (!stop) {
      writer.commit_sets(10);
      committed = writer.seq();
    }
  });
  auto feed = open();
  feed->begin();
  Follower follower;
  follower.keep = false;
  feed->read_state(follower);
  for (const std::string which : {"'isthmus feed' AND backend_type = 'walsender'", "'isthmus feed'"}) {
    const Seq wanted = committed + 50;
    EXPECT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] >= wanted; }));
    EXPECT_GE(query_number(
                  "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = " +
                  which),
              1);
    EXPECT_THROW(
        {
          for (const auto deadline = Clock::now() + kPatience; Clock::now() < deadline;)
            feed->stream(follower, 1s);
        },
        FeedError);
    EXPECT_THROW(feed->stream(follower, 1s), FeedError) << "before it has begun again";
    follower.at = feed->begin();
    EXPECT_TRUE(feed->read_missing(Vector(follower.vector), follower));
    EXPECT_GE(feed->last_seqs()[kOrigin], wanted);
  }
  stop = true;
  writing.join();
  EXPECT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] >= committed; }));
  EXPECT_EQ(follower.gaps, 0);
}

TEST_F(PostgresqlFeedTest, DoesNotHoldUpAFastShutdown) {
  Writer writer(url(), kOrigin);
  const auto idle = open();
  idle->begin();  // has read nothing of its stream
  const auto feed = open();
  feed->begin();
  auto streaming = std::async(std::launch::async, [&] {
    Follower follower;
    for (;;) feed->stream(follower, kPatience);
  });
  writer.commit_sets(100);
  const Clock::time_point start = Clock::now();
  cluster_.stop();
  EXPECT_LT(Clock::now() - start, 20s);
  EXPECT_THROW(streaming.get(), FeedError);
  Follower follower;
  EXPECT_THROW(idle->read_state(follower), FeedError);
  EXPECT_THROW(idle->begin(), FeedError);

  cluster_.start();
  feed->begin();
  EXPECT_TRUE(feed->read_missing({}, follower));
  EXPECT_EQ(follower.vector[kOrigin], 100U);
}

TEST_F(PostgresqlFeedTest, ErrorsHoldNoPassword) {
  const auto feed = open_postgresql_feed("host=127.0.0.1 port=1 user=u password=geheim dbname=d", 1);
  try {
    feed->begin();
    ADD_FAILURE() << "began";
  } catch (const FeedError& error) {
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("geheim")));
    EXPECT_THAT(error.what(), testing::Not(testing::HasSubstr("\n")));
  }
}

// ---- the tables ----

TEST_F(PostgresqlFeedTest, ReadsTheCheckpointBeforeTheLogBehindIt) {
  admin().exec(
      "INSERT INTO isthmus.entry (db, key, type, version, site, cut_version, cut_site, expire_at, "
      "expire_version, "
      "expire_site, value) VALUES "
      "(0, 'string', 'string', 10, 7, 5, 7, 99, 10, 7, 'value'), (1, 'dead', 'string', 10, 7, 20, 7, NULL, "
      "0, 0, 'x'), "
      "(0, 'hash', 'hash', 10, 7, 10, 7, NULL, 0, 0, NULL), (0, 'was hash', 'string', 10, 7, 0, 0, NULL, 0, "
      "0, 'y')");
  admin().exec(
      "INSERT INTO isthmus.field (db, key, field, version, site, deleted, value) VALUES "
      "(0, 'hash', 'f', 11, 7, false, 'v'), (0, 'hash', 'gone', 12, 7, true, NULL), (0, 'hash', 'cut', 9, 7, "
      "false, 'x'), "
      "(0, 'was hash', 'f', 9, 7, false, 'x'), (2, 'orphan', 'a', 1, 7, false, '1'), (2, 'orphan', 'b', 1, "
      "7, false, '2')");
  admin().exec("INSERT INTO isthmus.progress (origin, seq) VALUES (1000, 2), (2000, 9)");
  Writer writer(url(), kOrigin);
  writer.commit_sets(2);
  writer.commit(
      {writer.next(RowKind::publish, "channel", {}, "payload"), writer.next(RowKind::set, "k", {}, "new")});

  const auto feed = open();
  feed->begin();
  Follower follower;
  bool covered_first = false;
  follower.on_row = [&](const Row&) { covered_first = follower.vector.contains(2000); };
  feed->read_state(follower);
  std::map<std::string, StoredKey> keys;
  for (const StoredKey& key : follower.keys) EXPECT_TRUE(keys.emplace(key.key, key).second) << key.key;
  EXPECT_EQ(keys.size(), 5U);
  EXPECT_EQ(keys["string"].value, "value");
  EXPECT_EQ(keys["string"].expire_at, std::optional<std::int64_t>(99));
  EXPECT_EQ(keys["string"].cut_version, 5U);
  EXPECT_EQ(keys["dead"].type, StoredType::none);
  EXPECT_EQ(keys["dead"].db, 1);
  EXPECT_EQ(keys["hash"].type, StoredType::hash);
  EXPECT_EQ(keys["orphan"].type, StoredType::hash);
  EXPECT_EQ(keys["orphan"].version, 0U);
  std::vector<std::string> fields;
  for (const StoredField& field : follower.fields) {
    fields.push_back(field.key + "." + field.field + "=" + field.value + (field.deleted ? " deleted" : ""));
  }
  EXPECT_THAT(fields,
              testing::UnorderedElementsAre("hash.f=v", "hash.gone= deleted", "orphan.a=1", "orphan.b=2"));
  EXPECT_TRUE(covered_first);
  ASSERT_EQ(follower.rows.size(), 2U);
  EXPECT_EQ(follower.rows[0].value, "") << "of a message only the seq matters";
  EXPECT_EQ(follower.rows[1].value, "new");
  EXPECT_EQ(feed->last_seqs(), (Vector{{1000, 4}, {2000, 9}}));
}

TEST_F(PostgresqlFeedTest, ReadsWhatIsMissingWithGroupsWhole) {
  Writer one(url(), 1), two(url(), 2);
  // Two origins by turns, so that their rows lie among each other, and one that was committed twice.
  for (int i = 0; i < 5; ++i) {
    one.commit_sets(3);
    Row begin = two.next(RowKind::set, "a", {}, "1");
    begin.group_end = false;
    two.commit({begin, two.next(RowKind::publish, "channel", {}, "payload")});
  }
  Writer again(url(), 2, 8);
  again.commit({again.next(RowKind::set, "a"), again.next(RowKind::publish, "channel", {}, "payload")});

  const auto feed = open();
  feed->begin();
  Follower follower;
  follower.vector = {{1, 7}, {3, 1}};
  OriginId open_group = 0;
  follower.on_row = [&](const Row& row) {
    EXPECT_TRUE(open_group == 0 || open_group == row.origin);
    open_group = row.group_end ? 0 : row.origin;
    EXPECT_TRUE(row.kind != RowKind::publish || row.value == "payload");
  };
  EXPECT_TRUE(feed->read_missing(Vector(follower.vector), follower));
  EXPECT_EQ(follower.vector, (Vector{{1, 15}, {2, 10}, {3, 1}}));
  EXPECT_EQ(follower.gaps, 0);
  EXPECT_EQ(follower.rows.size(), 18U);
  EXPECT_EQ(follower.repeats, 2);
  EXPECT_EQ(feed->last_seqs(), (Vector{{1, 15}, {2, 10}}));
}

TEST_F(PostgresqlFeedTest, ReadsBehindACheckpointThatIsAheadOfUs) {
  Writer writer(url(), kOrigin);
  for (const int count : {19, 20, 11}) writer.commit_sets(count);
  admin().exec("INSERT INTO isthmus.progress (origin, seq) VALUES (1000, 50)");
  admin().exec("UPDATE isthmus.site SET covered_from = clock_timestamp()");
  writer.commit_sets(1);
  const auto feed = open();
  feed->begin();
  for (const Seq known : {0, 1, 49, 50}) {
    Follower follower;
    follower.vector[kOrigin] = known;
    EXPECT_TRUE(feed->read_missing(Vector(follower.vector), follower));
    EXPECT_EQ(follower.vector[kOrigin], 51U) << known;
    EXPECT_EQ(follower.gaps, 0) << known;
  }
  // The clock went back by an hour in the middle of it, for the rows 20 to 39.
  admin().exec("UPDATE isthmus.log SET arrived = arrived - interval '1 hour' WHERE seq = 39");
  for (const Seq known : {10, 19}) {
    Follower follower;
    follower.vector[kOrigin] = known;
    EXPECT_TRUE(feed->read_missing(Vector(follower.vector), follower));
    EXPECT_EQ(follower.vector[kOrigin], 51U) << known;
  }
}

TEST_F(PostgresqlFeedTest, SaysWhenWhatIsMissingWasCut) {
  Writer writer(url(), kOrigin);
  writer.commit_sets(5);
  admin().exec("INSERT INTO isthmus.progress (origin, seq, cut) VALUES (1000, 5, 3), (2000, 7, 7)");
  const auto feed = open();
  feed->begin();
  Follower follower;
  EXPECT_FALSE(feed->read_missing({{1000, 2}, {2000, 7}}, follower));
  EXPECT_FALSE(feed->read_missing({{1000, 5}}, follower)) << "an origin that came and went";
  EXPECT_TRUE(follower.rows.empty());
  EXPECT_EQ(feed->last_seqs(), (Vector{{1000, 5}, {2000, 7}}));
  follower.vector = {{1000, 3}, {2000, 7}};
  EXPECT_TRUE(feed->read_missing(Vector(follower.vector), follower));
  EXPECT_EQ(follower.rows.size(), 2U);
}

TEST_F(PostgresqlFeedTest, ReadsALargeInboxInPieces) {
  const auto feed = open();
  feed->begin();
  admin().exec(
      "INSERT INTO isthmus.inbox (op, key, value) SELECT 'set', 'k', 'v' FROM generate_series(1, 7000)");
  InboxWindow window = feed->read_inbox();
  EXPECT_EQ(window.rows.size(), 5000U);
  EXPECT_TRUE(window.more);
  admin().exec("DELETE FROM isthmus.inbox WHERE id <= " + std::to_string(window.rows.back().id));
  window = feed->read_inbox();
  EXPECT_EQ(window.rows.size(), 2000U);
  EXPECT_FALSE(window.more);
  admin().exec("TRUNCATE isthmus.inbox");
  admin().exec(
      "INSERT INTO isthmus.inbox (op, key, value) SELECT 'set', 'k', convert_to(repeat('v', 9000000), "
      "'UTF8') "
      "FROM generate_series(1, 3)");
  window = feed->read_inbox();
  EXPECT_EQ(window.rows.size(), 2U) << "of 9 MB each";
  EXPECT_TRUE(window.more);
}

TEST_F(PostgresqlFeedTest, BringsWhatSqlClientsWant) {
  admin().exec("INSERT INTO isthmus.inbox (op, key, value) VALUES ('set', 'k', '\\x00ff')");
  const auto feed = open();
  feed->begin();
  admin().exec(
      "INSERT INTO isthmus.inbox (op, db, key, field, value) VALUES ('hset', 3, 'h', 'f', 'v'); "
      "INSERT INTO isthmus.inbox (op, key, expire_at) VALUES ('expire', 'h', 42)");
  const std::vector<InboxRow> waiting = feed->read_inbox().rows;
  ASSERT_EQ(waiting.size(), 3U);
  EXPECT_EQ(waiting[0].op, "set");
  EXPECT_EQ(waiting[0].value, std::string("\0\xFF", 2));
  EXPECT_EQ(waiting[0].expire_at, std::nullopt);
  Follower follower;
  const auto complete = [&] {
    return !follower.inbox_rows.empty() && follower.inbox_rows.back().op == "expire";
  };
  ASSERT_TRUE(follow(*feed, follower, complete));
  EXPECT_EQ(follower.inbox_rows.back().expire_at, std::optional<std::int64_t>(42));
  const InboxRow& streamed = follower.inbox_rows.end()[-2];
  EXPECT_EQ(streamed.id, waiting[1].id);
  EXPECT_EQ(streamed.op, "hset");
  EXPECT_EQ(streamed.db, 3);
  EXPECT_EQ(streamed.key, "h");
  EXPECT_EQ(streamed.field, "f");
  EXPECT_EQ(streamed.value, "v");
  EXPECT_EQ(streamed.expire_at, std::nullopt);
}

TEST_F(PostgresqlFeedTest, LetsTheServerForgetWhatItHasHandedOut) {
  const auto feed = open();
  feed->begin();
  Follower follower;
  Writer writer(url(), kOrigin);
  writer.commit_sets(1);
  ASSERT_TRUE(follow(*feed, follower, [&] { return follower.vector[kOrigin] == 1; }));
  const Position handed_out = follower.at;
  EXPECT_TRUE(follow(*feed, follower, [&] {
    const PgResult row =
        admin().exec("SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots WHERE temporary");
    return row.integer(0, 0) >= static_cast<std::int64_t>(handed_out);
  }));
}

}  // namespace
}  // namespace isthmus::backend::test
