// A thin layer over sqlite3.h: a connection, its prepared statements, and errors as exceptions.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include <sqlite3.h>

namespace isthmus::backend {

/// What SQLite answered. `what()` says it in words that an operator understands, in one line.
struct SqliteError : std::runtime_error {
  SqliteError(int extended_code, const std::string& what) : std::runtime_error(what), code(extended_code) {}
  /// The result code without its extension (https://www.sqlite.org/rescode.html).
  int primary() const { return code & 0xff; }
  int code;
};

/// Throws the SqliteError for `code`, with the connection's own words where ours have none. `db` may be null.
[[noreturn]] void throw_sqlite_error(sqlite3* db, int code);

/// A prepared statement. Bound bytes are not copied: they must live until the next reset(). Columns that are
/// read live until the next step. Parameters count from 1, columns from 0, as in SQLite.
class Statement {
 public:
  Statement() = default;
  Statement(sqlite3* db, std::string_view sql);

  void bind(int parameter, std::int64_t value) { check(sqlite3_bind_int64(get(), parameter, value)); }
  void bind_null(int parameter) { check(sqlite3_bind_null(get(), parameter)); }
  void bind_blob(int parameter, std::string_view bytes) {
    // A null pointer would bind NULL, and an empty view may hold one.
    const char* data = bytes.empty() ? "" : bytes.data();
    check(sqlite3_bind_blob64(get(), parameter, data, bytes.size(), SQLITE_STATIC));
  }
  void bind_text(int parameter, std::string_view text) {
    check(sqlite3_bind_text64(get(), parameter, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8));
  }

  /// True: a row is there to be read. False: the statement is done.
  bool step() {
    const int code = sqlite3_step(get());
    if (code == SQLITE_ROW) return true;
    if (code != SQLITE_DONE) fail(code);
    return false;
  }
  /// Steps to the end and resets, which is all that a statement without result rows needs.
  void run() {
    while (step()) {
    }
    reset();
  }
  /// Makes ready for the next use. Bindings stay. Repeats no error of the last step.
  void reset() noexcept { sqlite3_reset(get()); }

  int columns() const { return sqlite3_column_count(get()); }
  std::int64_t integer(int column) const { return sqlite3_column_int64(get(), column); }
  bool is_null(int column) const { return sqlite3_column_type(get(), column) == SQLITE_NULL; }
  /// The bytes of a BLOB or a text; empty for NULL.
  std::string_view bytes(int column) const {
    const void* data = sqlite3_column_blob(get(), column);
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(get(), column));
    return data == nullptr ? std::string_view() : std::string_view(static_cast<const char*>(data), size);
  }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };

  sqlite3_stmt* get() const { return statement_.get(); }
  void check(int code) {
    if (code != SQLITE_OK) fail(code);
  }
  /// Resets, so that the statement holds no lock, and throws.
  [[noreturn]] void fail(int code);

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

/// An open database, for one thread at a time. Its statements must be gone before it is.
class Connection {
 public:
  enum class Mode {
    existing,  ///< the file must be there
    create,    ///< the file is made when it is not there
  };
  Connection(const std::string& path, Mode mode);

  sqlite3* get() const { return db_.get(); }
  Statement prepare(std::string_view sql) const { return {db_.get(), sql}; }
  /// Runs one or more statements and drops what they return.
  void execute(const std::string& sql) const;
  /// The first column of the first row, or `fallback` when there is no row or it is NULL.
  std::int64_t query_integer(std::string_view sql, std::int64_t fallback = 0) const;
  std::string query_text(std::string_view sql) const;
  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
};

}  // namespace isthmus::backend
