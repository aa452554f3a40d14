// What the feed and the links share about replication slots: positions, and when a snapshot sees all that a
// slot will not show.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "backend/links.hpp"
#include "backend/postgresql_connection.hpp"

namespace isthmus::backend {

/// An LSN as PostgreSQL writes it, two hexadecimal numbers with a slash; none for an empty text. Throws
/// PgError.
Position parse_lsn(std::string_view text);

/// Waits until every transaction that was just writing to the log is over, so that later snapshots see what
/// it committed. Whoever holds such a lock and is idle has not begun to commit. Returns who is still at it
/// after `patience`, in words that follow "process"; empty if nobody is. Throws PgError.
std::string await_log_writers(PgConnection& tables, std::chrono::milliseconds patience);

/// The oldest transaction of the cluster that has an xid, in words, for which the creation of a slot waits.
/// Throws PgError.
std::string oldest_transaction(PgConnection& tables);

}  // namespace isthmus::backend
