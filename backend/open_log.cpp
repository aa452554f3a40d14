// Chooses the backend that a URL names.
#include <string_view>

#include "backend/log.hpp"
#include "backend/memory_log.hpp"
#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_log.hpp"
#include "backend/sqlite_log.hpp"

namespace isthmus::backend {
namespace {

constexpr std::string_view kSqlitePrefix = "sqlite:";

/// The part of a URL before its colon: what follows may hold a password and is not for a log line.
std::string_view scheme_of(std::string_view url) { return url.substr(0, url.find(':')); }

}  // namespace

std::unique_ptr<Log> open_log(const std::string& url, const BackendOptions& options) {
  if (url == "memory:") return make_memory_log();
  if (url.starts_with(kSqlitePrefix)) return open_sqlite_log(url.substr(kSqlitePrefix.size()));
  if (is_postgresql_url(url)) return open_postgresql_log(url, options);
  throw OpenError(
      "unknown backend '" + std::string(scheme_of(url)) +
      "': use memory: (nothing is kept), sqlite:PATH (a database file) or postgresql://… (PostgreSQL, for "
      "several servers)");
}

}  // namespace isthmus::backend
