// The backend `sqlite:PATH`: the log and the checkpoint in one SQLite database.
#include "backend/sqlite_log.hpp"

#include <chrono>
#include <limits>
#include <string_view>
#include <utility>

#include "backend/random_id.hpp"
#include "backend/sqlite_files.hpp"
#include "backend/sqlite_rows.hpp"
#include "backend/sqlite_schema.hpp"
#include "backend/sqlite_session.hpp"

namespace isthmus::backend {
namespace {

/// SQL has no unsigned numbers. A version above this would be 2,700 years ahead.
constexpr std::uint64_t kMaxNumber = std::numeric_limits<std::int64_t>::max();

std::int64_t system_clock_ms() {
  using std::chrono::duration_cast, std::chrono::milliseconds, std::chrono::system_clock;
  return duration_cast<milliseconds>(system_clock::now().time_since_epoch()).count();
}

/// Throws OpenError unless the file is a database of ours, of this version or an older one. False: there is
/// none yet.
bool check_header(const std::string& path) {
  const std::optional<DatabaseHeader> header = read_database_header(path);
  if (!header) return false;
  if (header->application_id != kApplicationId) {
    throw OpenError("sqlite: " + path + " belongs to another program; name another file");
  }
  if (header->user_version > kSchemaVersion) {
    throw OpenError("sqlite: " + path + " has the schema version " + std::to_string(header->user_version) +
                    " of a newer Isthmus, and this one knows up to " + std::to_string(kSchemaVersion) +
                    "; use the newer one");
  }
  if (header->user_version == 0) throw OpenError("sqlite: " + path + " is damaged: it has no schema version");
  return true;
}

/// What SQLite would take for the rest of a new database and write into it.
void check_no_leftovers(const std::string& path) {
  for (const char* suffix : {"-wal", "-journal"}) {
    if (file_size(path + suffix) == 0) continue;
    throw OpenError(
        "sqlite: " + path + " is gone but " + path + suffix +
        " is there and may hold writes: put the database back, or move that file away to begin anew");
  }
}

/// Makes a new database in one step: it is written under another name first, so that a crash leaves all of it
/// or nothing.
void create_database(const std::string& path, std::int64_t now_ms) {
  const std::string draft = path + "-new";
  const auto discard = [&draft] {
    for (const char* suffix : {"", "-journal", "-wal", "-shm"}) remove_file(draft + suffix);
  };
  discard();
  try {
    const Connection connection(draft, Connection::Mode::create);
    connection.execute("PRAGMA page_size = 4096; PRAGMA synchronous = EXTRA; BEGIN");
    connection.execute(schema_sql());
    const std::string now = std::to_string(now_ms);
    connection.execute("INSERT INTO site VALUES (" + std::to_string(random_id()) + ", " + now + ", 0);" +
                       "INSERT INTO schema_version VALUES (" + std::to_string(kSchemaVersion) + ", " + now +
                       "); COMMIT; PRAGMA journal_mode = WAL");
  } catch (const SqliteError& error) {
    discard();
    throw OpenError("sqlite: cannot make " + path + ": " + error.what());
  }
  rename_file(draft, path);
}

class SqliteLog final : public Log {
 public:
  SqliteLog(std::string path, SqliteOptions options);

  bool durable() const override { return true; }
  SiteId site() const override { return site_; }
  void load(LoadSink& sink) override;
  void append(const RowBatch& batch) override;
  void write_checkpoint(const CheckpointChunk& chunk) override;
  bool write_checkpoint_step(const CheckpointChunk& chunk) override;
  bool forget_flushed(std::uint8_t db, Version version, SiteId site) override;
  void put_mark(const CheckpointMark& mark) override;
  bool cut() override;
  std::uint64_t disk_bytes() const override { return file_size(path_) + file_size(wal_path_); }
  std::string description() const override { return "sqlite:" + path_; }

 private:
  void open_session();
  void create_if_absent();
  void migrate();
  void check_files();
  void check_lock() const;
  void outlast_former_server();
  void reopen();
  template <typename Body>
  void transact(const Body& body);
  [[noreturn]] void give_up(const SqliteError& error);
  [[noreturn]] void refuse(AppendError::Kind kind, const std::string& reason) const {
    throw AppendError(kind, description() + ": " + reason);
  }
  void check_row(const Row& row) const;

  const std::string path_, wal_path_, shm_path_;
  const SqliteOptions options_;
  LockFile lock_;
  std::unique_ptr<SqliteSession> session_;
  /// The session failed in a way after which only a new one can be trusted.
  bool suspect_ = false;
  std::optional<FileIdentity> file_, wal_, shm_;
  SiteId site_ = 0;
  FlushCursor flush_;
  std::int64_t next_position_ = 1;
  /// What cut() has still to look at: the positions from the first up to and without the second.
  std::int64_t cut_from_ = 0, cut_end_ = 0;
};

SqliteLog::SqliteLog(std::string path, SqliteOptions options)
    : path_(std::move(path)),
      wal_path_(path_ + "-wal"),
      shm_path_(path_ + "-shm"),
      options_(std::move(options)),
      lock_(path_ + "-lock") {
  create_if_absent();
  try {
    migrate();
    open_session();
    outlast_former_server();
    site_ = session_->read_site();
  } catch (const SqliteError& error) {
    throw OpenError(description() + ": " + error.what());
  }
  if (site_ <= 0)
    throw OpenError(description() + ": the database is damaged: the table site must have one row");
  // A server that was killed may have left covered rows.
  cut_end_ = next_position_;
}

void SqliteLog::create_if_absent() {
  // Looked at again, since only now nobody else can be making it.
  if (check_header(path_)) return;
  check_no_leftovers(path_);
  create_database(path_, options_.clock());
}

// All of it or nothing, and into the database itself: an older server looks at nothing but its header.
void SqliteLog::migrate() {
  const Connection connection(path_, Connection::Mode::existing);
  if (connection.query_integer("PRAGMA user_version") >= std::int64_t{kSchemaVersion}) return;
  connection.execute("BEGIN IMMEDIATE; " + migration_sql() + "INSERT INTO schema_version VALUES (" +
                     std::to_string(kSchemaVersion) + ", " + std::to_string(options_.clock()) +
                     "); COMMIT; PRAGMA wal_checkpoint(TRUNCATE)");
}

void SqliteLog::open_session() {
  session_ = std::make_unique<SqliteSession>(path_, options_.busy_timeout_ms);
  next_position_ = session_->read_next_position();
  // The reads above have made the files beside the database, and they stay as long as the session.
  file_ = identify_file(path_);
  wal_ = identify_file(wal_path_);
  shm_ = identify_file(shm_path_);
}

// A server that has lost its lock file notices it in its next transaction. What it commits, it commits before
// this one; only now everything is there.
void SqliteLog::outlast_former_server() {
  session_->begin();
  session_->rollback();
  next_position_ = session_->read_next_position();
}

void SqliteLog::load(LoadSink& sink) {
  try {
    load_database(session_->connection(), sink);
  } catch (const SqliteError& error) {
    session_->rollback();
    throw OpenError(description() + ": " + error.what());
  } catch (...) {
    session_->rollback();
    throw;
  }
}

/// An open file outlives its name: without this, writes would go into a file that nobody finds again. Three
/// calls of stat (and that of check_lock) cost a hundredth of a commit.
void SqliteLog::check_files() {
  const std::optional<FileIdentity> named = identify_file(path_);
  if (!named)
    refuse(AppendError::Kind::unavailable,
           "the database file is gone: put it back, or restart to begin anew");
  if (named != file_) {
    refuse(AppendError::Kind::unavailable,
           "another file has taken the place of the database: put the old one back, or restart to use the "
           "new one");
  }
  const std::optional<FileIdentity> wal = identify_file(wal_path_);
  if (wal == wal_ && identify_file(shm_path_) == shm_) return;
  if (wal && wal != wal_ && file_size(wal_path_) > 0) {
    refuse(AppendError::Kind::unavailable,
           "another program has put its own write-ahead log at " + wal_path_ + ": restart the server");
  }
  // Only the helper files are gone, and the open one still has what was committed.
  if (session_) session_->drain();
  suspect_ = true;
}

/// Inside a transaction, which keeps out whoever has the lock instead of us: see outlast_former_server.
void SqliteLog::check_lock() const {
  if (lock_.holds()) return;
  refuse(AppendError::Kind::unavailable,
         "the lock file " + lock_.path() +
             " was removed, and another server may use this database: restart this one");
}

void SqliteLog::reopen() {
  // Closed first: two sessions of one process would share locks.
  session_.reset();
  open_session();
  suspect_ = false;
}

/// Runs `body` in a transaction. Afterwards all of it is durable, or an AppendError tells that nothing of it
/// is.
template <typename Body>
void SqliteLog::transact(const Body& body) {
  try {
    check_files();
    if (suspect_ || !session_) reopen();
    session_->begin();
    check_lock();
    body(*session_);
    session_->commit();
  } catch (const SqliteError& error) {
    give_up(error);
  } catch (...) {
    if (session_) session_->rollback();
    throw;
  }
}

void SqliteLog::give_up(const SqliteError& error) {
  if (session_) session_->rollback();
  switch (error.primary()) {
    case SQLITE_TOOBIG:
      refuse(AppendError::Kind::rejected, error.what());
    case SQLITE_FULL:
    case SQLITE_BUSY:
      break;
    case SQLITE_IOERR:
      // A write that fails for want of space or quota says nothing against the session.
      if (error.code != SQLITE_IOERR_WRITE && error.code != SQLITE_IOERR_FSYNC) suspect_ = true;
      break;
    default:
      suspect_ = true;
  }
  refuse(AppendError::Kind::unavailable, error.what());
}

void SqliteLog::check_row(const Row& row) const {
  if (is_count(row.kind) || row.kind == RowKind::htype || row.kind == RowKind::stype ||
      row.kind == RowKind::frontier || row.kind == RowKind::reach || row.kind == RowKind::subscribers ||
      row.copied) {
    refuse(AppendError::Kind::rejected, "a row of linked sites does not belong into an embedded log");
  }
  if (row.key.size() + row.field.size() + row.value.size() > options_.max_row_bytes) {
    refuse(AppendError::Kind::rejected, "a row is larger than SQLite can hold");
  }
  if (row.version > kMaxNumber || row.seq > kMaxNumber) {
    refuse(AppendError::Kind::rejected, "a version or seq is above 2^63-1");
  }
}

void SqliteLog::append(const RowBatch& batch) {
  if (batch.empty()) return;
  transact([&](SqliteSession& session) {
    const std::int64_t now_ms = options_.clock();
    for (std::size_t i = 0; i < batch.size(); ++i) {
      const Row row = batch[i];
      check_row(row);
      session.insert(next_position_ + static_cast<std::int64_t>(i), now_ms, row);
    }
  });
  next_position_ += static_cast<std::int64_t>(batch.size());
}

void SqliteLog::write_checkpoint(const CheckpointChunk& chunk) {
  if (chunk.empty()) return;
  transact([&](SqliteSession& session) { session.put(chunk); });
}

bool SqliteLog::write_checkpoint_step(const CheckpointChunk& chunk) {
  if (chunk.empty()) return false;
  bool done = false;
  transact([&](SqliteSession& session) {
    done = session.make_room(chunk);
    if (done) session.put(chunk);
  });
  return !done;
}

bool SqliteLog::forget_flushed(std::uint8_t db, Version version, SiteId site) {
  FlushCursor cursor = flush_;
  if (cursor.db != db || cursor.version != version || cursor.site != site) cursor = {db, version, site};
  bool more = false;
  transact([&](SqliteSession& session) { more = session.forget_flushed(cursor); });
  // Only now, so that a failed call is repeated; after the last one anew, since the checkpoint may change in
  // between.
  flush_ = more ? cursor : FlushCursor();
  return more;
}

void SqliteLog::put_mark(const CheckpointMark& mark) {
  const Vector& vector = mark.vector;
  transact([&](SqliteSession& session) {
    for (const auto& [origin, seq] : vector) session.put_progress(origin, seq);
  });
  cut_from_ = 0;
  cut_end_ = next_position_;
}

bool SqliteLog::cut() {
  if (cut_from_ >= cut_end_) return false;
  std::int64_t next = cut_end_;
  transact([&](SqliteSession& session) {
    next = session.plan_cut(cut_from_, cut_end_);
    session.cut(cut_from_, next);
  });
  cut_from_ = next;
  return cut_from_ < cut_end_;
}

}  // namespace

std::unique_ptr<Log> open_sqlite_log(const std::string& path, SqliteOptions options) {
  if (!options.clock) options.clock = system_clock_ms;
  const std::string resolved = resolve_database_path(path);
  // Before the lock file is made: beside what is not ours nothing may appear.
  if (!check_header(resolved)) check_no_leftovers(resolved);
  return std::make_unique<SqliteLog>(resolved, std::move(options));
}

}  // namespace isthmus::backend
