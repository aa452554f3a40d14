// What goes with the lease in PostgreSQL: the session that holds its lock, and the checkpoint that only its
// holder writes.
#include <chrono>
#include <future>
#include <memory>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/postgresql_support.hpp"
#include "tests/backend/site_database.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr OriginId kLease = 500;

/// The kind and text of the AppendError that `body` throws, or "done".
template <typename Body>
std::string refusal(const Body& body) {
  try {
    body();
  } catch (const AppendError& error) {
    return (error.kind == AppendError::Kind::rejected ? "rejected " : "unavailable ") +
           std::string(error.what());
  }
  return "done";
}

/// The holder of a lease, whose checkpoint it guards.
class PostgresqlLeaseTest : public ::testing::Test {
 protected:
  PostgresqlLeaseTest() : log_(open_connected(database_.url())) {
    take_lease();
    shared().guard_checkpoint(kLease);
  }
  SharedLog& shared() const { return *log_->shared(); }
  void take_lease() const { log_->append(make_batch({lease_row(kLease, 1, "a:1")})); }
  std::string upkeep() const {
    return refusal([&] { shared().upkeep({1, "a:1", "v", 0, true}, kLease); });
  }
  std::string write_a_piece() const {
    StoredKey key;
    key.key = "k";
    return refusal([&] { log_->write_checkpoint({{key}, {}}); });
  }
  /// Ends the session of the checkpoint from outside, and waits until it has ended.
  void end_upkeep_session() const {
    database_.sql(
        "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE application_name = 'isthmus "
        "upkeep' AND datname = current_database()");
  }

  TestDatabase database_;
  std::unique_ptr<Log> log_;
};

// ---- the session that holds the lock ----

TEST_F(PostgresqlLeaseTest, CommitsInASessionThatWaitsForTheDiskAndNoticesThatItsClientIsGone) {
  database_.sql(
      "CREATE TABLE noted (setting text, value text); CREATE FUNCTION note_settings() RETURNS trigger "
      "LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.noted SELECT s, current_setting(s) FROM unnest('{"
      "synchronous_commit, tcp_keepalives_idle, tcp_keepalives_interval, tcp_keepalives_count}'::text[]) s; "
      "RETURN NULL; END $$; CREATE TRIGGER note AFTER UPDATE ON isthmus.lease FOR EACH ROW EXECUTE FUNCTION "
      "note_settings(); ALTER DATABASE " +
      database_.name() + " SET synchronous_commit = off");
  shared().disconnect();
  std::string why;
  ASSERT_TRUE(shared().connect(why)) << why;
  take_lease();
  EXPECT_THAT(database_.sql("SELECT setting, value FROM noted ORDER BY 1"),
              ElementsAre("synchronous_commit|on", "tcp_keepalives_count|2", "tcp_keepalives_idle|1",
                          "tcp_keepalives_interval|1"));
}

// ---- the checkpoint under the lease ----

// An earlier checkpoint counts as well: its last pieces may not have been on the disk when the session broke.
TEST_F(PostgresqlLeaseTest, WritesAllCheckpointsOfAGuardThroughOneSession) {
  ASSERT_EQ(write_a_piece(), "done");
  log_->put_mark({{{kOrigin, 3}}, {}, {}});
  end_upkeep_session();
  ASSERT_THAT(upkeep(), HasSubstr("unavailable"));
  ASSERT_EQ(upkeep(), "done") << "in a new session";
  EXPECT_THAT(write_a_piece(), HasSubstr("unavailable"));
  EXPECT_THAT(refusal([&] { log_->put_mark({{{kOrigin, 4}}, {}, {}}); }), HasSubstr("unavailable"));
  EXPECT_THAT(refusal([&] { log_->forget_flushed(0, 5, kSite); }), HasSubstr("unavailable"));
  EXPECT_EQ(database_.integer("SELECT max(seq) FROM isthmus.progress"), 3);
  shared().guard_checkpoint(kLease);
  EXPECT_EQ(write_a_piece(), "done");
  log_->put_mark({{{kOrigin, 4}}, {}, {}});
  EXPECT_EQ(database_.integer("SELECT max(seq) FROM isthmus.progress"), 4);
}

// A vector says nothing of what has arrived since it was: that much further back the log is to be read.
TEST_F(PostgresqlLeaseTest, CoversTheLogAsFarBackAsTheVectorIsOld) {
  CheckpointMark mark;
  mark.vector = {{kOrigin, 3}};
  mark.taken -= 100s;
  log_->put_mark(mark);
  EXPECT_THAT(
      database_.sql("SELECT covered_from <= now() - interval '160 s', covered_from > now() - interval "
                    "'5 min' FROM isthmus.site"),
      ElementsAre("t|t"));
}

TEST_F(PostgresqlLeaseTest, GivesUpAPieceOfTheCheckpointWithTheLease) {
  database_.sql(
      "CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; "
      "END'; CREATE TRIGGER dawdle BEFORE INSERT ON isthmus.entry FOR EACH ROW EXECUTE FUNCTION dawdle()");
  auto piece = std::async(std::launch::async, [&] { return write_a_piece(); });
  ASSERT_TRUE(becomes([&] {
    return database_.integer(
               "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = "
               "current_database()") == 1;
  }));
  const Clock::time_point begin = Clock::now();
  shared().disconnect();
  PostgresSession next(database_.url());
  EXPECT_NO_THROW(next.sql("SET lock_timeout = '5s'; UPDATE isthmus.lease SET id = 501"))
      << "the next holder does not wait for it";
  EXPECT_THAT(piece.get(), HasSubstr("unavailable"));
  EXPECT_LT(Clock::now() - begin, 5s);
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.entry"), 0);
}

}  // namespace
}  // namespace isthmus::backend::test
