// The checkpoint in PostgreSQL, what only it has: statements of bounded length, pieces that a crash may take
// back, and what a new writer reads to go on with it.
#include "backend/postgresql_checkpoint.hpp"

#include <chrono>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr OriginId kLease = 500;

void add_fields(CheckpointChunk& chunk, const std::string& key, int count) {
  for (int i = 0; i < count; ++i) {
    chunk.fields.push_back({0, key, std::to_string(i), "v", 1, kSite, "", false, false});
  }
}

class PostgresqlCheckpointTest : public ::testing::Test {
 protected:
  PostgresqlCheckpointTest() : log_(open_connected(database_.url())) {
    log_->append(make_batch({lease_row(kLease, 1, "a:1")}));
    shared().guard_checkpoint(kLease);
  }
  SharedLog& shared() const { return *log_->shared(); }
  std::int64_t fields() const { return database_.integer("SELECT count(*) FROM isthmus.field"); }

  /// From now on `counted` tells how many fields the statements since its last call have put in or deleted:
  /// the most of one, and all of them.
  void count_statements() const {
    database_.sql(
        "CREATE TABLE counted (fields bigint); CREATE FUNCTION count_fields() RETURNS trigger LANGUAGE "
        "plpgsql AS 'BEGIN INSERT INTO public.counted SELECT count(*) FROM changed; RETURN NULL; END'; "
        "CREATE TRIGGER count_put AFTER INSERT ON isthmus.field REFERENCING NEW TABLE AS changed FOR EACH "
        "STATEMENT EXECUTE FUNCTION count_fields(); "
        "CREATE TRIGGER count_deleted AFTER DELETE ON isthmus.field REFERENCING OLD TABLE AS changed FOR "
        "EACH "
        "STATEMENT EXECUTE FUNCTION count_fields()");
  }
  std::vector<std::string> counted() const {
    std::vector<std::string> lines = database_.sql("SELECT max(fields), sum(fields) FROM counted");
    database_.sql("TRUNCATE counted");
    return lines;
  }

  /// Another session writes a row to the log and sleeps in the same transaction for so long. Returns when it
  /// sleeps.
  std::future<void> write_slowly(PostgresSession& session, int seconds) const {
    auto written = std::async(std::launch::async, [&session, seconds] {
      session.sql(
          "INSERT INTO isthmus.log (site, origin, seq, version, db, kind, group_end, key, value) VALUES (8, "
          "77, 1, 1, 0, 'set', true, 'k', 'v'); SELECT pg_sleep(" +
          std::to_string(seconds) + ")");
    });
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (database_.integer("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname "
                             "= current_database()") == 0) {
      if (std::chrono::steady_clock::now() > deadline) throw std::runtime_error("it does not sleep");
      std::this_thread::sleep_for(5ms);
    }
    return written;
  }

  TestDatabase database_;
  std::unique_ptr<Log> log_;
};

TEST_F(PostgresqlCheckpointTest, DeletesKeysOfManyFieldsByStatementsOfBoundedLength) {
  // The index has a digest of so long a name.
  const std::string long_name(1100, 'k');
  CheckpointChunk chunk;
  add_fields(chunk, "h", 15'000);
  add_fields(chunk, long_name, 10'500);
  add_fields(chunk, "hh", 1);
  add_fields(chunk, long_name + "k", 1);
  count_statements();
  log_->write_checkpoint(chunk);
  EXPECT_THAT(counted(), ElementsAre("10000|25502"));
  CheckpointChunk gone;
  for (const std::string& name : {std::string("h"), long_name}) {
    StoredKey key;
    key.key = name;
    key.forget = true;
    gone.keys.push_back(key);
  }
  log_->write_checkpoint(gone);
  EXPECT_THAT(counted(), ElementsAre("10000|25500"));
  EXPECT_EQ(fields(), 2) << "those of other keys stay";
}

TEST_F(PostgresqlCheckpointTest, ReplacesManyFieldsInOneTransaction) {
  CheckpointChunk chunk;
  add_fields(chunk, "h", 25'000);
  log_->write_checkpoint(chunk);
  StoredKey key;
  key.key = "h";
  key.type = StoredType::hash;
  key.version = 2;
  key.site = kSite;
  key.replace_fields = true;
  chunk = {{key}, {}};
  add_fields(chunk, "h", 3);
  count_statements();
  log_->write_checkpoint(chunk);
  EXPECT_THAT(counted(), ElementsAre("10000|25003"));
  EXPECT_EQ(fields(), 3);
  EXPECT_EQ(database_.integer("SELECT count(DISTINCT xmin::text) FROM (SELECT xmin FROM isthmus.field UNION "
                              "ALL SELECT xmin FROM isthmus.entry) written"),
            1);
}

TEST_F(PostgresqlCheckpointTest, DeletesManySingleFieldsByStatementsOfBoundedLength) {
  CheckpointChunk chunk;
  add_fields(chunk, "h", 12'001);
  log_->write_checkpoint(chunk);
  chunk.fields.pop_back();
  for (StoredField& field : chunk.fields) field.forget = true;
  count_statements();
  log_->write_checkpoint(chunk);
  EXPECT_THAT(counted(), ElementsAre("10000|12000"));
  EXPECT_EQ(fields(), 1);
}

// A crash may take back the pieces that a flush had deleted already.
TEST_F(PostgresqlCheckpointTest, BeginsAFlushAnewWhenTheCheckpointIsGuardedAnew) {
  CheckpointChunk chunk;
  add_fields(chunk, "h", 3000);
  log_->write_checkpoint(chunk);
  ASSERT_TRUE(log_->forget_flushed(0, 5, kSite));
  ASSERT_EQ(fields(), 1000);
  // In front of all others.
  database_.sql(
      "INSERT INTO isthmus.field (db, key, field, version, site, deleted, value) VALUES (0, 'h', '', 1, 7, "
      "false, 'v')");
  shared().guard_checkpoint(kLease);
  while (log_->forget_flushed(0, 5, kSite)) {
  }
  EXPECT_EQ(fields(), 0);
}

// The feed may have shown it already.
TEST_F(PostgresqlCheckpointTest, ReadsWhatIsJustBeingCommitted) {
  PostgresSession other(database_.url());
  const std::future<void> written = write_slowly(other, 1);
  Recorder uncovered;
  shared().read_uncovered(uncovered);
  ASSERT_EQ(uncovered.rows.size(), 2U);
  EXPECT_EQ(uncovered.rows[0].row.origin, 77);
  EXPECT_EQ(uncovered.rows[1].row.origin, kLease);
}

TEST_F(PostgresqlCheckpointTest, RefusesToReadBesideACommitThatDoesNotEnd) {
  PostgresSession other(database_.url());
  std::future<void> written = write_slowly(other, 60);
  Recorder uncovered;
  try {
    shared().read_uncovered(uncovered);
    ADD_FAILURE() << "read beside a row that the feed may have shown";
  } catch (const AppendError& error) {
    EXPECT_EQ(error.kind, AppendError::Kind::unavailable);
    EXPECT_THAT(error.what(), HasSubstr("in the middle of writing to the log"));
  }
  database_.sql("SELECT pg_cancel_backend(" + std::to_string(other.pid()) + ")");
  EXPECT_THROW(written.get(), std::runtime_error);
  EXPECT_TRUE(uncovered.rows.empty());
  shared().read_uncovered(uncovered);
  EXPECT_EQ(uncovered.rows.size(), 1U) << "only the lease";
}

// Of other statements it bears ten seconds.
TEST_F(PostgresqlCheckpointTest, BearsTheSilenceOfAReadOfALongLog) {
  database_.sql(
      "ALTER TABLE isthmus.site RENAME TO real_site; CREATE VIEW isthmus.site AS SELECT id, (SELECT "
      "covered_from FROM pg_sleep(11)) AS covered_from FROM isthmus.real_site");
  Recorder uncovered;
  auto reading = std::async(std::launch::async, [&] { shared().read_uncovered(uncovered); });
  EXPECT_EQ(shared().last_seq(kLease), 1U);
  reading.get();
  EXPECT_EQ(uncovered.rows.size(), 1U);
}

}  // namespace
}  // namespace isthmus::backend::test
