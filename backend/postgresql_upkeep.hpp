// Housekeeping of the schema in PostgreSQL: registration of servers, partitions, the permanent slot, vacuum,
// and the end of lease holders that are silent.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "backend/postgresql_connection.hpp"
#include "backend/shared_log.hpp"

namespace isthmus::backend {

/// What the rounds of upkeep remember of each other. Used by one thread.
class PostgresqlUpkeep {
 public:
  PostgresqlUpkeep(std::string conninfo, SiteId site, std::chrono::seconds retention);

  /// One round, as SharedLog::upkeep says; `holds_lock`: this server has the site's lock now. A chore that
  /// fails does not keep the others from being done; the first failure that is not merely somebody else's
  /// lock is thrown at the end. Throws PgError, LeaseChanged.
  UpkeepReport round(PgConnection& connection, const ServerRow& self, OriginId lease, bool holds_lock);

  /// Drops the oldest partition of the log if it is older than the retention and covered, at most once for
  /// each call; true if it did. First it records in the progress of each origin how far its rows are gone.
  /// Gives up after 100 ms when somebody holds a lock on the log, and does not try again for some seconds.
  /// Throws PgError, LeaseChanged.
  bool drop_partition(PgConnection& connection, OriginId lease);

  std::uint64_t disk_bytes() const { return disk_bytes_; }

 private:
  using Clock = std::chrono::steady_clock;
  void sign_in(PgConnection& connection, const ServerRow& self, UpkeepReport& report);
  void end_silent_holder(PgConnection& connection);
  void advance_slot(PgConnection& connection, UpkeepReport& report);
  bool record_cut(PgConnection& connection, OriginId lease, const std::string& partition);
  void clean_default_partition(PgConnection& connection, OriginId lease);
  void prune_progress(PgConnection& connection, OriginId lease);
  void summarize(PgConnection& connection);
  void vacuum(PgConnection& connection);
  void measure(PgConnection& connection);
  bool every(std::uint64_t rounds) const { return rounds_ % rounds == 0; }

  const std::string conninfo_;
  const std::string slot_;
  const std::chrono::seconds retention_, width_;
  std::uint64_t rounds_ = 0;
  std::uint64_t disk_bytes_ = 0, default_rows_ = 0;

  // The holder of the lock as it was seen first.
  std::string holder_;
  Clock::time_point holder_since_;

  std::string recorded_;         // the partition whose cut is recorded
  Clock::time_point next_drop_;  // not before
  Clock::time_point next_advance_;
  std::unique_ptr<PgConnection> vacuum_;  // a session of its own, as a vacuum takes its time
};

}  // namespace isthmus::backend
