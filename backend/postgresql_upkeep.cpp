#include "backend/postgresql_upkeep.hpp"

#include <algorithm>
#include <utility>

#include "backend/postgresql_checkpoint.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "backend/postgresql_links.hpp"
#include "backend/postgresql_schema.hpp"

namespace isthmus::backend {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// A holder of the lock that gives no sign of life for so long is ended; it gives one a second.
constexpr std::int64_t kSilenceMs = 3000;
/// After somebody's lock kept a partition from being dropped: each attempt holds up COPY for its
/// lock_timeout.
constexpr seconds kDropPause{5};
/// The permanent slot goes ahead by at most so much at a time, so that a round stays short: about a second's
/// decoding.
constexpr std::int64_t kAdvanceBytes = 256LL << 20U;
/// Advancing takes at most this share of the time, one in so many.
constexpr int kAdvanceShare = 10;
/// A look at all rows of a partition takes seconds.
constexpr milliseconds kScanWait{120'000};
constexpr milliseconds kStatementWait{10'000};
/// Dead rows that call for a vacuum, besides a tenth of the living.
constexpr int kDeadRows = 20'000;
/// Rows of the default partition that go in one transaction.
constexpr int kDefaultRows = 10'000;
/// Origins of sites that are peers, or of unknown ones while there are peers, are remembered for so many
/// days.
constexpr std::int64_t kForeignOriginDays = 30;
/// Rounds, about seconds, between two of a chore.
constexpr std::uint64_t kSummarizeRounds = 5, kMeasureRounds = 10, kVacuumRounds = 5, kPruneRounds = 60;

std::int64_t system_clock_ms() {
  return std::chrono::duration_cast<milliseconds>(std::chrono::system_clock::now().time_since_epoch())
      .count();
}

/// Somebody else's lock, slot or transaction was in the way: the next round tries again.
bool is_passing(const PgError& error) {
  return error.sqlstate == "55P03" || error.sqlstate == "55006" || error.in_class("40");
}

constexpr const char* kMessageKinds = "('publish', 'spublish', 'subscribers', 'lease')";

/// The end of a partition's range, of a row `c` of pg_class; NULL for the default partition.
constexpr const char* kUpperBound =
    "(regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''([^'']+)''\\)'))[1]::timestamptz";

}  // namespace

PostgresqlUpkeep::PostgresqlUpkeep(std::string conninfo, SiteId site, seconds retention)
    : conninfo_(std::move(conninfo)),
      slot_(permanent_slot(site)),
      retention_(retention),
      width_(partition_width(retention)) {}

UpkeepReport PostgresqlUpkeep::round(PgConnection& connection, const ServerRow& self, OriginId lease,
                                     bool holds_lock) {
  UpkeepReport report;
  std::optional<PgError> failure;
  const auto chore = [&](const std::function<void()>& body) {
    try {
      body();
    } catch (const PgError& error) {
      if (error.connection_lost) throw;
      if (!is_passing(error) && !failure) failure = error;
    }
  };
  sign_in(connection, self, report);
  chore([&] { make_partitions(connection, width_); });
  // After a step back of the clock, rows arrive that are not covered although they look old enough.
  chore([&] {
    connection.exec(
        "UPDATE isthmus.site SET covered_from = clock_timestamp() - interval '60 s' "
        "WHERE covered_from > clock_timestamp() - interval '30 s'");
  });
  if (every(kMeasureRounds)) chore([&] { measure(connection); });
  if (self.writer) {
    chore([&] { advance_slot(connection, report); });
    chore([&] { drop_partition(connection, lease); });
    if (every(kSummarizeRounds)) chore([&] { summarize(connection); });
    if (default_rows_ > 0) chore([&] { clean_default_partition(connection, lease); });
    if (every(kVacuumRounds)) chore([&] { vacuum(connection); });
    if (every(kPruneRounds)) chore([&] { prune_progress(connection, lease); });
  }
  // Also as the writer whose session broke: the other end may not know yet, and keep the lock.
  if (!holds_lock) chore([&] { end_silent_holder(connection); });
  ++rounds_;
  chore([&] {
    report.peers = read_peers(connection);
    report.frontiers = read_frontiers(connection);
  });
  report.disk_bytes = disk_bytes_;
  report.default_partition_rows = default_rows_;
  if (failure) throw *failure;
  return report;
}

void PostgresqlUpkeep::sign_in(PgConnection& connection, const ServerRow& self, UpkeepReport& report) {
  const std::int64_t before = system_clock_ms();
  const std::int64_t theirs =
      connection.exec("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").integer(0, 0);
  report.clock_offset_ms = theirs - (before + system_clock_ms()) / 2;
  connection.exec(
      "INSERT INTO isthmus.server AS s (id, address, version, writer) VALUES ($1, $2, $3, $4 <> 0) ON "
      "CONFLICT (id) DO "
      "UPDATE SET address = excluded.address, version = excluded.version, writer = excluded.writer, "
      "seen_at = clock_timestamp()",
      PgParams().add(self.id).add_text(self.address).add_text(self.version).add(std::int64_t{self.writer}));
  const PgResult servers = connection.exec(
      "SELECT id, address, version, (extract(epoch FROM clock_timestamp() - seen_at) * 1000)::bigint, writer "
      "FROM isthmus.server WHERE seen_at > clock_timestamp() - interval '1 minute' ORDER BY id",
      PgParams());
  for (int i = 0; i < servers.rows(); ++i) {
    report.servers.push_back({servers.integer(i, 0), servers.string(i, 1), servers.string(i, 2),
                              servers.integer(i, 3), servers.boolean(i, 4)});
  }
}

void PostgresqlUpkeep::end_silent_holder(PgConnection& connection) {
  // A backend that is at work (waits for the disk or a standby) is no reason to doubt its server; one that
  // waits for its client is. Where the role may not see its state, the beat alone decides.
  const PgResult holder = connection.exec(
      "SELECT l.pid, l.pid || ' ' || coalesce(a.backend_start::text, ''), "
      "coalesce((extract(epoch FROM clock_timestamp() - e.beat) * 1000)::bigint, 1000000), "
      "coalesce(a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client', false) "
      "FROM pg_locks l LEFT JOIN isthmus.lease e ON e.pid = l.pid LEFT JOIN pg_stat_activity a ON a.pid = "
      "l.pid "
      "WHERE l.locktype = 'advisory' AND l.granted AND l.classid::bigint = ($1 >> 32) "
      "AND l.objid::bigint = ($1 & 4294967295) AND l.objsubid = 1 "
      "AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())",
      PgParams().add(kLeaseLock));
  if (holder.rows() == 0) {
    holder_.clear();
    return;
  }
  const Clock::time_point now = Clock::now();
  if (holder.bytes(0, 1) != holder_) {
    // It counts from now: it may not have come to its first beat, and process ids are used again.
    holder_ = holder.string(0, 1);
    holder_since_ = now;
  }
  if (holder.integer(0, 2) < kSilenceMs || now - holder_since_ < milliseconds(kSilenceMs) ||
      holder.boolean(0, 3))
    return;
  connection.exec("SELECT pg_terminate_backend($1::integer)", PgParams().add(holder.integer(0, 0)));
}

void PostgresqlUpkeep::advance_slot(PgConnection& connection, UpkeepReport& report) {
  const PgResult slot = connection.exec(
      "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint, active OR wal_status = 'lost', "
      "pg_current_wal_flush_lsn() > confirmed_flush_lsn FROM pg_replication_slots WHERE slot_name = $1",
      PgParams().add_text(slot_));
  // A slot that is missing or lost is the feed's to make anew.
  if (slot.rows() == 0) return;
  report.slot_bytes = static_cast<std::uint64_t>(std::max<std::int64_t>(slot.integer(0, 0), 0));
  const Clock::time_point begin = Clock::now();
  if (slot.boolean(0, 1) || !slot.boolean(0, 2) || begin < next_advance_) return;
  connection.exec(
      "SELECT pg_replication_slot_advance(slot_name, least(pg_current_wal_flush_lsn(), confirmed_flush_lsn + "
      "$2::numeric)) FROM pg_replication_slots WHERE slot_name = $1",
      PgParams().add_text(slot_).add(kAdvanceBytes));
  // A long transaction of somebody holds the slot's beginning back, and every advance decodes from there.
  next_advance_ = Clock::now() + (Clock::now() - begin) * kAdvanceShare;
}

bool PostgresqlUpkeep::drop_partition(PgConnection& connection, OriginId lease) {
  if (Clock::now() < next_drop_) return false;
  const PgResult oldest = connection.exec(
      std::string("SELECT c.oid::regclass::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid "
                  "WHERE i.inhparent = 'isthmus.log'::regclass AND ") +
          kUpperBound +
          " <= least(clock_timestamp() - make_interval(secs => $1), (SELECT covered_from FROM isthmus.site)) "
          "ORDER BY " +
          kUpperBound + " LIMIT 1",
      PgParams().add(retention_.count()));
  if (oldest.rows() == 0) return false;
  const std::string partition = oldest.string(0, 0);
  if (partition != recorded_ && !record_cut(connection, lease, partition)) {
    next_drop_ = Clock::now() + kDropPause;
    return false;
  }
  recorded_ = partition;
  try {
    connection.exec("SET LOCAL lock_timeout = '100ms'; DROP TABLE " + partition);
  } catch (const PgError& error) {
    if (error.sqlstate != "55P03") throw;
    next_drop_ = Clock::now() + kDropPause;
    return false;
  }
  return true;
}

/// Records that the rows of a partition are going. False if the checkpoint does not cover all of them after
/// all, as it may be after a jump of the clock.
bool PostgresqlUpkeep::record_cut(PgConnection& connection, OriginId lease, const std::string& partition) {
  connection.set_statement_wait(kScanWait);
  const PgResult rows = connection.exec(
      "SELECT l.origin, l.last, coalesce(l.last_state > coalesce(p.seq, 0), false), l.site FROM ("
      "SELECT origin, max(site) FILTER (WHERE NOT copied) AS site, max(seq) AS last, max(seq) FILTER (WHERE "
      "kind NOT IN " +
          std::string(kMessageKinds) + ") AS last_state FROM " + partition +
          " GROUP BY origin) l LEFT JOIN isthmus.progress p ON p.origin = l.origin",
      PgParams());
  connection.set_statement_wait(kStatementWait);
  PgArray origins(PgType::int8), seqs(PgType::int8), sites(PgType::int8);
  for (int i = 0; i < rows.rows(); ++i) {
    if (rows.boolean(i, 2)) return false;
    origins.add(rows.integer(i, 0));
    seqs.add(rows.integer(i, 1));
    if (rows.is_null(i, 3)) {
      sites.add_null();
    } else {
      sites.add(rows.integer(i, 3));
    }
  }
  write_under_lease(connection, lease, [&] {
    connection.exec(
        "INSERT INTO isthmus.progress AS p (origin, seq, cut, site) SELECT o, s, s, i FROM unnest($1, $2, "
        "$3) "
        "AS gone (o, s, i) ON CONFLICT (origin) DO UPDATE SET cut = greatest(p.cut, excluded.cut), "
        "seq = greatest(p.seq, excluded.seq), site = coalesce(excluded.site, p.site)",
        PgParams().add(origins).add(seqs).add(sites));
  });
  return true;
}

void PostgresqlUpkeep::clean_default_partition(PgConnection& connection, OriginId lease) {
  write_under_lease(connection, lease, [&] {
    // Rows from before, and rows that a clock far ahead has put into a time to come.
    connection.exec(
        "WITH old AS (SELECT d.ctid FROM isthmus.log_default d LEFT JOIN isthmus.progress p ON p.origin = "
        "d.origin WHERE "
        "(d.arrived < least(clock_timestamp() - make_interval(secs => $1), (SELECT covered_from FROM "
        "isthmus.site)) "
        "OR d.arrived > clock_timestamp() + make_interval(secs => $1)) "
        "AND (d.seq <= p.seq OR d.kind IN " +
            std::string(kMessageKinds) + ") LIMIT " + std::to_string(kDefaultRows) +
            "), gone AS (DELETE FROM isthmus.log_default d USING old WHERE d.ctid = old.ctid RETURNING "
            "d.origin, d.seq, d.site, d.copied) "
            "INSERT INTO isthmus.progress AS p (origin, seq, cut, site) SELECT origin, max(seq), max(seq), "
            "max(site) FILTER (WHERE NOT copied) FROM gone GROUP BY origin ON CONFLICT (origin) DO UPDATE "
            "SET cut = greatest(p.cut, "
            "excluded.cut), seq = greatest(p.seq, excluded.seq), site = coalesce(excluded.site, p.site)",
        PgParams().add(retention_.count()));
  });
  measure(connection);
}

void PostgresqlUpkeep::prune_progress(PgConnection& connection, OriginId lease) {
  // The lease and the servers of today may be silent for long, and count on. So may those of other sites, of
  // which nothing is known here but that a forgotten origin would look as if its first rows were missing. And
  // this site's own are remembered for longer than peers remember them: else it would look to them, and to
  // this site when it asks them, as if its database had lost those rows.
  write_under_lease(connection, lease, [&] {
    connection.exec(
        std::string("DELETE FROM isthmus.progress WHERE updated_at < least(clock_timestamp() - "
                    "make_interval(secs => $1), "
                    "(SELECT min(") +
            kUpperBound +
            ") FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = "
            "'isthmus.log'::regclass) "
            "- make_interval(secs => $2)) AND NOT EXISTS (SELECT FROM isthmus.log_default) "
            "AND origin NOT IN (SELECT id FROM isthmus.lease) AND origin NOT IN (SELECT id FROM "
            "isthmus.server) AND (updated_at < clock_timestamp() - make_interval(days => "
            "CASE WHEN site = (SELECT id FROM isthmus.site) THEN 2 ELSE 1 END * $3::integer) "
            "OR coalesce(site, 0) NOT IN (SELECT unnest(ARRAY[0, p.id, s.id]) FROM isthmus.peer p, "
            "isthmus.site s))",
        PgParams().add(retention_.count() * 10).add(width_.count()).add(kForeignOriginDays));
    connection.exec(
        "DELETE FROM isthmus.server WHERE seen_at < clock_timestamp() - make_interval(secs => $1)",
        PgParams().add(retention_.count() * 10));
  });
}

/// The BRIN index knows only ranges of pages that were summarized, and has all others read.
void PostgresqlUpkeep::summarize(PgConnection& connection) {
  connection.exec(
      std::string("SELECT brin_summarize_new_values(x.inhrelid) FROM pg_inherits x "
                  "JOIN pg_index i ON i.indexrelid = x.inhrelid JOIN pg_class c ON c.oid = i.indrelid "
                  "WHERE x.inhparent = 'isthmus.log_origin_seq'::regclass AND ") +
          kUpperBound +
          " BETWEEN clock_timestamp() - make_interval(secs => $1) AND clock_timestamp() + "
          "make_interval(secs => $1)",
      PgParams().add(width_.count()));
}

void PostgresqlUpkeep::vacuum(PgConnection& connection) {
  try {
    if (vacuum_) {
      if (vacuum_->finished()) vacuum_.reset();
      return;
    }
    const PgResult table = connection.exec(
        "SELECT relname::text FROM pg_stat_user_tables WHERE schemaname = 'isthmus' AND relname IN ('entry', "
        "'field') "
        "AND n_dead_tup > $1 + n_live_tup / 10 ORDER BY n_dead_tup DESC LIMIT 1",
        PgParams().add(std::int64_t{kDeadRows}));
    if (table.rows() == 0) return;
    PgConnectOptions options;
    options.application_name = "isthmus vacuum";
    vacuum_ = std::make_unique<PgConnection>(conninfo_, options);
    vacuum_->send("VACUUM (TRUNCATE false, SKIP_LOCKED) isthmus." + table.string(0, 0));
  } catch (const PgError&) {
    // Whether of this session or the other one: autovacuum will do it.
    vacuum_.reset();
  }
}

void PostgresqlUpkeep::measure(PgConnection& connection) {
  const PgResult sizes = connection.exec(
      "SELECT (SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class WHERE relkind = 'r' "
      "AND relnamespace = 'isthmus'::regnamespace), (SELECT count(*) FROM isthmus.log_default)",
      PgParams());
  disk_bytes_ = static_cast<std::uint64_t>(sizes.integer(0, 0));
  default_rows_ = static_cast<std::uint64_t>(sizes.integer(0, 1));
}

}  // namespace isthmus::backend
