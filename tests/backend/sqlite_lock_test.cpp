// Two servers must never write to one SQLite file, whatever became of the lock file, and of the file's names.
#include <filesystem>
#include <memory>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/sqlite_log.hpp"
#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using testing::HasSubstr;
using testing::SizeIs;
namespace fs = std::filesystem;

class SqliteLock : public testing::Test {
 protected:
  std::string lock_file() const { return folder_.path() + "-lock"; }
  std::unique_ptr<Log> open() const { return open_sqlite_log(folder_.path()); }
  /// Why the row was not taken, or nothing.
  static std::string append(Log& log, Seq seq) {
    try {
      log.append(make_batch({make_row(seq, RowKind::set, "k", "", "v")}));
    } catch (const AppendError& error) {
      EXPECT_EQ(error.kind, AppendError::Kind::unavailable);
      return error.what();
    }
    return "";
  }
  static std::string refusal(const std::string& path) {
    try {
      open_sqlite_log(path);
    } catch (const OpenError& error) {
      return error.what();
    }
    return "";
  }

  TempFolder folder_;
};

TEST_F(SqliteLock, AServerWithoutItsLockFileWritesNoMore) {
  const auto log = open();
  EXPECT_EQ(append(*log, 1), "");
  fs::remove(lock_file());
  EXPECT_THAT(append(*log, 2), HasSubstr("restart this one"));
  EXPECT_THAT(append(*log, 2), HasSubstr(lock_file()));
  EXPECT_THAT(load(folder_.url()).rows, SizeIs(1));
}

TEST_F(SqliteLock, TheNextServerKeepsItsLockFileWhenTheFormerEnds) {
  auto former = open();
  EXPECT_EQ(append(*former, 1), "");
  fs::remove(lock_file());
  const auto next = open();
  EXPECT_EQ(append(*next, 2), "");
  EXPECT_THAT(append(*former, 3), HasSubstr("another server may use this database"));
  former.reset();
  EXPECT_TRUE(fs::exists(lock_file()));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("another server"));
  EXPECT_EQ(append(*next, 3), "");
}

// What the former server has under way is waited for: its commit is there before the next one reads.
TEST_F(SqliteLock, TheNextServerWaitsForATransactionUnderWay) {
  open();
  const Connection former(folder_.path(), Connection::Mode::existing);
  former.execute("BEGIN IMMEDIATE");
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("another process"));
  former.execute("ROLLBACK");
  EXPECT_EQ(refusal(folder_.path()), "");
}

TEST_F(SqliteLock, AFileWithTwoNamesIsRefusedByBoth) {
  open();
  const std::string other = folder_.path("other.db");
  fs::create_hard_link(folder_.path(), other);
  const auto before = folder_.contents();
  EXPECT_THAT(refusal(other), HasSubstr("hard link"));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("hard link"));
  EXPECT_EQ(folder_.contents(), before);
  fs::remove(other);
  EXPECT_EQ(refusal(folder_.path()), "");
}

TEST_F(SqliteLock, ASymbolicLinkIsNoSecondName) {
  open();
  fs::create_symlink(folder_.path(), folder_.path("link.db"));
  const auto log = open_sqlite_log(folder_.path("link.db"));
  EXPECT_TRUE(fs::exists(lock_file()));
  EXPECT_THAT(refusal(folder_.path()), HasSubstr("another server"));
}

}  // namespace
}  // namespace isthmus::backend::test
