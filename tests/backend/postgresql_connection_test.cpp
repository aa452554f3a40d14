// Sessions on PostgreSQL, their deadlines and errors, and the bytes of COPY.
#include "backend/postgresql_connection.hpp"

#include <chrono>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/postgresql_copy.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using namespace std::chrono_literals;

/// The error that `body` throws.
template <typename Body>
PgError error_of(const Body& body) {
  try {
    body();
  } catch (const PgError& error) {
    return error;
  }
  return PgError("nothing was thrown", "00000", false);
}

TEST(PostgresqlConnectionTest, CarriesParametersInBinary) {
  PgConnection connection(shared_cluster().url());
  PgArray numbers(PgType::int8), names(PgType::bytea), flags(PgType::boolean);
  for (std::int64_t i : {std::int64_t{-1}, std::int64_t{1} << 62U}) numbers.add(i);
  numbers.add_null();
  for (std::string_view name : {std::string_view("a\0b", 3), std::string_view(), std::string_view("\xff")})
    names.add(name);
  for (std::int64_t flag : {1, 0, 1}) flags.add(flag);
  const PgResult rows = connection.exec("SELECT n, b, f FROM unnest($1, $2, $3) AS u (n, b, f)",
                                        PgParams().add(numbers).add(names).add(flags));
  ASSERT_EQ(rows.rows(), 3);
  EXPECT_EQ(rows.integer(0, 0), -1);
  EXPECT_EQ(rows.integer(1, 0), std::int64_t{1} << 62U);
  EXPECT_TRUE(rows.is_null(2, 0));
  EXPECT_EQ(rows.bytes(0, 1), std::string_view("a\0b", 3));
  EXPECT_EQ(rows.bytes(1, 1), "");
  EXPECT_FALSE(rows.is_null(1, 1));
  EXPECT_EQ(rows.bytes(2, 1), "\xff");
  EXPECT_TRUE(rows.boolean(0, 2));
  EXPECT_FALSE(rows.boolean(1, 2));
  PgArray none(PgType::text);
  EXPECT_EQ(
      connection.exec("SELECT cardinality($1), $2::text IS NULL", PgParams().add(none).add_null(PgType::text))
          .integer(0, 0),
      0);
}

TEST(PostgresqlConnectionTest, HasNoLimitsOfTheRole) {
  const auto& cluster = shared_cluster();
  cluster.sql(
      "DROP ROLE IF EXISTS limited; CREATE ROLE limited LOGIN; "
      "ALTER ROLE limited SET statement_timeout = '1s'; ALTER ROLE limited SET idle_session_timeout = '60s'");
  PgConnection connection(cluster.url("postgres", "limited"));
  EXPECT_NO_THROW(connection.exec("SELECT pg_sleep(1.5)"));
  EXPECT_EQ(connection.exec("SHOW idle_session_timeout").string(0, 0), "0");
}

TEST(PostgresqlConnectionTest, GoesOnAfterAnError) {
  PgConnection connection(shared_cluster().url());
  const PgError error = error_of([&] { connection.exec("SELECT 1; SELECT 1 / 0; SELECT 2"); });
  EXPECT_EQ(error.sqlstate, "22012");
  EXPECT_FALSE(error.connection_lost);
  EXPECT_EQ(connection.exec("SELECT 3").integer(0, 0), 3);
  EXPECT_EQ(error_of([&] {
              CopyReader(connection, "COPY (SELECT 1 / 0) TO STDOUT (FORMAT binary)").next();
            }).sqlstate,
            "22012");
  EXPECT_EQ(connection.exec("SELECT 4").integer(0, 0), 4);
}

TEST(PostgresqlConnectionTest, GivesUpAServerThatDoesNotAnswer) {
  PgConnection connection(shared_cluster().url());
  connection.set_statement_wait(200ms);
  const auto begin = std::chrono::steady_clock::now();
  const PgError error = error_of([&] { connection.exec("SELECT pg_sleep(60)"); });
  EXPECT_TRUE(error.connection_lost) << error.what();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
  EXPECT_TRUE(error_of([&] { connection.exec("SELECT 1"); }).connection_lost) << "and stays lost";
}

TEST(PostgresqlConnectionTest, KnowsThatItsBackendWasEnded) {
  PgConnection connection(shared_cluster().url());
  shared_cluster().sql("SELECT pg_terminate_backend(" + std::to_string(connection.backend_pid()) +
                       ", 30000)");
  EXPECT_TRUE(error_of([&] { connection.exec("SELECT 1"); }).connection_lost);
}

TEST(PostgresqlConnectionTest, TakesNothingOfACancelledCopy) {
  PgConnection connection(shared_cluster().url());
  connection.exec("CREATE TEMP TABLE t (i bigint)");
  connection.send("COPY t FROM STDIN (FORMAT binary)");
  connection.await_copy_in();
  std::string bytes;
  append_copy_header(bytes);
  connection.copy_in(bytes);
  connection.cancel_copy_in("never mind");
  EXPECT_EQ(connection.exec("SELECT count(*) FROM t").integer(0, 0), 0);
}

TEST(PostgresqlConnectionTest, DescribesPlacesWithoutSecrets) {
  EXPECT_EQ(describe_conninfo("postgresql://u:p@h:6000/d?sslmode=require"), "postgresql://h:6000/d");
  EXPECT_EQ(describe_conninfo("postgresql://u:p@h1:1,h2:2/d"), "postgresql://h1:1,h2:2/d");
  EXPECT_EQ(describe_conninfo("host=h1,h2 port=7 dbname=d password=p"), "postgresql://h1:7,h2:7/d");
  EXPECT_EQ(describe_conninfo("service=main password=p"), "postgresql://?service=main");
  EXPECT_EQ(describe_conninfo("postgresql:///d?host=/run/pg&port=7&password=p"),
            "postgresql:///d?host=/run/pg&port=7");
}

TEST(PostgresqlConnectionTest, TellsItsUrlsFromOthers) {
  for (const char* ours : {"postgresql://", "postgres://h/d", "host=h", "dbname = d", "service=s"}) {
    EXPECT_TRUE(is_postgresql_url(ours)) << ours;
  }
  for (const char* other : {"", "memory:", "sqlite:a=b", "redis://h?x=y", "/a/b=c", "=x", "POSTGRESQL://h"}) {
    EXPECT_FALSE(is_postgresql_url(other)) << other;
  }
}

/// A COPY of two rows with two columns.
std::string copy_bytes() {
  std::string bytes;
  append_copy_header(bytes);
  bytes += std::string("\0\2\0\0\0\3abc\xff\xff\xff\xff", 13);
  bytes += std::string("\0\2\0\0\0\0\0\0\0\2\1\2", 12);
  append_copy_trailer(bytes);
  return bytes;
}

std::vector<std::string> decode(const std::vector<std::string>& pieces) {
  CopyDecoder decoder;
  std::vector<std::string> rows;
  for (const std::string& piece : pieces) {
    decoder.feed(piece);
    for (;;) {
      const CopyDecoder::Step step = decoder.next();
      if (step == CopyDecoder::Step::need_more) break;
      if (step == CopyDecoder::Step::end) return rows;
      std::string row;
      for (std::size_t i = 0; i < decoder.columns(); ++i) {
        row += decoder.is_null(i) ? "NULL " : "'" + std::string(decoder.bytes(i)) + "' ";
      }
      rows.push_back(row);
    }
  }
  rows.push_back("(no end)");
  return rows;
}

TEST(PostgresqlCopyTest, IsDecodedWhereverItIsSplit) {
  const std::string bytes = copy_bytes();
  const auto whole = decode({bytes});
  EXPECT_THAT(whole, ElementsAre("'abc' NULL ", "'' '\1\2' "));
  for (std::size_t at = 1; at < bytes.size(); ++at) {
    EXPECT_EQ(decode({bytes.substr(0, at), bytes.substr(at)}), whole) << at;
    EXPECT_EQ(decode({bytes.substr(0, at)}).back(), "(no end)") << at;
  }
  std::vector<std::string> single;
  for (const char byte : bytes) single.emplace_back(1, byte);
  EXPECT_EQ(decode(single), whole);
}

TEST(PostgresqlCopyTest, RefusesBytesThatAreNoCopy) {
  std::string signature = copy_bytes();
  signature[3] = 'x';
  EXPECT_EQ(error_of([&] { decode({signature}); }).sqlstate, "XX001");
  std::string length = copy_bytes();
  length[21] = '\x90';
  EXPECT_EQ(error_of([&] { decode({length}); }).sqlstate, "XX001");
}

}  // namespace
}  // namespace isthmus::backend::test
