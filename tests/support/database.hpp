// SQLite from outside, as a person with the sqlite3 shell would look at or hold a server's database.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <sqlite3.h>

namespace isthmus::test {

/// A connection to a SQLite file. Throws std::runtime_error with SQLite's message.
class Database {
 public:
  /// Opens `path`; creates it only if `may_write`.
  explicit Database(const std::string& path, bool may_write = false) : connection_(nullptr, ::sqlite3_close) {
    sqlite3* opened = nullptr;
    const int flags = may_write ? SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE : SQLITE_OPEN_READONLY;
    const int result = ::sqlite3_open_v2(path.c_str(), &opened, flags, nullptr);
    connection_.reset(opened);
    if (result != SQLITE_OK) fail();
    ::sqlite3_busy_timeout(opened, 10'000);
  }

  /// Runs statements that give no rows that matter.
  void run(const std::string& statements) {
    if (::sqlite3_exec(connection_.get(), statements.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) fail();
  }

  /// The rows of a query; each column as text, NULL as "NULL".
  std::vector<std::vector<std::string>> rows(const std::string& query) {
    sqlite3_stmt* prepared = nullptr;
    if (::sqlite3_prepare_v2(connection_.get(), query.c_str(), -1, &prepared, nullptr) != SQLITE_OK) fail();
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement(prepared, ::sqlite3_finalize);
    std::vector<std::vector<std::string>> result;
    int step = 0;
    while ((step = ::sqlite3_step(prepared)) == SQLITE_ROW) {
      auto& row = result.emplace_back();
      for (int i = 0; i < ::sqlite3_column_count(prepared); ++i) row.push_back(column(prepared, i));
    }
    if (step != SQLITE_DONE) fail();
    return result;
  }

 private:
  static std::string column(sqlite3_stmt* statement, int index) {
    if (::sqlite3_column_type(statement, index) == SQLITE_NULL) return "NULL";
    const auto* bytes = static_cast<const char*>(::sqlite3_column_blob(statement, index));
    return {bytes == nullptr ? "" : bytes,
            static_cast<std::size_t>(::sqlite3_column_bytes(statement, index))};
  }
  [[noreturn]] void fail() const { throw std::runtime_error(::sqlite3_errmsg(connection_.get())); }

  std::unique_ptr<sqlite3, int (*)(sqlite3*)> connection_;
};

}  // namespace isthmus::test
