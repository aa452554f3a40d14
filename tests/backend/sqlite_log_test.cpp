// The log in SQLite: what is appended comes back, what is covered goes, and what SQL cannot hold is refused.
#include "backend/sqlite_log.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Seq> seqs(const Recorder& recorder) {
  std::vector<Seq> found;
  for (const OwnedRow& row : recorder.rows) found.push_back(row.row.seq);
  return found;
}

/// Appends rows from..to, one batch.
void append_range(Log& log, Seq from, Seq to, OriginId origin = kOrigin) {
  RowBatch batch;
  for (Seq seq = from; seq <= to; ++seq) {
    Row row = make_row(seq, RowKind::set, "key", "", "value");
    row.origin = origin;
    batch.append(row);
  }
  log.append(batch);
}

void cut_all(Log& log) {
  while (log.cut()) {
  }
}

/// Kinds that only a shared log of linked sites has.
bool is_of_links(RowKind kind) {
  return is_count(kind) || kind == RowKind::htype || kind == RowKind::stype || kind == RowKind::frontier ||
         kind == RowKind::reach || kind == RowKind::subscribers;
}

std::vector<Row> rows_of_every_kind() {
  std::vector<Row> rows;
  for (int i = 0; i <= static_cast<int>(RowKind::lease); ++i) {
    if (is_of_links(static_cast<RowKind>(i))) continue;
    Row row = make_row(rows.size() + 1, static_cast<RowKind>(i), std::string_view("\0\xff key", 6), "field",
                       "value");
    row.db = static_cast<std::uint8_t>(i % (kMaxDb + 1));
    row.group_end = i % 2 == 0;
    row.expire_at = i % 3 == 0 ? std::optional<std::int64_t>(1'700'000'000'000 + i) : std::nullopt;
    row.sent_at = i;
    rows.push_back(row);
    rows.push_back(make_row(rows.size() + 1, static_cast<RowKind>(i)));
  }
  return rows;
}

void expect_same(const Row& got, const Row& wanted) {
  EXPECT_EQ(got.site, wanted.site);
  EXPECT_EQ(got.origin, wanted.origin);
  EXPECT_EQ(got.seq, wanted.seq);
  EXPECT_EQ(got.version, wanted.version);
  EXPECT_EQ(got.db, wanted.db);
  EXPECT_EQ(got.kind, wanted.kind);
  EXPECT_EQ(got.group_end, wanted.group_end);
  EXPECT_EQ(got.key, wanted.key);
  EXPECT_EQ(got.field, wanted.field);
  EXPECT_EQ(got.value, wanted.value);
  EXPECT_EQ(got.expire_at, wanted.expire_at);
  EXPECT_EQ(got.sent_at, wanted.sent_at);
}

TEST(SqliteLog, GivesBackEveryColumnOfEveryKind) {
  const TempFolder folder;
  std::vector<Row> rows = rows_of_every_kind();
  rows.front().version = rows.front().seq = (std::uint64_t{1} << 63U) - 1;
  open_log(folder.url())->append(make_batch(rows));
  const Recorder recorder = load(folder.url());
  // The first row has the highest seq of its origin, so the others would count as repeats.
  ASSERT_EQ(recorder.rows.size(), 1U);
  expect_same(recorder.rows.front().view(), rows.front());
  const TempFolder second;
  rows.erase(rows.begin());
  open_log(second.url())->append(make_batch(rows));
  const Recorder rest = load(second.url());
  ASSERT_EQ(rest.rows.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    SCOPED_TRACE(row_kind_name(rows[i].kind));
    expect_same(rest.rows[i].view(), rows[i]);
  }
}

TEST(SqliteLog, RefusesRowsOfLinkedSites) {
  const TempFolder folder;
  std::unique_ptr<Log> log = open_log(folder.url());
  Row copied = make_row(1, RowKind::set, "k", "", "v");
  copied.copied = true;
  std::vector<Row> rows = {copied};
  for (int i = 0; i <= static_cast<int>(RowKind::subscribers); ++i) {
    if (is_of_links(static_cast<RowKind>(i))) rows.push_back(make_row(1, static_cast<RowKind>(i), "k", "f"));
  }
  ASSERT_EQ(rows.size(), 8U);
  for (const Row& row : rows) {
    SCOPED_TRACE(row_kind_name(row.kind));
    EXPECT_THROW(log->append(make_batch({row})), AppendError);
  }
  log.reset();
  EXPECT_TRUE(load(folder.url()).rows.empty());
}

TEST(SqliteLog, IsReadableByAPerson) {
  const TempFolder folder;
  SqliteOptions options;
  options.clock = [] { return 1234; };
  Row expire = make_row(3, RowKind::expire, "k");
  expire.expire_at = 99;
  expire.group_end = false;
  open_sqlite_log(folder.path(), options)
      ->append(make_batch({make_row(1, RowKind::hset, "k", "f", "v"), make_row(2, RowKind::flush), expire}));
  EXPECT_THAT(query_lines(folder.path(), "SELECT * FROM log"),
              ElementsAre("1|1234|7|1000|1|1|0|hset|1|k|f|||v", "2|1234|7|1000|2|2|0|flush|1|||||",
                          "3|1234|7|1000|3|3|0|expire|0|k||99||"));
}

TEST(SqliteLog, TakesAnEmptyBatch) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  log->append(RowBatch());
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 0);
}

TEST(SqliteLog, KeepsTheOrderWithinEachOrigin) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 3, 2);
    append_range(*log, 1, 2, 1);
    append_range(*log, 4, 4, 2);
  }
  const Recorder recorder = load(folder.url());
  EXPECT_THAT(seqs(recorder), ElementsAre(1, 2, 3, 1, 2, 4));
}

TEST(SqliteLog, LoadsARepeatedRowOnce) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 3);
    append_range(*log, 2, 4);
  }
  EXPECT_THAT(seqs(load(folder.url())), ElementsAre(1, 2, 3, 4));
}

TEST(SqliteLog, LoadsOnlyWhatTheCheckpointDoesNotCover) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 3, 1);
    append_range(*log, 1, 3, 2);
    log->finish_checkpoint({{1, 2}, {3, 5}});
  }
  EXPECT_THAT(seqs(load(folder.url())), ElementsAre(3, 1, 2, 3));
}

TEST(SqliteLog, NeverTakesProgressBack) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 5);
    log->finish_checkpoint({{kOrigin, 4}});
    log->finish_checkpoint({{kOrigin, 2}});
    log->finish_checkpoint({});
  }
  EXPECT_THAT(seqs(load(folder.url())), ElementsAre(5));
}

TEST(SqliteLog, CutsWhatIsCoveredAndNothingElse) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  append_range(*log, 1, 3, 1);
  append_range(*log, 1, 3, 2);
  append_range(*log, 4, 6, 1);
  cut_all(*log);
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 9);
  log->finish_checkpoint({{1, 5}, {2, 1}});
  cut_all(*log);
  EXPECT_THAT(query_lines(folder.path(), "SELECT origin, seq FROM log"), ElementsAre("2|2", "2|3", "1|6"));
  log->finish_checkpoint({{1, 6}, {2, 3}});
  append_range(*log, 7, 7, 1);
  cut_all(*log);
  EXPECT_THAT(query_lines(folder.path(), "SELECT origin, seq FROM log"), ElementsAre("1|7"));
}

TEST(SqliteLog, CutsInPieces) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  for (Seq from = 1; from <= 12'000; from += 1000) append_range(*log, from, from + 999);
  log->finish_checkpoint({{kOrigin, 12'000}});
  EXPECT_TRUE(log->cut());
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 7000);
  EXPECT_TRUE(log->cut());
  EXPECT_FALSE(log->cut());
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 0);
  EXPECT_FALSE(log->cut());
}

TEST(SqliteLog, CutsHugeRowsInSmallerPieces) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  const std::string value(3U << 20U, 'v');
  for (Seq seq = 1; seq <= 6; ++seq) log->append(make_batch({make_row(seq, RowKind::set, "k", "", value)}));
  log->finish_checkpoint({{kOrigin, 6}});
  EXPECT_TRUE(log->cut());
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 3);
  cut_all(*log);
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 0);
}

TEST(SqliteLog, GoesOnCuttingAfterARestart) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 10);
    log->finish_checkpoint({{kOrigin, 10}});
  }
  const auto log = open_log(folder.url());
  cut_all(*log);
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 0);
}

TEST(SqliteLog, NeverUsesAPositionAgain) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    append_range(*log, 1, 10);
    log->finish_checkpoint({{kOrigin, 10}});
    cut_all(*log);
  }
  append_range(*open_log(folder.url()), 11, 11);
  EXPECT_EQ(query_integer(folder.path(), "SELECT position FROM log"), 11);
}

TEST(SqliteLog, UsesTheSpaceOfWhatWasCut) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  Seq seq = 0;
  const auto round = [&] {
    for (int i = 0; i < 20; ++i, seq += 1000) append_range(*log, seq + 1, seq + 1000);
    log->finish_checkpoint({{kOrigin, seq}});
    cut_all(*log);
    return query_integer(folder.path(), "PRAGMA page_count");
  };
  round();
  const std::int64_t settled = round();
  for (int i = 0; i < 5; ++i) EXPECT_LE(round(), settled + settled / 2);
}

TEST(SqliteLog, RefusesToLoadWhatANewerServerWrote) {
  const TempFolder folder;
  append_range(*open_log(folder.url()), 1, 2);
  run_sql(folder.path(), "UPDATE log SET kind = 'zadd' WHERE seq = 2");
  try {
    load(folder.url());
    FAIL() << "loaded";
  } catch (const OpenError& error) {
    EXPECT_THAT(error.what(), HasSubstr("zadd"));
    EXPECT_THAT(error.what(), HasSubstr("newer"));
  }
}

TEST(SqliteLog, RejectsWhatSqlCannotHoldAndTakesTheRest) {
  const TempFolder folder;
  SqliteOptions options;
  options.max_row_bytes = 1000;
  const auto log = open_sqlite_log(folder.path(), options);
  const std::string value(998, 'v');
  const auto kind_of = [&](const std::vector<Row>& rows) {
    try {
      log->append(make_batch(rows));
    } catch (const AppendError& error) {
      return error.kind == AppendError::Kind::rejected ? "rejected" : "unavailable";
    }
    return "taken";
  };
  Row high_version = make_row(2, RowKind::del, "k");
  high_version.version = std::uint64_t{1} << 63U;
  const Row fits = make_row(1, RowKind::hset, "", "f", value);
  EXPECT_STREQ(kind_of({fits, make_row(2, RowKind::hset, "kk", "f", value)}), "rejected");
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 0)
      << "nothing of a rejected batch stays";
  EXPECT_STREQ(kind_of({fits, high_version}), "rejected");
  EXPECT_STREQ(kind_of({fits}), "taken");
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 1);
}

}  // namespace
}  // namespace isthmus::backend::test
