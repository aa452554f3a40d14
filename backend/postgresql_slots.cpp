#include "backend/postgresql_slots.hpp"

#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include <poll.h>

namespace isthmus::backend {
namespace {

using Clock = std::chrono::steady_clock;

/// Between two looks at something that should be over in a moment.
constexpr int kShortPauseMs = 2;

}  // namespace

Position parse_lsn(std::string_view text) {
  if (text.empty()) return 0;
  std::uint32_t high = 0, low = 0;
  const char* end = text.data() + text.size();
  const auto [slash, problem] = std::from_chars(text.data(), end, high, 16);
  if (problem == std::errc() && slash != end && *slash == '/') {
    const auto [stop, low_problem] = std::from_chars(slash + 1, end, low, 16);
    if (low_problem == std::errc() && stop == end) return Position{high} << 32U | low;
  }
  throw PgError("PostgreSQL named a position that is none: " + std::string(text), "", false);
}

std::string await_log_writers(PgConnection& tables, std::chrono::milliseconds patience) {
  constexpr const char* kWriters =
      "SELECT l.virtualtransaction, l.pid, coalesce(a.wait_event = 'SyncRep', false) FROM pg_locks l "
      "LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
      "WHERE l.locktype = 'relation' AND l.relation IN (SELECT 'isthmus.log'::regclass UNION ALL SELECT "
      "inhrelid FROM pg_inherits WHERE inhparent = 'isthmus.log'::regclass) AND l.mode = 'RowExclusiveLock' "
      "AND l.granted AND l.pid IS NOT NULL AND l.database = (SELECT oid FROM pg_database WHERE datname = "
      "current_database()) AND coalesce(a.state, '') NOT LIKE 'idle in transaction%'";
  const Clock::time_point deadline = Clock::now() + patience;
  std::optional<std::set<std::string>> awaited;
  for (;;) {
    const PgResult writers = tables.exec(kWriters);
    std::set<std::string> busy;
    int last = -1;
    for (int i = 0; i < writers.rows(); ++i) {
      std::string writer = writers.string(i, 0);
      if (awaited && !awaited->contains(writer)) continue;
      busy.insert(std::move(writer));
      last = i;
    }
    if (busy.empty()) return {};
    awaited = std::move(busy);
    if (Clock::now() >= deadline) {
      return writers.string(last, 1) + " is in the middle of writing to the log" +
             (writers.boolean(last, 2) ? ", and its commit waits for a synchronous standby" : "");
    }
    ::poll(nullptr, 0, kShortPauseMs);
  }
}

std::string oldest_transaction(PgConnection& tables) {
  const PgResult oldest = tables.exec(
      "SELECT * FROM (SELECT 'the transaction of process ' || pid || coalesce(' in database ' || datname, "
      "''), extract(epoch FROM clock_timestamp() - xact_start)::bigint, age(backend_xid) AS age FROM "
      "pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid() "
      "UNION ALL SELECT 'the prepared transaction ' || quote_literal(gid) || ' in database ' || database, "
      "extract(epoch FROM clock_timestamp() - prepared)::bigint, age(transaction) FROM pg_prepared_xacts) AS "
      "t "
      "ORDER BY age DESC LIMIT 1");
  if (oldest.rows() != 1) return "a transaction that has just ended";
  return oldest.string(0, 0) + (oldest.is_null(0, 1) ? "" : ", open for " + oldest.string(0, 1) + " s");
}

}  // namespace isthmus::backend
