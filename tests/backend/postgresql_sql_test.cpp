// What SQL clients have of it: the functions that fill the inbox, and the view for people.
#include <chrono>
#include <limits>
#include <memory>
#include <set>
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

TEST_F(PostgresqlSqlTest, ShowsChangesThatShareARowAsOthers) {
  std::vector<Row> rows = test::changes_of_all_kinds();
  log_->append(make_batch(rows));
  // With that the log knows that all servers can read rows that share one.
  log_->shared()->upkeep({1, "here:1", "0.3", 0, true}, 0);
  for (Row& row : rows) row.origin = 2000;
  log_->append(make_batch(rows));
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log WHERE origin = 1000"), rows.size());
  EXPECT_EQ(database_.integer("SELECT count(*) FROM isthmus.log WHERE origin = 2000"), 1);
  const auto shown = [&](int origin) {
    return database_.sql(
        "SELECT site, seq, version, db, kind, group_end, key, field, value, expire_at, event, requester, "
        "request, reply, copied, base_version, base_site, counter, total, key_bytes, field_bytes, "
        "value_bytes FROM isthmus.changes WHERE origin = " +
        std::to_string(origin) + " ORDER BY seq");
  };
  EXPECT_EQ(shown(1000).size(), rows.size());
  EXPECT_EQ(shown(2000), shown(1000));
}

TEST_F(PostgresqlSqlTest, TheViewHidesWhatHasExpired) {
  Row gone = make_row(1, RowKind::set, "gone", "", "v");
  gone.expire_at = 1000;
  log_->append(make_batch({gone, make_row(2, RowKind::set, "there", "", "v")}));
  EXPECT_THAT(database_.sql("SELECT key FROM isthmus.current"), ElementsAre("there"));
}

/// Rows that count, and what isthmus.current makes of them with and without a checkpoint.
class PostgresqlCountersTest : public testing::Test {
 protected:
  PostgresqlCountersTest() : log_(open_connected(database_.url())) {}
  /// A count of `lease`, of key or field `name`; without a value for what began with nothing.
  Row count(const std::string& name, OriginId lease, std::int64_t total, Version base, SiteId base_site,
            std::string_view value = "", RowKind kind = RowKind::incr) {
    Row row = next(kind, kind == RowKind::incr ? name : "h", kind == RowKind::incr ? "" : name, value);
    row.count = {base, base_site, lease, total};
    return row;
  }
  Row next(RowKind kind, std::string_view key, std::string_view field = "", std::string_view value = "") {
    names_.push_back(std::make_unique<std::string>(key));
    names_.push_back(std::make_unique<std::string>(field));
    Row row = make_row(++seq_, kind, *names_[names_.size() - 2], *names_.back(), value);
    row.version = 1000 + seq_;
    return row;
  }
  Row at(Row row, Version version, SiteId site = kSite) {
    row.version = version;
    row.site = site;
    return row;
  }
  std::vector<std::string> current() {
    return database_.sql("SELECT key, field, value FROM isthmus.current ORDER BY key, field");
  }
  std::vector<std::string> after(const std::vector<Row>& rows) {
    log_->append(make_batch(rows));
    return current();
  }

  TestDatabase database_;
  std::unique_ptr<Log> log_;
  std::vector<std::unique_ptr<std::string>> names_;
  Seq seq_ = 0;
};

TEST_F(PostgresqlCountersTest, AddsTheTotalsOfTheWinningBase) {
  EXPECT_THAT(after({at(next(RowKind::set, "n", "", "10"), 100), count("n", 1, 5, 100, kSite, "10"),
                     count("n", 2, 7, 100, kSite, "10"), count("n", 1, 6, 100, kSite, "10"),
                     count("n", 3, 99, 90, kSite, "1")}),
              ElementsAre("n||23"));
  // Written elsewhere before the counts were, and after their base: the counts are gone.
  EXPECT_THAT(after({at(next(RowKind::set, "n", "", "40"), 101, 8)}), ElementsAre("n||40"));
  EXPECT_THAT(after({at(next(RowKind::del, "n"), 102)}), IsEmpty());
}

TEST_F(PostgresqlCountersTest, AddsUpWhatBeganWithNothing) {
  EXPECT_THAT(after({count("n", 1, 5, 50, 0), count("n", 2, 7, 60, 0), at(count("m", 1, 1, 50, 0), 55),
                     count("m", 2, 2, 60, 0)}),
              ElementsAre("m||2", "n||12"))
      << "the second mark of m has seen the first count";
  // A deletion that the first has not seen.
  EXPECT_THAT(after({at(next(RowKind::del, "n"), 55)}), ElementsAre("m||2", "n||7"));
  EXPECT_THAT(after({count("n", 3, 1, 70, kSite)}), ElementsAre("m||2", "n||1")) << "on a newer deletion";
  EXPECT_THAT(after({at(next(RowKind::set, "n", "", "9"), 71)}), ElementsAre("m||2", "n||9"));
}

TEST_F(PostgresqlCountersTest, CountsFields) {
  EXPECT_THAT(
      after({at(next(RowKind::hset, "h", "f", "10"), 100), count("f", 1, 5, 100, kSite, "10", RowKind::hincr),
             count("g", 1, 3, 50, 0, "", RowKind::hincr), count("g", 2, 4, 50, 0, "", RowKind::hincr)}),
      ElementsAre("h|f|15", "h|g|7"));
  EXPECT_THAT(after({at(next(RowKind::hdel, "h", "g"), 60)}), ElementsAre("h|f|15"));
  EXPECT_THAT(after({at(next(RowKind::del, "h"), 200)}), IsEmpty());
}

TEST_F(PostgresqlCountersTest, GoOnFromTheCheckpoint) {
  log_->append(make_batch({next(RowKind::set, "other", "", "v")}));
  StoredKey based, nothing;
  based.key = "based";
  based.type = nothing.type = StoredType::string;
  based.value = "10";
  based.version = 100;
  based.site = kSite;
  based.totals = "1=5@110,7,100,7 2=-1@120,8,100,7";
  nothing.key = "nothing";
  nothing.version = 60;
  nothing.site = std::numeric_limits<SiteId>::max();
  nothing.totals = "1=5@110,7,50,9223372036854775807 2=7@120,8,60,9223372036854775807";
  StoredField field{0, "h", "f", "1", 100, kSite, "1=1@110,7,100,7", false, false};
  StoredKey hash;
  hash.key = "h";
  hash.type = StoredType::hash;
  hash.version = 100;
  log_->shared()->guard_checkpoint(0);
  log_->write_checkpoint({{based, hash, nothing}, {field}});
  log_->finish_checkpoint({{kOrigin, seq_}});
  EXPECT_THAT(current(), ElementsAre("based||14", "h|f|2", "nothing||12"));
  const Recorder loaded = database_.load();
  EXPECT_EQ(loaded.keys[0].totals, based.totals);
  EXPECT_EQ(loaded.keys[2].totals, nothing.totals);
  EXPECT_EQ(loaded.keys[2].value, "");
  EXPECT_EQ(loaded.fields[0].totals, field.totals);
  EXPECT_THAT(after({count("based", 2, 3, 100, kSite, "10"), count("nothing", 3, 1, 55, 0),
                     count("f", 1, 8, 100, kSite, "1", RowKind::hincr)}),
              ElementsAre("based||18", "h|f|9", "nothing||13"));
  // The same version with other totals is written; a plain value ends them.
  based.totals = "1=6@130,7,100,7";
  log_->write_checkpoint({{based}, {}});
  EXPECT_EQ(database_.load().keys[0].totals, based.totals);
  based.totals.clear();
  based.version = 131;
  log_->write_checkpoint({{based}, {}});
  EXPECT_EQ(database_.load().keys[0].totals, "");
  EXPECT_THAT(current(), ElementsAre("based||10", "h|f|9", "nothing||13"));
}

class PostgresqlSetsTest : public PostgresqlCountersTest {
 protected:
  // A row about a member of the set t, of a site and at a version.
  Row member(RowKind kind, std::string_view name, SiteId site, Version version) {
    Row row = at(next(kind, "t", name), version);
    row.site = site;
    return row;
  }
  Row takes_back(std::string_view name, SiteId site, Version version) {
    Row row = member(RowKind::srem, name, kSite, 1000 + version);
    row.count = {.base_version = version, .base_site = site};
    return row;
  }
};

TEST_F(PostgresqlSetsTest, AMemberIsThereUntilEveryAddHasBeenTakenBack) {
  EXPECT_THAT(
      after({takes_back("a", 8, 20), member(RowKind::sadd, "a", 8, 20), member(RowKind::sadd, "b", 8, 10),
             member(RowKind::sadd, "b", kSite, 30), takes_back("b", kSite, 30)}),
      ElementsAre("t|b|"));
  EXPECT_THAT(after({takes_back("b", 8, 10)}), IsEmpty());
  EXPECT_THAT(after({member(RowKind::sadd, "b", 8, 11)}), ElementsAre("t|b|"));
  EXPECT_THAT(after({at(next(RowKind::del, "t"), 40)}), IsEmpty());
  EXPECT_THAT(after({member(RowKind::sadd, "c", 8, 50), at(next(RowKind::hset, "t", "f", "v"), 60)}),
              ElementsAre("t|f|v"));
  EXPECT_THAT(after({member(RowKind::sadd, "d", 8, 70)}), ElementsAre("t|d|"));
}

TEST_F(PostgresqlSetsTest, GoOnFromTheCheckpoint) {
  log_->append(make_batch({next(RowKind::set, "other", "", "v")}));
  StoredKey set;
  set.key = "t";
  set.type = StoredType::set;
  set.version = 30;
  set.site = kSite;
  const std::string dots = std::to_string(kSite) + "=30- 8=20";
  const StoredField two{0, "t", "two", "", 30, kSite, dots, false, false};
  const StoredField one{0, "t", "one", "", 25, 8, "", false, false};
  const StoredField gone{0, "t", "gone", "", 25, 9, "8=20- 9=25-", true, false};
  log_->shared()->guard_checkpoint(0);
  log_->write_checkpoint({{set}, {two, one, gone}});
  log_->finish_checkpoint({{kOrigin, seq_}});
  EXPECT_THAT(current(), ElementsAre("t|one|", "t|two|"));
  const Recorder loaded = database_.load();
  EXPECT_EQ(loaded.keys.back().type, StoredType::set);
  std::set<std::string> totals;
  for (const StoredField& field : loaded.fields) totals.insert(field.totals);
  EXPECT_THAT(totals, ElementsAre("", dots, gone.totals));
  EXPECT_THAT(after({takes_back("one", 8, 25), takes_back("two", 8, 19)}), ElementsAre("t|two|"));
  EXPECT_THAT(after({takes_back("two", 8, 20), member(RowKind::sadd, "gone", 9, 24)}), IsEmpty());
}

}  // namespace
}  // namespace isthmus::backend::test
