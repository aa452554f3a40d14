// The schema in PostgreSQL: made once, refused when it is newer, and what a server is told that cannot carry
// it.
#include "backend/postgresql_schema.hpp"

#include <chrono>
#include <future>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/postgresql_schema_v1.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresCluster;
using isthmus::test::PostgresSession;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

/// The words with which `url` is refused, or "opened".
std::string refusal(const std::string& url) {
  try {
    open_shared(url);
  } catch (const OpenError& error) {
    return error.what();
  }
  return "opened";
}

void expect_one_line(const std::string& line, const std::string& words) {
  EXPECT_THAT(line, HasSubstr(words));
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
}

/// Everything in a database that a person could see.
std::vector<std::string> contents(const TestDatabase& database) {
  return database.sql(
      "SELECT c.oid, c.relname, c.xmin FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
      "WHERE nspname NOT IN ('pg_catalog', 'pg_toast', 'information_schema') UNION ALL "
      "SELECT oid, pubname, xmin FROM pg_publication UNION ALL SELECT oid, nspname, xmin FROM pg_namespace "
      "ORDER BY 1");
}

TEST(PostgresqlSchemaTest, IsMadeOnceAndKept) {
  const TestDatabase database;
  SiteId site = 0;
  {
    const auto log = open_shared(database.url());
    site = log->site();
    EXPECT_GT(site, 0);
    EXPECT_TRUE(log->durable());
    EXPECT_EQ(log->shared()->secret().size(), 64U);
  }
  EXPECT_EQ(database.integer("SELECT version FROM isthmus.schema_version"), kPostgresqlSchemaVersion);
  EXPECT_EQ(database.integer("SELECT id FROM isthmus.site"), site);
  const auto before = contents(database);
  EXPECT_EQ(open_shared(database.url())->site(), site);
  EXPECT_EQ(contents(database), before) << "a second start changes nothing";
  const TestDatabase other;
  EXPECT_NE(open_shared(other.url())->site(), site) << "two databases have two sites";
}

TEST(PostgresqlSchemaTest, PublishesInsertsIntoLogAndInbox) {
  const TestDatabase database;
  open_shared(database.url());
  EXPECT_THAT(
      database.sql("SELECT pubinsert, pubupdate, pubdelete, pubtruncate, pubviaroot FROM pg_publication"),
      ElementsAre("t|f|f|f|t", "t|f|f|f|t", "t|f|f|f|t"));
  const std::string site = database.value("SELECT id FROM isthmus.site");
  EXPECT_THAT(database.sql("SELECT pubname, tablename, rowfilter FROM pg_publication_tables ORDER BY 1, 2"),
              ElementsAre("isthmus_feed|inbox|", "isthmus_feed|log|", "isthmus_feed_of_writer|inbox|",
                          "isthmus_feed_of_writer|log|((version = 0) OR (kind = ANY (ARRAY['lease'::text, "
                          "'frontier'::text])) OR (site <> '" +
                              site + "'::bigint) OR copied)",
                          "isthmus_link|log|((site = '" + site + "'::bigint) AND (NOT copied))"));
  EXPECT_THAT(
      database.sql("SELECT array_to_string(attnames, ', ') FROM pg_publication_tables WHERE pubname = "
                   "'isthmus_link'"),
      ElementsAre(kLinkColumns));
}

TEST(PostgresqlSchemaTest, KeepsThePublicationOfASchemaThatWasDropped) {
  const TestDatabase database;
  open_shared(database.url());
  const auto publications = database.sql("SELECT oid FROM pg_publication ORDER BY oid");
  const auto tables =
      database.sql("SELECT pubname, tablename, attnames FROM pg_publication_tables ORDER BY 1, 2");
  database.sql("DROP SCHEMA isthmus CASCADE");
  open_shared(database.url());
  EXPECT_EQ(database.sql("SELECT oid FROM pg_publication ORDER BY oid"), publications);
  EXPECT_EQ(database.sql("SELECT pubname, tablename, attnames FROM pg_publication_tables ORDER BY 1, 2"),
            tables);
}

TEST(PostgresqlSchemaTest, IsMadeByOneOfManyServersAtOnce) {
  const TestDatabase database;
  std::vector<std::future<SiteId>> servers;
  for (int i = 0; i < 4; ++i) {
    servers.push_back(std::async(std::launch::async, [&] { return open_shared(database.url())->site(); }));
  }
  const SiteId site = servers.front().get();
  for (std::size_t i = 1; i < servers.size(); ++i) EXPECT_EQ(servers[i].get(), site);
  EXPECT_EQ(database.integer("SELECT count(*) FROM isthmus.schema_version"), 1);
}

TEST(PostgresqlSchemaTest, BringsVersion1UpToDateAndKeepsWhatIsThere) {
  const TestDatabase database;
  database.sql(kSchemaVersion1);
  database.sql(
      "CREATE TABLE isthmus.log_old PARTITION OF isthmus.log FOR VALUES FROM ('2020-01-01') TO "
      "('2020-02-01');"
      "INSERT INTO isthmus.log (site, origin, seq, version, db, kind, group_end, key, value) VALUES "
      "(1234567, 50, 2, 20, 0, 'set', true, 'later', 'tail'), (1234567, 50, 1, 10, 0, 'set', true, 'k', 'v');"
      "INSERT INTO isthmus.log (arrived, site, origin, seq, version, db, kind, group_end, key, value) VALUES "
      "('2020-01-02', 1234567, 49, 7, 5, 0, 'set', true, 'old', 'o');"
      "INSERT INTO isthmus.entry VALUES (0, 'k', 'string', 10, 1234567, 10, 1234567, NULL, 10, 1234567, 'v');"
      "INSERT INTO isthmus.field VALUES (0, 'h', 'f', 9, 1234567, false, 'w');"
      "INSERT INTO isthmus.progress (origin, seq, cut) VALUES (50, 1, 0), (49, 7, 3);"
      "UPDATE isthmus.site SET covered_from = clock_timestamp() - interval '1 hour'");
  const auto publications = database.sql("SELECT oid, pubname FROM pg_publication ORDER BY 2");
  const auto current = database.sql("SELECT * FROM isthmus.current ORDER BY key, field");
  EXPECT_EQ(current.size(), 3U);
  const auto log = open_connected(database.url());
  EXPECT_EQ(log->site(), 1234567);
  EXPECT_EQ(database.sql("SELECT version FROM isthmus.schema_version ORDER BY 1"),
            (std::vector<std::string>{"1", "4"}));
  EXPECT_EQ(database.sql("SELECT * FROM isthmus.current ORDER BY key, field"), current);
  EXPECT_EQ(
      database.sql("SELECT oid, pubname FROM pg_publication WHERE pubname <> 'isthmus_link' ORDER BY 2"),
      publications)
      << "never dropped";
  EXPECT_THAT(database.sql("SELECT origin, seq, cut, site FROM isthmus.progress ORDER BY 1"),
              ElementsAre("49|7|3|1234567", "50|1|0|1234567"));
  Row row = make_row(3, RowKind::incr, "later");
  row.origin = 50;
  row.count = {20, 1234567, 50, 4};
  log->append(make_batch({row}));
  const Recorder loaded = database.load();
  ASSERT_EQ(loaded.rows.size(), 2U);
  EXPECT_EQ(loaded.rows[0].value, "tail");
  EXPECT_EQ(loaded.rows[1].row.count.total, 4);
  // What a new database has, this one has too.
  const TestDatabase fresh;
  open_shared(fresh.url());
  const std::string columns =
      "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns WHERE "
      "table_schema = 'isthmus' AND table_name !~ '^log_' AND column_name <> 'position' ORDER BY 1, 2";
  EXPECT_EQ(database.sql(columns), fresh.sql(columns));
  const std::string comments =
      "SELECT c.relname, objsubid, description FROM pg_description d JOIN pg_class c ON c.oid = d.objoid "
      "WHERE "
      "d.classoid = 'pg_class'::regclass AND relnamespace = 'isthmus'::regnamespace AND objsubid = 0 AND "
      "c.relname !~ '^log_' ORDER BY 1";
  EXPECT_EQ(database.sql(comments), fresh.sql(comments));
  const std::string constraints =
      "SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = "
      "'isthmus'::regnamespace AND conrelid::regclass::text !~ 'log_' ORDER BY 1, 2";
  EXPECT_EQ(database.sql(constraints), fresh.sql(constraints));
}

// What version 2 lacks besides words: operations of the inbox, and what the view shows.
TEST(PostgresqlSchemaTest, BringsVersion2UpToDateAndKeepsWhatIsThere) {
  const TestDatabase database;
  open_connected(database.url())
      ->append(
          make_batch({make_row(1, RowKind::set, "k", "", "v"), make_row(2, RowKind::hset, "h", "f", "w")}));
  database.sql(
      "DROP VIEW isthmus.current; CREATE VIEW isthmus.current AS SELECT 0::smallint AS db, ''::text AS key, "
      "''::text AS type, ''::text AS field, ''::text AS value, now() AS expire_at, 0::bigint AS version, "
      "0::bigint "
      "AS site, ''::bytea AS key_bytes, ''::bytea AS field_bytes, ''::bytea AS value_bytes;"
      "ALTER TABLE isthmus.inbox DROP CONSTRAINT inbox_op_check, DROP CONSTRAINT inbox_check;"
      "ALTER TABLE isthmus.inbox ADD CONSTRAINT inbox_op_check CHECK (op IN ('set', 'hset', 'del', 'hdel', "
      "'expire', "
      "'publish')), ADD CONSTRAINT inbox_check CHECK (field IS NOT NULL OR op NOT IN ('hset', 'hdel'));"
      "DROP FUNCTION isthmus.sadd(text, text, integer);"
      "ALTER TABLE isthmus.log ADD COLUMN position bigint;"
      "UPDATE isthmus.schema_version SET version = 2");
  const auto log = open_connected(database.url());
  EXPECT_EQ(database.sql("SELECT version FROM isthmus.schema_version ORDER BY 1"),
            (std::vector<std::string>{"2", "4"}));
  log->append(make_batch({make_row(3, RowKind::screate, "t", "m")}));
  EXPECT_THAT(database.sql("SELECT key, type, field, value FROM isthmus.current ORDER BY key"),
              ElementsAre("h|hash|f|w", "k|string||v", "t|set|m|"));
  database.sql("SELECT isthmus.sadd('t', 'n'); SELECT isthmus.srem('t'::bytea, 'm'::bytea)");
  EXPECT_THAT(database.sql("SELECT op, field FROM isthmus.inbox ORDER BY id"),
              ElementsAre("sadd|\\x6e", "srem|\\x6d"));
}

// What version 3 lacks besides words: that changes share rows, and the view that takes them apart.
TEST(PostgresqlSchemaTest, BringsVersion3UpToDateAndKeepsWhatIsThere) {
  const TestDatabase database;
  open_connected(database.url())->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  database.sql(
      "DROP VIEW isthmus.changes CASCADE; DROP FUNCTION isthmus.changes_of(bytea, bytea, bytea, bytea); "
      "UPDATE isthmus.schema_version SET version = 3");
  open_shared(database.url());
  EXPECT_EQ(database.sql("SELECT version FROM isthmus.schema_version ORDER BY 1"),
            (std::vector<std::string>{"3", "4"}));
  EXPECT_THAT(database.sql("SELECT kind, key, value FROM isthmus.changes"), ElementsAre("set|k|v"));
  EXPECT_THAT(database.sql("SELECT key, value FROM isthmus.current"), ElementsAre("k|v"));
}

TEST(PostgresqlSchemaTest, FillsThePositionsOfVersion2NoMoreAndLeavesTheirColumn) {
  const TestDatabase database;
  open_shared(database.url());
  database.sql(
      "ALTER TABLE isthmus.log ADD COLUMN position bigint; ALTER TABLE isthmus.log ALTER COLUMN position SET "
      "NOT NULL; "
      "UPDATE isthmus.schema_version SET version = 2");
  const auto log = open_connected(database.url());
  log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  EXPECT_EQ(database.sql("SELECT version FROM isthmus.schema_version ORDER BY 1"),
            (std::vector<std::string>{"2", "4"}));
  EXPECT_EQ(database.integer("SELECT count(*) FROM isthmus.log WHERE position IS NULL"), 1)
      << "a server of version 2 may still name it";
  EXPECT_EQ(database.load().rows.size(), 1U);
}

TEST(PostgresqlSchemaTest, RefusesANewerOneAndTouchesNothing) {
  const TestDatabase database;
  open_shared(database.url());
  database.sql("INSERT INTO isthmus.schema_version (version) VALUES (99)");
  const auto before = contents(database);
  expect_one_line(refusal(database.url()), "version 99 of a newer Isthmus");
  EXPECT_EQ(contents(database), before);
}

TEST(PostgresqlSchemaTest, RefusesASchemaOfSomebodyElse) {
  const TestDatabase database;
  database.sql("CREATE SCHEMA isthmus");
  expect_one_line(refusal(database.url()), "schema named isthmus that is not ours");
}

TEST(PostgresqlSchemaTest, ExplainsItselfInEveryTable) {
  const TestDatabase database;
  open_shared(database.url());
  EXPECT_THAT(
      database.sql("SELECT relname FROM pg_class WHERE relnamespace = 'isthmus'::regnamespace "
                   "AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND obj_description(oid) IS NULL"),
      IsEmpty());
}

TEST(PostgresqlSchemaTest, NamesTheRightsThatARoleLacks) {
  const TestDatabase database;
  const std::string role = "role_of_" + database.name();
  database.sql("CREATE ROLE " + role + " LOGIN");
  expect_one_line(refusal(database.url(role)), "ALTER ROLE " + role + " REPLICATION");
  database.sql("ALTER ROLE " + role + " REPLICATION");
  expect_one_line(refusal(database.url(role)), "GRANT CREATE ON DATABASE " + database.name() + " TO " + role);
  EXPECT_EQ(database.integer("SELECT count(*) FROM pg_namespace WHERE nspname = 'isthmus'"), 0);
  open_shared(database.url());
  expect_one_line(refusal(database.url(role)), "belongs to another role");
  database.sql(
      "DROP SCHEMA isthmus CASCADE; DROP PUBLICATION isthmus_feed, isthmus_feed_of_writer, isthmus_link; "
      "GRANT CREATE ON "
      "DATABASE " +
      database.name() + " TO " + role);
  EXPECT_EQ(refusal(database.url(role)), "opened") << "no superuser is needed";
  database.sql("DROP OWNED BY " + role + " CASCADE; DROP ROLE " + role);
}

TEST(PostgresqlSchemaTest, NamesTheSettingsOfAServerThatCannotReplicate) {
  PostgresCluster cluster(PostgresCluster::Settings{{"wal_level", "replica"}});
  expect_one_line(refusal(cluster.url()), "set wal_level = logical");
  cluster.configure({{"wal_level", "logical"}, {"max_replication_slots", "1"}});
  cluster.restart();
  expect_one_line(refusal(cluster.url()), "max_replication_slots");
  cluster.configure({{"max_replication_slots", "4"}, {"max_wal_senders", "0"}});
  cluster.restart();
  expect_one_line(refusal(cluster.url()), "max_wal_senders");
  EXPECT_EQ(cluster.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'isthmus'"), "0");
  cluster.configure({{"max_wal_senders", "4"}});
  cluster.restart();
  EXPECT_EQ(refusal(cluster.url()), "opened");
}

TEST(PostgresqlSchemaTest, RefusesAStandbyUntilItIsPromoted) {
  PostgresCluster primary;
  open_shared(primary.url());
  const auto standby = PostgresCluster::standby_of(primary);
  expect_one_line(refusal(standby->url()), "read-only standby");
  const std::string both = "postgresql://postgres@127.0.0.1:" + std::to_string(standby->port()) +
                           ",127.0.0.1:" + std::to_string(primary.port()) + "/postgres";
  EXPECT_EQ(refusal(both), "opened") << "the primary is found behind the standby";
  primary.stop("immediate");
  standby->promote();
  EXPECT_EQ(refusal(both), "opened");
}

TEST(PostgresqlSchemaTest, ShowsNoPasswordAnywhere) {
  const std::string port = std::to_string(shared_cluster().port());
  const TestDatabase database;
  const std::string with_password = "postgresql://postgres:s3cret@127.0.0.1:" + port + "/" + database.name();
  EXPECT_EQ(open_shared(with_password)->description(),
            "postgresql://127.0.0.1:" + port + "/" + database.name());
  const std::string socket = "host=" + shared_cluster().socket_folder() + " port=" + port +
                             " user=postgres password=s3cret dbname=" + database.name();
  EXPECT_EQ(open_shared(socket)->description(), "postgresql:///" + database.name() + "?host=" +
                                                    shared_cluster().socket_folder() + "&port=" + port);
  for (const std::string& url : std::vector<std::string>{
           "postgresql://postgres:s3cret@127.0.0.1:1/db",
           "postgresql://nobody:s3cret@127.0.0.1:" + port + "/db", "postgresql://u:pa/s3cret@h/db",
           "postgresql://u:12/s3cret@h/db", "postgresql://u:x@s3cret@h/db", "postgresql://u:s3cret%@h/db",
           "postgresql://u:pa/s?s3cret@h/db", "password=a s3cret host=h", "password=s3cret hst=h",
           "postgresql://h/db?password=s3cret&x=y"}) {
    const std::string line = refusal(url);
    EXPECT_NE(line, "opened") << url;
    EXPECT_EQ(line.find("s3cret"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  }
}

TEST(PostgresqlSchemaTest, MakesPartitionsAheadWithoutGaps) {
  const TestDatabase database;
  open_shared(database.url(), std::chrono::seconds{600});
  const std::string bounds =
      "SELECT count(*), count(*) FILTER (WHERE next IS DISTINCT FROM upper), "
      "min(lower) <= now() AND max(upper) > now() + interval '9 minutes' FROM ("
      "SELECT b[1]::timestamptz AS lower, b[2]::timestamptz AS upper, lead(b[1]::timestamptz) OVER (ORDER BY "
      "b[1]) AS next "
      "FROM (SELECT regexp_match(pg_get_expr(relpartbound, oid), 'FROM \\(''(.*)''\\) TO \\(''(.*)''\\)') AS "
      "b "
      "FROM pg_class WHERE relispartition AND relkind = 'r') p WHERE b IS NOT NULL) q";
  // 6 of 120 s cover any 10 minutes, 5 if those begin with one. Only the last has none behind it.
  EXPECT_THAT(database.sql(bounds), ElementsAre(::testing::AnyOf("6|1|t", "5|1|t")));
  // Another retention makes others, which must fit behind them.
  PgConnection connection(database.url());
  EXPECT_GT(make_partitions(connection, std::chrono::seconds{500}), 0);
  EXPECT_THAT(database.sql(bounds), ElementsAre(::testing::EndsWith("|1|t")));
}

TEST(PostgresqlSchemaTest, MakesPartitionsWhileAReaderHoldsTheLog) {
  const TestDatabase database;
  open_shared(database.url());
  PostgresSession reader(database.url());
  PgConnection connection(database.url());
  reader.sql("BEGIN; SELECT count(*) FROM isthmus.log");
  EXPECT_EQ(make_partitions(connection, std::chrono::seconds{7000}), 0)
      << "gives up, as the reader holds the default";
  reader.sql("COMMIT");
  EXPECT_GT(make_partitions(connection, std::chrono::seconds{7000}), 0);
}

}  // namespace
}  // namespace isthmus::backend::test
