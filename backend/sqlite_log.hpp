// The backend `sqlite:PATH`: the log and the checkpoint in one SQLite database.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "backend/log.hpp"

namespace isthmus::backend {

/// What a test may want to be different; the defaults are those of a server.
struct SqliteOptions {
  /// Milliseconds since the Unix epoch, for the column `arrived`. Empty: the system clock.
  std::function<std::int64_t()> clock;
  /// How long a transaction waits for another process that writes to the database, in milliseconds. Longer
  /// than a short statement typed into sqlite3, shorter than a client's patience.
  int busy_timeout_ms = 1000;
  /// The most bytes of key, field and value together that a row may have. SQLite refuses a row above 10^9
  /// bytes (https://www.sqlite.org/limits.html); the margin is for the other columns, here and in the
  /// checkpoint.
  std::size_t max_row_bytes = 1'000'000'000 - 1024;
};

/// Opens the database at `path`, and makes it when there is no file (or an empty one). The log holds the lock
/// file PATH-lock until it is destroyed, so that no second server uses the database; other programs may read
/// it meanwhile. Throws OpenError, and then leaves everything as it was.
std::unique_ptr<Log> open_sqlite_log(const std::string& path, SqliteOptions options = {});

}  // namespace isthmus::backend
