// A thin layer over sqlite3.h: a connection, its prepared statements, and errors as exceptions.
#include "backend/sqlite_connection.hpp"

#include <mutex>
#include <system_error>

namespace isthmus::backend {
namespace {

/// Counting every allocation costs a global mutex, and nobody reads the count. The call is refused,
/// harmlessly, when this process has used SQLite before.
void configure_library() {
  static std::once_flag once;
  std::call_once(once, [] { sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0); });
}

/// The reasons an operator can do something about, in plain words; null for the others.
const char* plain_reason(int primary_code) {
  switch (primary_code) {
    case SQLITE_FULL:
      return "the disk is full";
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return "another process is writing to the database and keeps it locked";
    case SQLITE_READONLY:
      return "the database cannot be written";
    case SQLITE_CANTOPEN:
      return "the database file cannot be opened";
    case SQLITE_CORRUPT:
      return "the database is damaged; restore a copy of it";
    case SQLITE_NOTADB:
      return "the file is not an SQLite database";
    case SQLITE_TOOBIG:
      return "a row is larger than SQLite can hold";
    case SQLITE_NOMEM:
      return "out of memory";
    case SQLITE_IOERR:
      return "reading or writing the database failed";
    default:
      return nullptr;
  }
}

std::string system_reason(sqlite3* db, int primary_code) {
  const int error = db == nullptr ? 0 : sqlite3_system_errno(db);
  if (error == 0 || (primary_code != SQLITE_IOERR && primary_code != SQLITE_CANTOPEN)) return "";
  return ": " + std::generic_category().message(error);
}

}  // namespace

void throw_sqlite_error(sqlite3* db, int code) {
  const int primary = code & 0xff;
  if (const char* reason = plain_reason(primary); reason != nullptr) {
    throw SqliteError(code, reason + system_reason(db, primary));
  }
  throw SqliteError(code, db != nullptr ? sqlite3_errmsg(db) : sqlite3_errstr(code));
}

Statement::Statement(sqlite3* db, std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v3(db, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT,
                                      &statement, nullptr);
  statement_.reset(statement);
  if (code != SQLITE_OK) throw_sqlite_error(db, code);
}

void Statement::fail(int code) {
  sqlite3* db = sqlite3_db_handle(get());
  try {
    throw_sqlite_error(db, code);
  } catch (const SqliteError&) {
    reset();
    throw;
  }
}

Connection::Connection(const std::string& path, Mode mode) {
  configure_library();
  sqlite3* db = nullptr;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE |
                    (mode == Mode::create ? SQLITE_OPEN_CREATE : 0);
  const int code = sqlite3_open_v2(path.c_str(), &db, flags, nullptr);
  db_.reset(db);
  if (code != SQLITE_OK) throw_sqlite_error(db, code);
}

void Connection::execute(const std::string& sql) const {
  const int code = sqlite3_exec(get(), sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) throw_sqlite_error(get(), code);
}

std::int64_t Connection::query_integer(std::string_view sql, std::int64_t fallback) const {
  Statement statement = prepare(sql);
  if (!statement.step() || statement.is_null(0)) return fallback;
  return statement.integer(0);
}

std::string Connection::query_text(std::string_view sql) const {
  Statement statement = prepare(sql);
  return statement.step() ? std::string(statement.bytes(0)) : std::string();
}

}  // namespace isthmus::backend
