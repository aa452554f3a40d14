// Whoever opens the file of a SQLite backend may write any number of a database into it.
#include <string>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::HasSubstr;

/// Statements that put a row of the database number @ into each table that has one.
constexpr std::pair<const char*, const char*> kRows[] = {
    {"log",
     "INSERT INTO log (arrived, site, origin, seq, version, db, kind, group_end, key, value) VALUES "
     "(1, 7, 1000, 1, 1, @, 'set', 1, x'6b', x'76')"},
    {"entry",
     "INSERT INTO entry (db, key, type, version, site, cut_version, cut_site, expire_version, expire_site, "
     "value) VALUES (@, x'6b', 'string', 1, 7, 0, 0, 0, 0, x'76')"},
    {"field",
     "INSERT INTO field (db, key, field, version, site, deleted, value) VALUES (@, x'6b', x'66', 1, 7, 0, "
     "x'76')"},
};

/// What loading a file says that has this row.
std::string loading_with(std::string row, int number) {
  const TempFolder folder;
  open_log(folder.url());
  run_sql(folder.path(), row.replace(row.find('@'), 1, std::to_string(number)));
  try {
    load(folder.url());
  } catch (const OpenError& error) {
    return error.what();
  }
  return "loaded";
}

TEST(SqliteDatabaseNumber, IsRefusedIfThereIsNoSuchDatabase) {
  for (const auto& [table, row] : kRows) {
    EXPECT_EQ(loading_with(row, 15), "loaded") << table;
    for (const int number : {200, 16, 256, -1}) {
      EXPECT_THAT(loading_with(row, number), HasSubstr("the database " + std::to_string(number) + ","))
          << table;
    }
  }
}

}  // namespace
}  // namespace isthmus::backend::test
