// What SQL clients have of it: the functions that fill the inbox, and the view for people.
#include <chrono>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/shared_log.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

class PostgresqlSqlTest : public ::testing::Test {
 protected:
  PostgresqlSqlTest() : log_(open_connected(database_.url())) {}
  std::vector<std::string> inbox() const {
    return database_.sql("SELECT op, db, key, field, value, expire_at FROM isthmus.inbox ORDER BY id");
  }

  TestDatabase database_;
  std::unique_ptr<Log> log_;
};

TEST_F(PostgresqlSqlTest, FunctionsFillTheInbox) {
  database_.sql(
      "SELECT isthmus.set('k', 'v'); SELECT isthmus.set('k', 'v', db => 3); SELECT isthmus.hset('h', 'f', "
      "'v', 2);"
      "SELECT isthmus.del('k'); SELECT isthmus.hdel('h', 'f'); SELECT isthmus.expire('k', NULL);"
      "SELECT isthmus.publish('news', 'hi'); SELECT isthmus.set('\\x00ff'::bytea, '\\x80'::bytea);"
      "SELECT isthmus.publish(channel => 'n', message => 'm')");
  EXPECT_THAT(inbox(), ElementsAre("set|0|\\x6b||\\x76|", "set|3|\\x6b||\\x76|", "hset|2|\\x68|\\x66|\\x76|",
                                   "del|0|\\x6b|||", "hdel|0|\\x68|\\x66||", "expire|0|\\x6b|||",
                                   "publish|0|\\x6e657773||\\x6869|", "set|0|\\x00ff||\\x80|",
                                   "publish|0|\\x6e||\\x6d|"));
}

TEST_F(PostgresqlSqlTest, TimesToLiveBecomeDeadlines) {
  database_.sql("SELECT isthmus.set('k', 'v', '1 hour'); SELECT isthmus.expire('k', interval '1 hour')");
  const std::int64_t expected = now_ms() + 3'600'000;
  for (const char* op : {"set", "expire"}) {
    const std::int64_t deadline =
        database_.integer(std::string("SELECT expire_at FROM isthmus.inbox WHERE op = '") + op + "'");
    EXPECT_LE(std::abs(deadline - expected), 60'000) << op;
  }
}

TEST_F(PostgresqlSqlTest, RefusesWhatMakesNoSense) {
  for (const char* call : {"set(NULL, 'v')", "set('k', NULL)", "hset('h', NULL, 'v')", "publish('c', NULL)",
                           "set('k', 'v', db => 16)", "del('k', -1)"}) {
    EXPECT_THROW(database_.sql(std::string("SELECT isthmus.") + call), std::runtime_error) << call;
  }
  EXPECT_THAT(inbox(), IsEmpty());
}

TEST_F(PostgresqlSqlTest, ATriggerMakesAMessageOfAChange) {
  database_.sql(R"sql(
    CREATE TABLE room (name text PRIMARY KEY, topic text);
    CREATE FUNCTION tell_room() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      PERFORM isthmus.publish('room.' || new.name, new.topic);
      RETURN new;
    END $$;
    CREATE TRIGGER tell_room AFTER INSERT OR UPDATE ON room FOR EACH ROW EXECUTE FUNCTION tell_room();
    INSERT INTO room VALUES ('lobby', 'welcome'))sql");
  EXPECT_THROW(database_.sql("BEGIN; UPDATE room SET topic = 'lost'; SELECT 1 / 0"), std::runtime_error);
  EXPECT_THAT(
      database_.sql("SELECT convert_from(key, 'UTF8'), convert_from(value, 'UTF8') FROM isthmus.inbox"),
      ElementsAre("room.lobby|welcome"))
      << "and what is rolled back sends none";
}

TEST_F(PostgresqlSqlTest, AnApplicationNeedsOnlyTheFunctions) {
  const std::string role = "app_of_" + database_.name();
  const std::string url = database_.url(role);
  database_.sql("CREATE ROLE " + role + " LOGIN");
  const auto as_app = [&](const std::string& sql) { return isthmus::test::PostgresSession(url).sql(sql); };
  EXPECT_THROW(as_app("SELECT isthmus.set('k', 'v')"), std::runtime_error);
  database_.sql("GRANT USAGE ON SCHEMA isthmus TO " + role);
  EXPECT_THROW(as_app("SELECT isthmus.set('k', 'v')"), std::runtime_error)
      << "whoever may read may not yet write";
  database_.sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA isthmus TO " + role +
                "; GRANT SELECT ON isthmus.current TO " + role);
  as_app("SELECT isthmus.set('k', 'v')");
  as_app("SELECT * FROM isthmus.current");
  EXPECT_THROW(as_app("SELECT secret FROM isthmus.site"), std::runtime_error);
  EXPECT_THROW(as_app("INSERT INTO isthmus.inbox (op, key) VALUES ('del', 'k')"), std::runtime_error);
  EXPECT_EQ(inbox().size(), 1U);
  database_.sql("DROP OWNED BY " + role + "; DROP ROLE " + role);
}

TEST_F(PostgresqlSqlTest, TheViewShowsBytesAsAPersonReadsThem) {
  Row ttl = make_row(2, RowKind::set, "ttl", "", "v");
  ttl.expire_at = 4'102'444'800'123;
  log_->append(make_batch({make_row(1, RowKind::hset, "user", "näme", "back\\slash"), ttl,
                           make_row(3, RowKind::set, std::string_view("z\0", 2), "", "\xff\x01"),
                           make_row(4, RowKind::set, "two\nlines", "", "")}));
  EXPECT_THAT(database_.sql("SELECT key, type, field, value, key_bytes, value_bytes, "
                            "to_char(expire_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') "
                            "FROM isthmus.current ORDER BY version"),
              ElementsAre("user|hash|näme|back\\slash|\\x75736572|\\x6261636b5c736c617368|",
                          "ttl|string||v|\\x74746c|\\x76|2100-01-01 00:00:00.123",
                          "\\x7a00|string||\\xff01|\\x7a00|\\xff01|",
                          "two\nlines|string|||\\x74776f0a6c696e6573|\\x|"));
}

TEST_F(PostgresqlSqlTest, TheViewHidesWhatHasExpired) {
  Row gone = make_row(1, RowKind::set, "gone", "", "v");
  gone.expire_at = 1000;
  log_->append(make_batch({gone, make_row(2, RowKind::set, "there", "", "v")}));
  EXPECT_THAT(database_.sql("SELECT key FROM isthmus.current"), ElementsAre("there"));
}

}  // namespace
}  // namespace isthmus::backend::test
