#include "backend/postgresql_log.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <limits>
#include <map>
#include <string_view>
#include <utility>

#include "backend/postgresql_checkpoint.hpp"
#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_copy.hpp"
#include "backend/postgresql_feed.hpp"
#include "backend/postgresql_insert.hpp"
#include "backend/postgresql_links.hpp"
#include "backend/postgresql_schema.hpp"
#include "backend/postgresql_slots.hpp"
#include "backend/postgresql_upkeep.hpp"
#include "backend/row_pack.hpp"

namespace isthmus::backend {
namespace {

/// SQL has no unsigned numbers. A version above this would be 2,700 years ahead.
constexpr std::uint64_t kMaxNumber = std::numeric_limits<std::int64_t>::max();
// Beyond these times a session that is stuck lets go by itself: a backend whose client is gone ends within
// half a second even while it is at work, one whose client stopped in the middle of a transaction after
// three seconds, and one that waits for a client behind a network that drops everything after three too
// (with PostgreSQL's own settings it would keep the site's lock for two hours). No statement here runs long
// enough for its compilation to pay.
constexpr const char* kCommitSettings =
    "SET client_connection_check_interval = '500ms'; SET idle_in_transaction_session_timeout = '3s'; "
    "SET tcp_keepalives_idle = 1; SET tcp_keepalives_interval = 1; SET tcp_keepalives_count = 2; "
    "SET jit = off; SET lock_timeout = '5s'";
// Checkpoint and housekeeping need not wait for the disk or a standby: what they rely on came before them
// into the same write-ahead log, so it survives if they do. That holds for as long as the session does: see
// checkpoint_run.
constexpr const char* kUpkeepSettings =
    "SET client_connection_check_interval = '500ms'; SET idle_in_transaction_session_timeout = '3s'; "
    "SET jit = off; SET lock_timeout = '2s'; SET synchronous_commit = off";

/// How long a commit that is under way may take before `read_uncovered` gives up.
constexpr std::chrono::milliseconds kWriterPatience{3000};
/// How long PostgreSQL may keep silent while it reads and sorts what the checkpoint does not cover.
constexpr std::chrono::milliseconds kUncoveredWait{120'000};
/// And while it looks for the last row of an origin: less, since the committing thread does nothing else
/// meanwhile, not even end.
constexpr std::chrono::milliseconds kLastSeqWait{60'000};
constexpr std::chrono::milliseconds kSignOffWait{1000};
/// How long the log as a whole takes the rows before the next look for a partition.
constexpr std::chrono::milliseconds kPartitionWait{1000};
// SQLSTATEs.
constexpr std::string_view kCheckViolation = "23514";
constexpr std::string_view kUndefinedTable = "42P01";

/// Errors after which the same batch may go in later: of the connection (08), rights and settings that an
/// operator mends (25, 28, 3D, 3F, 42), conflicts (40), resources (53), locks (55), an operator's
/// intervention (57), the system (58). What is left says that the data is at fault. Source: PostgreSQL
/// documentation, appendix A.
AppendError::Kind kind_of(const PgError& error) {
  if (error.connection_lost) return AppendError::Kind::unavailable;
  for (const char* passing : {"08", "25", "28", "3D", "3F", "40", "42", "53", "55", "57", "58"}) {
    if (error.in_class(passing)) return AppendError::Kind::unavailable;
  }
  return AppendError::Kind::rejected;
}

/// While it lives, PostgreSQL may keep silent for longer than usual in the session.
class PatientSession {
 public:
  PatientSession(PgConnection& session, std::chrono::milliseconds wait) : session_(session) {
    session_.set_statement_wait(wait);
  }
  ~PatientSession() { session_.set_statement_wait(PgConnectOptions().statement_wait); }
  PatientSession(const PatientSession&) = delete;
  PatientSession& operator=(const PatientSession&) = delete;

 private:
  PgConnection& session_;
};

/// While it lives, the session is given up as soon as the flag is set.
class YieldingSession {
 public:
  YieldingSession(PgConnection& session, const std::atomic<bool>& flag)
      : session_(session), before_(session.give_up_when(&flag)) {}
  ~YieldingSession() { session_.give_up_when(before_); }
  YieldingSession(const YieldingSession&) = delete;
  YieldingSession& operator=(const YieldingSession&) = delete;

 private:
  PgConnection& session_;
  const std::atomic<bool>* before_;
};

class PostgresqlLog final : public SharedLog {
 public:
  PostgresqlLog(std::string conninfo, const BackendOptions& options);

  // Log
  bool durable() const override { return true; }
  SiteId site() const override { return site_; }
  void load(LoadSink& /*sink*/) override { throw std::logic_error("a shared log is read through its feed"); }
  void append(const RowBatch& batch) override { append(batch, {}); }
  void write_checkpoint(const CheckpointChunk& chunk) override;
  bool forget_flushed(std::uint8_t db, Version version, SiteId site) override;
  void put_mark(const CheckpointMark& mark) override;
  bool cut() override;
  std::uint64_t disk_bytes() const override { return disk_bytes_.load(std::memory_order_relaxed); }
  SharedLog* shared() override { return this; }
  std::string description() const override { return description_; }

  // SharedLog
  std::string secret() const override { return secret_; }
  std::string site_name() const override { return site_name_; }
  bool connect(std::string& why) override;
  bool connected() const override { return commit_ != nullptr; }
  void disconnect() override;
  bool try_lock() override;
  void end_holder() override;
  LeaseRow newest_lease() override;
  Seq last_seq(OriginId origin) override;
  void beat(OriginId lease) override;
  void append(const RowBatch& batch, const std::vector<std::int64_t>& stamped_inbox) override;
  UpkeepReport upkeep(const ServerRow& self, OriginId lease) override;
  void guard_checkpoint(OriginId lease) override;
  void read_uncovered(LoadSink& sink) override;
  void sign_off(OriginId server) override;
  std::unique_ptr<Feed> open_feed() override { return open_postgresql_feed(conninfo_, site_, &ending_); }
  std::unique_ptr<Links> open_links() override { return open_postgresql_links(conninfo_, site_, &ending_); }
  void end_waits() override { ending_ = true; }

 private:
  using Clock = std::chrono::steady_clock;
  void open();
  template <typename Body>
  auto run(std::unique_ptr<PgConnection>& session, const Body& body);
  template <typename Body>
  auto commit_run(const Body& body);
  template <typename Body>
  auto upkeep_run(const Body& body);
  template <typename Body>
  void checkpoint_run(const Body& body);
  void check_row(const Row& row) const;
  std::string table_for_rows(PgConnection& session);
  void append_to(const std::string& table, PgConnection& session, const RowBatch& batch,
                 const std::string& before);
  void append_to_log(PgConnection& session, const RowBatch& batch, const std::string& before);
  std::string statements_before_copy(const RowBatch& batch,
                                     const std::vector<std::int64_t>& stamped_inbox) const;

  const std::string conninfo_, description_;
  const std::chrono::seconds retention_;
  SiteId site_ = 0;
  std::string secret_, site_name_;

  // The committing thread's; others may look whether it has the site's lock.
  std::unique_ptr<PgConnection> commit_;
  std::atomic<bool> locked_{false};
  std::string buffer_;
  RowInserter inserter_;
  std::string partition_;  // what takes rows now, up to the time of the next look
  Clock::time_point next_look_;

  // The upkeep thread's.
  std::unique_ptr<PgConnection> upkeep_;
  std::unique_ptr<PostgresqlUpkeep> chores_;
  OriginId guard_ = 0;
  FlushProgress flush_;
  /// How many sessions there were, and which one all of the checkpoint goes through.
  std::uint64_t upkeep_sessions_ = 0, checkpoint_session_ = 0;
  std::atomic<bool> ending_{false};
  /// A piece of the checkpoint holds up whoever takes the lease, so it ends when this server has lost it.
  std::atomic<bool> yield_checkpoint_{false};

  std::atomic<std::uint64_t> disk_bytes_{0};
  /// All servers of the site are of one version: an older one may not know that rows share a row of SQL, and
  /// would take that for one. False until the upkeep has seen who is there.
  std::atomic<bool> packs_{false};
};

/// What messages call the place, or an OpenError without the string.
std::string checked_description(const std::string& conninfo) {
  try {
    check_conninfo(conninfo);
    return describe_conninfo(conninfo);
  } catch (const PgError& error) {
    throw OpenError(std::string("postgresql: ") + error.what());
  }
}

PostgresqlLog::PostgresqlLog(std::string conninfo, const BackendOptions& options)
    : conninfo_(std::move(conninfo)),
      description_(checked_description(conninfo_)),
      retention_(options.log_retention) {
  try {
    open();
  } catch (const PgError& error) {
    throw OpenError(description_ + ": " + error.what());
  } catch (const OpenError& error) {
    throw OpenError(description_ + ": " + error.what());
  }
  chores_ = std::make_unique<PostgresqlUpkeep>(conninfo_, site_, retention_);
}

void PostgresqlLog::open() {
  PgConnectOptions options;
  options.application_name = "isthmus start";
  PgConnection connection(conninfo_, options);
  check_server(connection);
  create_schema(connection);
  make_partitions(connection, partition_width(retention_));
  const PgResult site = connection.exec("SELECT id, secret, name FROM isthmus.site");
  if (site.rows() != 1) throw OpenError("the database is damaged: the table isthmus.site must have one row");
  site_ = site.integer(0, 0);
  secret_ = site.string(0, 1);
  site_name_ = site.string(0, 2);
}

/// Runs `body` on a session; an error becomes an AppendError, and a lost session is closed.
template <typename Body>
auto PostgresqlLog::run(std::unique_ptr<PgConnection>& session, const Body& body) {
  try {
    return body(*session);
  } catch (const PgError& error) {
    if (error.connection_lost) session.reset();
    throw AppendError(kind_of(error), description_ + ": " + error.what());
  } catch (const LeaseChanged& error) {
    throw AppendError(AppendError::Kind::rejected, description_ + ": " + error.what());
  } catch (const AppendError&) {
    throw;  // our own refusal, outside of any transaction
  } catch (...) {
    // Nobody knows in which state it is.
    session.reset();
    throw;
  }
}

// ---- the committing thread ----

// A session that only lacks space or a lock is as good as a new one, and keeps the lease. After any other
// error behind which the batch may go in later, a new session may be the one that can, perhaps with another
// host.
template <typename Body>
auto PostgresqlLog::commit_run(const Body& body) {
  if (!commit_) throw AppendError(AppendError::Kind::unavailable, description_ + ": not connected");
  return run(commit_, [&](PgConnection& session) {
    try {
      return body(session);
    } catch (PgError& error) {
      const bool waits = error.in_class("53") || error.in_class("55");
      error.connection_lost |= kind_of(error) == AppendError::Kind::unavailable && !waits;
      throw;
    }
  });
}

bool PostgresqlLog::connect(std::string& why) {
  if (commit_) return true;
  locked_ = false;
  try {
    PgConnectOptions options;
    options.application_name = "isthmus commit";
    auto session = std::make_unique<PgConnection>(conninfo_, options);
    session->exec(kCommitSettings);
    if (session->exec("SELECT id FROM isthmus.site").integer(0, 0) != site_) {
      why = description_ + ": this is another database than before: restart the server to use it";
      return false;
    }
    commit_ = std::move(session);
    inserter_.forget();
    return true;
  } catch (const PgError& error) {
    why = description_ + ": " + error.what();
    return false;
  }
}

void PostgresqlLog::disconnect() {
  commit_.reset();
  locked_ = false;
  yield_checkpoint_ = true;
}

bool PostgresqlLog::try_lock() {
  // A second call would count as a second lock of the same session.
  if (commit_ && locked_) return true;
  locked_ = commit_run([](PgConnection& session) {
    return session.exec("SELECT pg_try_advisory_lock(" + std::to_string(kLeaseLock) + ")").boolean(0, 0);
  });
  return locked_;
}

void PostgresqlLog::end_holder() {
  const std::string key = std::to_string(kLeaseLock);
  commit_run([&](PgConnection& session) {
    session.exec(
        "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted AND "
        "pid <> pg_backend_pid() AND classid::bigint = (" +
        key + "::bigint >> 32) AND objid::bigint = (" + key +
        "::bigint & 4294967295) AND objsubid = 1 AND database = (SELECT oid FROM pg_database WHERE datname = "
        "current_database())");
  });
}

LeaseRow PostgresqlLog::newest_lease() {
  return commit_run([](PgConnection& session) {
    const PgResult row = session.exec("SELECT id, server, address FROM isthmus.lease");
    if (row.rows() != 1) throw PgError("the table isthmus.lease must have one row", "42P01", false);
    return LeaseRow{row.integer(0, 0), row.integer(0, 1), row.string(0, 2)};
  });
}

Seq PostgresqlLog::last_seq(OriginId origin) {
  // What is at or below the checkpoint need not be looked at, and the bound lets the BRIN index leave out
  // nearly all pages; without statistics the planner would rather read the whole log.
  return commit_run([origin](PgConnection& session) {
    const PatientSession patient(session, kLastSeqWait);
    const PgResult progress =
        session.exec("SELECT max(seq) FROM isthmus.progress WHERE origin = $1", PgParams().add(origin));
    const std::int64_t covered = progress.integer(0, 0);
    const PgResult last =
        session.exec("SET LOCAL enable_seqscan = off; SELECT max(seq) FROM isthmus.log WHERE origin = " +
                     std::to_string(origin) + " AND seq > " + std::to_string(covered) +
                     " AND arrived >= (SELECT covered_from FROM isthmus.site)");
    return static_cast<Seq>(std::max(covered, last.integer(0, 0)));
  });
}

void PostgresqlLog::beat(OriginId lease) {
  // A beat that a crash forgets does no harm.
  commit_run([lease](PgConnection& session) {
    session.exec(
        "SET LOCAL synchronous_commit = off; UPDATE isthmus.lease SET beat = clock_timestamp() WHERE id = " +
        std::to_string(lease));
  });
}

void PostgresqlLog::check_row(const Row& row) const {
  if (row.version <= kMaxNumber && row.seq <= kMaxNumber && row.request <= kMaxNumber) return;
  throw AppendError(AppendError::Kind::rejected, description_ + ": a version or seq is above 2^63-1");
}

std::string PostgresqlLog::statements_before_copy(const RowBatch& batch,
                                                  const std::vector<std::int64_t>& stamped_inbox) const {
  std::string sql, take_lease;
  if (!stamped_inbox.empty()) {
    sql = "DELETE FROM isthmus.inbox WHERE id IN (";
    for (const std::int64_t id : stamped_inbox) sql += std::to_string(id) + ",";
    sql.back() = ')';
    sql += "; ";
  }
  for (std::size_t i = 0; i < batch.size(); ++i) {
    const Row row = batch[i];
    check_row(row);
    if (row.kind != RowKind::lease) continue;
    // Of several the last one counts.
    take_lease = "UPDATE isthmus.lease SET id = " + std::to_string(row.origin) +
                 ", server = " + std::to_string(row.requester) + ", address = " + commit_->literal(row.key) +
                 ", pid = pg_backend_pid(), taken_at = clock_timestamp(), beat = clock_timestamp(); ";
  }
  return sql + take_lease;
}

std::string PostgresqlLog::table_for_rows(PgConnection& session) {
  if (const Clock::time_point now = Clock::now(); now >= next_look_) {
    Partition partition = current_partition(session);
    next_look_ = now + (partition.table.empty() ? kPartitionWait : partition.left);
    partition_ = std::move(partition.table);
  }
  return partition_.empty() ? kLogTable : partition_;
}

// Few rows of SQL, as the batches of clients without pipelining mostly are, by an INSERT; many by COPY, of
// which the first are encoded while PostgreSQL begins it.
void PostgresqlLog::append_to(const std::string& table, PgConnection& session, const RowBatch& batch,
                              const std::string& before) {
  const bool packs = packs_.load(std::memory_order_relaxed);
  const std::size_t few = RowInserter::kMostRows * (packs ? RowPacker::kMostRows / 4 : 1);
  if (before.empty() && batch.size() <= few &&
      batch.bytes() <= RowInserter::kMostRows * RowPacker::kPackedBytes) {
    buffer_.clear();
    const std::size_t count = append_copy_rows(buffer_, batch, packs);
    if (count <= RowInserter::kMostRows) {
      inserter_.run(session, table, buffer_, count);
      return;
    }
  }
  copy_rows(session, table, batch, before, packs, buffer_);
}

// Straight into the partition of the time, which spares PostgreSQL a fifth of a small commit: there is
// nothing to route. A row that does not belong there any more is refused, or the partition is gone, and
// nothing has been written: then the log as a whole takes the rows.
void PostgresqlLog::append_to_log(PgConnection& session, const RowBatch& batch, const std::string& before) {
  const std::string table = table_for_rows(session);
  try {
    append_to(table, session, batch, before);
  } catch (const PgError& error) {
    if (table == kLogTable || (error.sqlstate != kCheckViolation && error.sqlstate != kUndefinedTable)) throw;
    next_look_ = {};
    append_to(kLogTable, session, batch, before);
  }
}

// Several statements of one string are one transaction, so neither BEGIN nor COMMIT costs a round trip.
void PostgresqlLog::append(const RowBatch& batch, const std::vector<std::int64_t>& stamped_inbox) {
  if (batch.empty() && stamped_inbox.empty()) return;
  commit_run([&](PgConnection& session) {
    const std::string before = statements_before_copy(batch, stamped_inbox);
    if (batch.empty()) {
      session.exec(before);
    } else {
      append_to_log(session, batch, before);
    }
  });
}

// ---- the upkeep thread ----

template <typename Body>
auto PostgresqlLog::upkeep_run(const Body& body) {
  if (!upkeep_) {
    try {
      PgConnectOptions options;
      options.application_name = "isthmus upkeep";
      options.give_up = &ending_;
      auto session = std::make_unique<PgConnection>(conninfo_, options);
      session->exec(kUpkeepSettings);
      upkeep_ = std::move(session);
      ++upkeep_sessions_;
    } catch (const PgError& error) {
      throw AppendError(AppendError::Kind::unavailable, description_ + ": " + error.what());
    }
  }
  return run(upkeep_, body);
}

void PostgresqlLog::guard_checkpoint(OriginId lease) {
  guard_ = lease;
  checkpoint_session_ = upkeep_sessions_ + (upkeep_ ? 0 : 1);
  // The pieces of a flush wait for no disk either: a crash may have taken back the first of them.
  flush_ = {};
  yield_checkpoint_ = false;
}

/// One transaction of a checkpoint. All checkpoints of a guard go through one session: if that broke, the
/// database may have come back without the pieces that it had last, of an earlier checkpoint too, and a mark
/// would say that they are there.
template <typename Body>
void PostgresqlLog::checkpoint_run(const Body& body) {
  upkeep_run([&](PgConnection& session) {
    if (checkpoint_session_ == 0) checkpoint_session_ = upkeep_sessions_;  // never guarded
    if (checkpoint_session_ != upkeep_sessions_) {
      throw AppendError(AppendError::Kind::unavailable,
                        description_ + ": the session in which the checkpoint began broke");
    }
    const YieldingSession yielding(session, yield_checkpoint_);
    body(session);
  });
}

void PostgresqlLog::write_checkpoint(const CheckpointChunk& chunk) {
  if (chunk.empty()) return;
  checkpoint_run(
      [&](PgConnection& session) { write_under_lease(session, guard_, [&] { put_chunk(session, chunk); }); });
}

bool PostgresqlLog::forget_flushed(std::uint8_t db, Version version, SiteId site) {
  FlushProgress progress = flush_;
  if (progress.db != db || progress.version != version || progress.site != site) {
    progress = {};
    progress.db = db;
    progress.version = version;
    progress.site = site;
  }
  bool more = false;
  checkpoint_run([&](PgConnection& session) {
    write_under_lease(session, guard_, [&] { more = forget_some_flushed(session, progress); });
  });
  // Only now, so that a failed call is repeated; after the last one anew, since the checkpoint may change in
  // between.
  flush_ = more ? progress : FlushProgress();
  return more;
}

// Behind a long tail the sites of new origins take long to find, so nobody is held up for that.
void PostgresqlLog::put_mark(const CheckpointMark& mark) {
  checkpoint_run([&](PgConnection& session) {
    const PatientSession patient(session, kUncoveredWait);
    const std::map<OriginId, SiteId> sites = find_sites(session, mark.vector);
    write_under_lease(session, guard_, [&] { backend::put_mark(session, mark, sites); });
  });
}

bool PostgresqlLog::cut() {
  return upkeep_run([&](PgConnection& session) { return chores_->drop_partition(session, guard_); });
}

UpkeepReport PostgresqlLog::upkeep(const ServerRow& self, OriginId lease) {
  UpkeepReport report =
      upkeep_run([&](PgConnection& session) { return chores_->round(session, self, lease, locked_); });
  disk_bytes_.store(report.disk_bytes, std::memory_order_relaxed);
  packs_.store(std::ranges::all_of(report.servers,
                                   [&](const ServerRow& server) { return server.version == self.version; }));
  return report;
}

void PostgresqlLog::read_uncovered(LoadSink& sink) {
  upkeep_run([&](PgConnection& session) {
    // What a feed has shown may for a moment, or until a synchronous standby has it, be in no snapshot. The
    // caller counts it as read here.
    const std::string busy = await_log_writers(session, kWriterPatience);
    if (!busy.empty()) {
      throw AppendError(AppendError::Kind::unavailable, description_ + ": process " + busy);
    }
    const PatientSession patient(session, kUncoveredWait);
    const YieldingSession yielding(session, yield_checkpoint_);
    read_uncovered_rows(session, sink);
  });
}

// The last word, after `end_waits`.
void PostgresqlLog::sign_off(OriginId server) {
  upkeep_.reset();
  try {
    PgConnectOptions options;
    options.application_name = "isthmus end";
    options.statement_wait = kSignOffWait;
    PgConnection(conninfo_, options).exec("DELETE FROM isthmus.server WHERE id = $1", PgParams().add(server));
  } catch (const PgError& error) {
    throw AppendError(AppendError::Kind::unavailable, description_ + ": " + error.what());
  }
}

}  // namespace

std::unique_ptr<SharedLog> open_postgresql_log(const std::string& conninfo, const BackendOptions& options) {
  return std::make_unique<PostgresqlLog>(conninfo, options);
}

}  // namespace isthmus::backend
