// Opening a backend: what is refused, in what words, and that nothing is touched then.
#include <filesystem>
#include <functional>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backend/log.hpp"
#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::HasSubstr;

/// The words with which `url` is refused, or "opened".
std::string refusal(const std::string& url) {
  try {
    open_log(url);
  } catch (const OpenError& error) {
    return error.what();
  }
  return "opened";
}

/// Expects a refusal in one line that holds `words`, and a folder as it was.
void expect_refused(const TempFolder& folder, const std::string& url, const std::string& words) {
  const auto before = folder.contents();
  const std::string line = refusal(url);
  EXPECT_THAT(line, HasSubstr(words)) << url;
  EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  EXPECT_EQ(folder.contents(), before) << url;
}

TEST(OpenLog, MemoryKeepsNothing) {
  const auto log = open_log("memory:");
  EXPECT_FALSE(log->durable());
  EXPECT_GT(log->site(), 0);
  EXPECT_EQ(log->description(), "memory:");
  EXPECT_EQ(log->disk_bytes(), 0U);
  log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  log->write_checkpoint({{StoredKey{}}, {}});
  log->finish_checkpoint({{kOrigin, 1}});
  EXPECT_FALSE(log->cut());
  EXPECT_FALSE(log->forget_flushed(0, 1, 1));
  Recorder recorder;
  log->load(recorder);
  EXPECT_TRUE(recorder.keys.empty() && recorder.fields.empty() && recorder.rows.empty());
}

TEST(OpenLog, RefusesOtherKindsAndNamesOurs) {
  for (const char* url : {"", "memory", "memory:x", "sqlite", "SQLITE:x", "redis://u:secret@h", "/a/path"}) {
    const std::string line = refusal(url);
    EXPECT_THAT(line, HasSubstr("memory:")) << url;
    EXPECT_THAT(line, HasSubstr("sqlite:PATH")) << url;
    EXPECT_EQ(line.find("secret"), std::string::npos) << line;
  }
}

TEST(OpenSqlite, MakesADatabaseThatIsMarkedAsOurs) {
  const TempFolder folder;
  SiteId site = 0;
  {
    const auto log = open_log(folder.url());
    EXPECT_TRUE(log->durable());
    EXPECT_EQ(log->description(), folder.url());
    EXPECT_GT(log->disk_bytes(), 0U);
    site = log->site();
    EXPECT_GT(site, 0);
  }
  EXPECT_EQ(query_integer(folder.path(), "PRAGMA application_id"), 0x49737468);
  EXPECT_EQ(query_integer(folder.path(), "PRAGMA user_version"), 2);
  EXPECT_EQ(query_integer(folder.path(), "SELECT version FROM schema_version"), 2);
  EXPECT_EQ(query_lines(folder.path(), "PRAGMA journal_mode"), std::vector<std::string>{"wal"});
  EXPECT_EQ(open_log(folder.url())->site(), site) << "a database keeps its site id";
  const TempFolder other;
  EXPECT_NE(open_log(other.url())->site(), site) << "two databases have two";
}

TEST(OpenSqlite, LeavesOnlyTheDatabaseWhenItIsClosed) {
  const TempFolder folder;
  open_log(folder.url());
  const auto files = folder.contents();
  EXPECT_EQ(files.size(), 1U);
  EXPECT_TRUE(files.contains(folder.path()));
}

TEST(OpenSqlite, TakesAnEmptyFileForANewDatabase) {
  const TempFolder folder;
  write_file(folder.path(), "");
  EXPECT_EQ(refusal(folder.url()), "opened");
}

TEST(OpenSqlite, IgnoresTheDraftOfABirthThatDidNotFinish) {
  const TempFolder folder;
  write_file(folder.path() + "-new", "half a database");
  EXPECT_EQ(refusal(folder.url()), "opened");
  EXPECT_FALSE(std::filesystem::exists(folder.path() + "-new"));
}

TEST(OpenSqlite, TakesNamesThatSqliteReadsInItsOwnWay) {
  const TempFolder folder;
  for (const char* name : {":memory:", "a?b=c&d#e", "with space", "file:x"}) {
    EXPECT_EQ(refusal(folder.url(name)), "opened") << name;
    EXPECT_TRUE(std::filesystem::exists(folder.path(name))) << name;
  }
}

TEST(OpenSqlite, RefusesPathsThatCannotBe) {
  const TempFolder folder;
  std::filesystem::create_directory(folder.path("sub"));
  write_file(folder.path("file"), "text");
  ASSERT_EQ(::mkfifo(folder.path("pipe").c_str(), 0600), 0);
  expect_refused(folder, "sqlite:", "no path");
  expect_refused(folder, folder.url("sub"), "is a folder");
  expect_refused(folder, folder.url("sub/"), "folder");
  expect_refused(folder, folder.url("absent/isthmus.db"), "does not exist");
  expect_refused(folder, folder.url("file/isthmus.db"), "is not a folder");
  expect_refused(folder, folder.url("pipe"), "not a regular file");
  expect_refused(folder, "sqlite:/proc/isthmus.db", "/proc");
}

TEST(OpenSqlite, RefusesAFolderAndAFileItMayNotWrite) {
  if (::geteuid() == 0) GTEST_SKIP() << "the superuser may write everywhere";
  const TempFolder folder;
  open_log(folder.url());
  std::filesystem::permissions(folder.path(), std::filesystem::perms::owner_read);
  expect_refused(folder, folder.url(), "cannot read and write");
  std::filesystem::create_directory(folder.path("sealed"));
  std::filesystem::permissions(folder.path("sealed"),
                               std::filesystem::perms::owner_read | std::filesystem::perms::owner_exec);
  expect_refused(folder, folder.url("sealed/isthmus.db"), "cannot write in the folder");
}

TEST(OpenSqlite, RefusesFilesOfOthers) {
  const TempFolder folder;
  write_file(folder.path("text"), "hello, this is no database");
  write_file(folder.path("short"), "x");
  run_sql(folder.path("plain"), "CREATE TABLE song (title)");
  run_sql(folder.path("marked"),
          "PRAGMA application_id = 42; PRAGMA user_version = 1; CREATE TABLE song (title)");
  run_sql(folder.path("wal"), "PRAGMA journal_mode = WAL; CREATE TABLE song (title)");
  expect_refused(folder, folder.url("text"), "is not an SQLite database");
  expect_refused(folder, folder.url("short"), "is not an SQLite database");
  for (const char* name : {"plain", "marked", "wal"}) {
    expect_refused(folder, folder.url(name), "belongs to another program");
  }
}

// What version 1 lacks is what its view shows.
TEST(OpenSqlite, BringsVersion1UpToDateAndKeepsWhatIsThere) {
  const TempFolder folder;
  SiteId site = 0;
  {
    const auto log = open_log(folder.url());
    site = log->site();
    log->append(
        make_batch({make_row(1, RowKind::set, "k", "", "v"), make_row(2, RowKind::hset, "h", "f", "w")}));
  }
  run_sql(folder.path(),
          "DROP VIEW current; CREATE VIEW current AS SELECT 'old' AS old; PRAGMA user_version = 1; "
          "UPDATE schema_version SET version = 1; PRAGMA wal_checkpoint(TRUNCATE)");
  const auto log = open_log(folder.url());
  EXPECT_EQ(log->site(), site);
  EXPECT_EQ(query_integer(folder.path(), "PRAGMA user_version"), 2);
  EXPECT_EQ(query_lines(folder.path(), "SELECT version FROM schema_version ORDER BY 1"),
            (std::vector<std::string>{"1", "2"}));
  log->append(make_batch({make_row(3, RowKind::screate, "t", "m")}));
  EXPECT_EQ(query_lines(folder.path(), "SELECT key, type, field, value FROM current ORDER BY key"),
            (std::vector<std::string>{"h|hash|f|w", "k|string||v", "t|set|m|"}));
}

TEST(OpenSqlite, RefusesANewerSchema) {
  const TempFolder folder;
  open_log(folder.url());
  run_sql(folder.path(), "PRAGMA user_version = 3");
  expect_refused(folder, folder.url(), "newer");
}

TEST(OpenSqlite, RefusesTheRestOfADatabaseThatIsGone) {
  const TempFolder folder;
  write_file(folder.path() + "-wal", "what was not yet in the database");
  expect_refused(folder, folder.url(), "-wal");
  std::filesystem::rename(folder.path() + "-wal", folder.path() + "-journal");
  expect_refused(folder, folder.url(), "-journal");
}

TEST(OpenSqlite, RefusesADamagedDatabase) {
  const TempFolder folder;
  {
    const auto log = open_log(folder.url());
    RowBatch batch;
    for (Seq seq = 1; seq <= 1000; ++seq)
      batch.append(make_row(seq, RowKind::set, "key", "", std::string(100, 'v')));
    log->append(batch);
  }
  const std::string whole = read_file(folder.path());
  for (const std::size_t from : {std::size_t{100}, std::size_t{4096}}) {
    std::string damaged = whole;
    std::fill(damaged.begin() + static_cast<std::ptrdiff_t>(from), damaged.end(), '\x5a');
    write_file(folder.path(), damaged);
    EXPECT_THROW(load(folder.url()), OpenError) << from;
  }
  write_file(folder.path(), whole.substr(0, whole.size() / 2));
  EXPECT_THROW(load(folder.url()), OpenError) << "truncated";
  write_file(folder.path(), whole);
  EXPECT_EQ(load(folder.url()).rows.size(), 1000U);
}

TEST(OpenSqlite, RefusesADatabaseWithoutItsTables) {
  const TempFolder folder;
  open_log(folder.url());
  run_sql(folder.path(), "DROP VIEW current; DROP TABLE entry");
  expect_refused(folder, folder.url(), "entry");
}

TEST(OpenSqlite, RefusesASiteTableWithoutItsRow) {
  const TempFolder folder;
  open_log(folder.url());
  run_sql(folder.path(), "DELETE FROM site");
  expect_refused(folder, folder.url(), "site");
}

TEST(OpenSqlite, IsForOneServerAtATime) {
  const TempFolder folder;
  auto log = open_log(folder.url());
  const std::string line = refusal(folder.url());
  EXPECT_THAT(line, HasSubstr("another server"));
  EXPECT_THAT(line, HasSubstr(std::to_string(::getpid())));
  log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  std::filesystem::create_symlink(folder.path(), folder.path("alias"));
  EXPECT_THAT(refusal(folder.url("alias")), HasSubstr("another server")) << "under another name too";
  log = nullptr;
  EXPECT_EQ(refusal(folder.url()), "opened");
}

TEST(OpenSqlite, TakesALockFileThatAKilledServerLeft) {
  const TempFolder folder;
  write_file(folder.path() + "-lock", "12345\n");
  EXPECT_EQ(refusal(folder.url()), "opened");
}

TEST(OpenSqlite, LetsOthersReadMeanwhile) {
  const TempFolder folder;
  const auto log = open_log(folder.url());
  log->append(make_batch({make_row(1, RowKind::set, "k", "", "v")}));
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 1);
  log->append(make_batch({make_row(2, RowKind::set, "k", "", "w")}));
  EXPECT_EQ(query_integer(folder.path(), "SELECT count(*) FROM log"), 2);
}

}  // namespace
}  // namespace isthmus::backend::test
