// What SQL asks of the servers, as the writer reads it.
#include <string>

#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

TEST(PostgresqlInboxTest, TellsWhenEachRequestWasMade) {
  const TestDatabase database;
  open_shared(database.url());
  database.sql("SELECT isthmus.publish('c', 'old'); UPDATE isthmus.inbox SET at = now() - interval '1 hour'");
  database.sql("SELECT isthmus.publish('c', 'young')");
  PgConnection connection(database.url());
  const InboxWindow inbox = FeedReads(connection).read_inbox();
  ASSERT_EQ(inbox.rows.size(), 2U);
  const std::int64_t now_ms =
      database.integer("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint");
  constexpr std::int64_t kHourMs = 3'600'000, kMinuteMs = 60'000;
  EXPECT_NEAR(static_cast<double>(inbox.rows[0].at), static_cast<double>(now_ms - kHourMs), kMinuteMs);
  EXPECT_LE(inbox.rows[1].at, now_ms);
  EXPECT_GT(inbox.rows[1].at, now_ms - kMinuteMs);
}

}  // namespace
}  // namespace isthmus::backend::test
