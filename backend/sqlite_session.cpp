// An open SQLite database of ours with every statement that the log uses.
#include "backend/sqlite_session.hpp"

#include <algorithm>
#include <array>

#include "backend/sqlite_rows.hpp"

namespace isthmus::backend {
namespace {

/// Pages of 4 KiB: the write-ahead log goes into the database after about 16 MiB. That is rare enough to cost
/// few commits, and little enough that the one commit that does it takes milliseconds.
constexpr int kAutocheckpointPages = 4000;
/// To this size the write-ahead log shrinks after it had to grow (a huge value, a reader that held it up), in
/// bytes.
constexpr std::int64_t kWalKeptBytes = 32 << 20;
/// The page cache, in KiB. The log needs only its last pages; the checkpoint finds the others in the system's
/// cache.
constexpr int kCacheKib = 16 << 10;

/// A flush looks at so many keys or fields in one transaction.
constexpr int kFlushRows = 2000;
/// So many fields, or fields of about so many bytes, a key loses in one transaction before its own.
constexpr DeleteRoom kDeleteRoom{kFlushRows, 8 << 20};
/// One cut looks at so many rows, or at rows of about so many bytes, so that the commits behind it wait
/// milliseconds.
constexpr int kCutRows = 5000;
constexpr std::int64_t kCutBytes = 8 << 20;

constexpr std::string_view kInsertSql =
    "INSERT INTO log (position, arrived, site, origin, seq, version, db, kind, group_end, key, field, "
    "expire_at, "
    "sent_at, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)";

// Whoever writes the checkpoint nearly always knows more than it does in every respect, so that one
// comparison is enough. The rest is merged outside of SQL.
constexpr std::string_view kUpsertKeySql =
    "INSERT INTO entry (db, key, type, version, site, cut_version, cut_site, expire_at, expire_version, "
    "expire_site, "
    "value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (db, key) DO UPDATE SET "
    "type = excluded.type, version = excluded.version, site = excluded.site, cut_version = "
    "excluded.cut_version, "
    "cut_site = excluded.cut_site, expire_at = excluded.expire_at, expire_version = excluded.expire_version, "
    "expire_site = excluded.expire_site, value = excluded.value "
    "WHERE (excluded.version, excluded.site) >= (version, site) "
    "AND (excluded.cut_version, excluded.cut_site) >= (cut_version, cut_site) "
    "AND (excluded.expire_version, excluded.expire_site) >= (expire_version, expire_site)";

constexpr std::string_view kReplaceKeySql =
    "REPLACE INTO entry (db, key, type, version, site, cut_version, cut_site, expire_at, expire_version, "
    "expire_site, "
    "value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";

constexpr std::string_view kUpsertFieldSql =
    "INSERT INTO field (db, key, field, version, site, deleted, value) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) "
    "ON CONFLICT (db, key, field) DO UPDATE SET version = excluded.version, site = excluded.site, "
    "deleted = excluded.deleted, value = excluded.value "
    "WHERE (excluded.version, excluded.site) >= (version, site)";

// The fields of a key go in their order, and none of those that are left is looked at twice.
constexpr std::string_view kLookAtFieldsSql =
    "SELECT field, coalesce(length(value), 0) FROM field WHERE db = ?1 AND key = ?2 ORDER BY field LIMIT ?3";

constexpr std::string_view kUpsertProgressSql =
    "INSERT INTO progress (origin, seq) VALUES (?1, ?2) ON CONFLICT (origin) DO UPDATE SET seq = "
    "excluded.seq "
    "WHERE excluded.seq > seq";

// A flush looks at the fields, and then at the keys, in their order, so many a transaction.
constexpr std::string_view kNextFieldSql =
    "SELECT key, field FROM field WHERE db = ?1 AND (key, field) >= (?2, ?3) ORDER BY key, field LIMIT 1 "
    "OFFSET ?4";

constexpr std::string_view kFlushFieldsSql =
    "DELETE FROM field WHERE db = ?1 AND (key, field) IN (SELECT key, field FROM field WHERE db = ?1 "
    "AND (key, field) >= (?2, ?3) ORDER BY key, field LIMIT ?4) AND (version, site) <= (?5, ?6)";

constexpr std::string_view kNextKeySql =
    "SELECT key FROM entry WHERE db = ?1 AND key >= ?2 ORDER BY key LIMIT 1 OFFSET ?3";

constexpr std::string_view kFlushKeysSql =
    "DELETE FROM entry WHERE db = ?1 AND key IN (SELECT key FROM entry WHERE db = ?1 AND key >= ?2 ORDER BY "
    "key "
    "LIMIT ?3) AND (version, site) <= (?4, ?5) AND (cut_version, cut_site) <= (?4, ?5) "
    "AND (expire_version, expire_site) <= (?4, ?5)";

constexpr std::string_view kPlanCutSql =
    "SELECT position, coalesce(length(key), 0) + coalesce(length(field), 0) + coalesce(length(value), 0) "
    "FROM log "
    "WHERE position >= ?1 AND position < ?2 ORDER BY position LIMIT ?3";

constexpr std::string_view kCutSql =
    "DELETE FROM log WHERE position >= ?1 AND position < ?2 "
    "AND seq <= (SELECT progress.seq FROM progress WHERE progress.origin = log.origin)";

/// A number that SQL knows only with a sign. The log refuses rows whose numbers do not fit, and the
/// checkpoint holds what came from rows.
std::int64_t signed_number(std::uint64_t number) { return static_cast<std::int64_t>(number); }

/// A part of a row that its kind does not have is NULL, so that a person sees what belongs to it.
void bind_part(Statement& statement, int parameter, std::string_view part, bool belongs) {
  if (part.empty() && !belongs) {
    statement.bind_null(parameter);
  } else {
    statement.bind_blob(parameter, part);
  }
}

void bind_key(Statement& statement, const StoredKey& key) {
  statement.bind(1, key.db);
  statement.bind_blob(2, key.key);
  statement.bind_text(3, stored_type_name(key.type));
  statement.bind(4, signed_number(key.version));
  statement.bind(5, key.site);
  statement.bind(6, signed_number(key.cut_version));
  statement.bind(7, key.cut_site);
  if (key.expire_at) {
    statement.bind(8, *key.expire_at);
  } else {
    statement.bind_null(8);
  }
  statement.bind(9, signed_number(key.expire_version));
  statement.bind(10, key.expire_site);
  bind_part(statement, 11, key.type == StoredType::string ? key.value : std::string_view(),
            key.type == StoredType::string);
}

}  // namespace

SqliteSession::SqliteSession(const std::string& path, int busy_timeout_ms)
    : connection_(path, Connection::Mode::existing) {
  configure(busy_timeout_ms);
  begin_ = connection_.prepare("BEGIN IMMEDIATE");
  commit_ = connection_.prepare("COMMIT");
  rollback_ = connection_.prepare("ROLLBACK");
  insert_ = connection_.prepare(kInsertSql);
  upsert_key_ = connection_.prepare(kUpsertKeySql);
  read_key_ = connection_.prepare(std::string(kSelectKeysSql) + " WHERE db = ?1 AND key = ?2");
  replace_key_ = connection_.prepare(kReplaceKeySql);
  delete_key_ = connection_.prepare("DELETE FROM entry WHERE db = ?1 AND key = ?2");
  delete_fields_ = connection_.prepare("DELETE FROM field WHERE db = ?1 AND key = ?2");
  look_at_fields_ = connection_.prepare(kLookAtFieldsSql);
  delete_fields_before_ = connection_.prepare("DELETE FROM field WHERE db = ?1 AND key = ?2 AND field < ?3");
  upsert_field_ = connection_.prepare(kUpsertFieldSql);
  delete_field_ = connection_.prepare("DELETE FROM field WHERE db = ?1 AND key = ?2 AND field = ?3");
  next_field_ = connection_.prepare(kNextFieldSql);
  flush_fields_ = connection_.prepare(kFlushFieldsSql);
  next_key_ = connection_.prepare(kNextKeySql);
  flush_keys_ = connection_.prepare(kFlushKeysSql);
  upsert_progress_ = connection_.prepare(kUpsertProgressSql);
  plan_cut_ = connection_.prepare(kPlanCutSql);
  cut_ = connection_.prepare(kCutSql);
  note_cut_ = connection_.prepare("UPDATE site SET cut_position = ?1 WHERE cut_position < ?1");
}

void SqliteSession::configure(int busy_timeout_ms) const {
  sqlite3_busy_timeout(connection_.get(), busy_timeout_ms);
  // Set before anything is read: nothing in the file may call functions behind our back.
  connection_.execute("PRAGMA trusted_schema = OFF");
  if (connection_.query_text("PRAGMA journal_mode = WAL") != "wal") {
    throw SqliteError(SQLITE_CANTOPEN, "the database cannot use a write-ahead log on this file system");
  }
  connection_.execute(
      "PRAGMA synchronous = FULL; PRAGMA temp_store = MEMORY; PRAGMA secure_delete = OFF;"
      "PRAGMA cache_size = -" +
      std::to_string(kCacheKib) + "; PRAGMA wal_autocheckpoint = " + std::to_string(kAutocheckpointPages) +
      "; PRAGMA journal_size_limit = " + std::to_string(kWalKeptBytes));
}

void SqliteSession::rollback() noexcept {
  if (!connection_.in_transaction()) return;
  try {
    rollback_.run();
  } catch (const SqliteError&) {
    // Closing the connection, or the next open of the file, takes the transaction back. A connection that is
    // still in it refuses the next BEGIN, which has the log open a new one.
  }
}

SiteId SqliteSession::read_site() const {
  return connection_.query_integer("SELECT iif(count(*) = 1, max(id), 0) FROM site");
}

std::int64_t SqliteSession::read_next_position() const {
  const std::int64_t there = connection_.query_integer("SELECT max(position) FROM log");
  const std::int64_t gone = connection_.query_integer("SELECT max(cut_position) FROM site");
  return std::max(there, gone) + 1;
}

void SqliteSession::drain() const {
  const int code =
      sqlite3_wal_checkpoint_v2(connection_.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  if (code != SQLITE_OK) throw_sqlite_error(connection_.get(), code);
}

void SqliteSession::insert(std::int64_t position, std::int64_t arrived_ms, const Row& row) {
  const RowParts parts = row_parts(row.kind);
  insert_.bind(1, position);
  insert_.bind(2, arrived_ms);
  insert_.bind(3, row.site);
  insert_.bind(4, row.origin);
  insert_.bind(5, signed_number(row.seq));
  insert_.bind(6, signed_number(row.version));
  insert_.bind(7, row.db);
  insert_.bind_text(8, row_kind_name(row.kind));
  insert_.bind(9, row.group_end ? 1 : 0);
  bind_part(insert_, 10, row.key, parts.key);
  bind_part(insert_, 11, row.field, parts.field);
  if (row.expire_at) {
    insert_.bind(12, *row.expire_at);
  } else {
    insert_.bind_null(12);
  }
  if (row.sent_at != 0) {
    insert_.bind(13, row.sent_at);
  } else {
    insert_.bind_null(13);
  }
  bind_part(insert_, 14, row.value, parts.value);
  insert_.run();
}

bool SqliteSession::make_room(const CheckpointChunk& chunk) {
  DeleteRoom room = kDeleteRoom;
  for (const StoredKey& key : chunk.keys) {
    if ((key.forget || key.replace_fields) && !delete_fields(key, room)) return false;
  }
  return true;
}

bool SqliteSession::delete_fields(const StoredKey& key, DeleteRoom& room) {
  look_at_fields_.bind(1, key.db);
  look_at_fields_.bind_blob(2, key.key);
  look_at_fields_.bind(3, room.rows + 1);
  bool more = look_at_fields_.step();
  const bool any = more;
  while (more && room.rows > 0 && room.bytes > 0) {
    --room.rows;
    room.bytes -= look_at_fields_.integer(1);
    more = look_at_fields_.step();
  }
  const std::string first_left(more ? look_at_fields_.bytes(0) : std::string_view());
  look_at_fields_.reset();
  if (!more) {
    if (any) delete_fields(key.db, key.key);
    return true;
  }
  delete_fields_before_.bind(1, key.db);
  delete_fields_before_.bind_blob(2, key.key);
  delete_fields_before_.bind_blob(3, first_left);
  delete_fields_before_.run();
  return false;
}

void SqliteSession::put(const CheckpointChunk& chunk) {
  for (const StoredKey& key : chunk.keys) put_key(key);
  for (const StoredField& field : chunk.fields) put_field(field);
}

void SqliteSession::put_key(const StoredKey& key) {
  if (key.forget) {
    delete_key(key.db, key.key);
    delete_fields(key.db, key.key);
    return;
  }
  if (key.replace_fields) delete_fields(key.db, key.key);
  bind_key(upsert_key_, key);
  upsert_key_.run();
  if (sqlite3_changes(connection_.get()) == 0) merge_key(key);
}

void SqliteSession::merge_key(const StoredKey& key) {
  StoredKey merged = key;
  read_key_.bind(1, key.db);
  read_key_.bind_blob(2, key.key);
  if (read_key_.step()) {
    StoredKey stored;
    read_stored_key(read_key_, stored);
    merge_stored_key(merged, stored);
  }
  read_key_.reset();
  bind_key(replace_key_, merged);
  replace_key_.run();
}

void SqliteSession::delete_key(std::uint8_t db, const std::string& key) {
  delete_key_.bind(1, db);
  delete_key_.bind_blob(2, key);
  delete_key_.run();
}

void SqliteSession::delete_fields(std::uint8_t db, const std::string& key) {
  delete_fields_.bind(1, db);
  delete_fields_.bind_blob(2, key);
  delete_fields_.run();
}

void SqliteSession::put_field(const StoredField& field) {
  Statement& statement = field.forget ? delete_field_ : upsert_field_;
  statement.bind(1, field.db);
  statement.bind_blob(2, field.key);
  statement.bind_blob(3, field.field);
  if (!field.forget) {
    statement.bind(4, signed_number(field.version));
    statement.bind(5, field.site);
    statement.bind(6, field.deleted ? 1 : 0);
    bind_part(statement, 7, field.deleted ? std::string_view() : field.value, !field.deleted);
  }
  statement.run();
}

bool SqliteSession::forget_flushed(FlushCursor& cursor) {
  if (cursor.fields_done) return flush_keys(cursor);
  if (!flush_fields(cursor)) {
    cursor.fields_done = true;
    cursor.key.clear();
  }
  return true;
}

bool SqliteSession::flush_fields(FlushCursor& cursor) {
  std::string next_key, next_field;
  for (Statement* statement : {&next_field_, &flush_fields_}) {
    statement->bind(1, cursor.db);
    statement->bind_blob(2, cursor.key);
    statement->bind_blob(3, cursor.field);
    statement->bind(4, kFlushRows);
  }
  const bool more = next_field_.step();
  if (more) {
    next_key = next_field_.bytes(0);
    next_field = next_field_.bytes(1);
  }
  next_field_.reset();
  flush_fields_.bind(5, signed_number(cursor.version));
  flush_fields_.bind(6, cursor.site);
  flush_fields_.run();
  cursor.key = std::move(next_key);
  cursor.field = std::move(next_field);
  return more;
}

bool SqliteSession::flush_keys(FlushCursor& cursor) {
  std::string next;
  for (Statement* statement : {&next_key_, &flush_keys_}) {
    statement->bind(1, cursor.db);
    statement->bind_blob(2, cursor.key);
    statement->bind(3, kFlushRows);
  }
  const bool more = next_key_.step();
  if (more) next = next_key_.bytes(0);
  next_key_.reset();
  flush_keys_.bind(4, signed_number(cursor.version));
  flush_keys_.bind(5, cursor.site);
  flush_keys_.run();
  cursor.key = std::move(next);
  return more;
}

void SqliteSession::put_progress(OriginId origin, Seq seq) {
  upsert_progress_.bind(1, origin);
  upsert_progress_.bind(2, signed_number(seq));
  upsert_progress_.run();
}

std::int64_t SqliteSession::plan_cut(std::int64_t from, std::int64_t end) {
  plan_cut_.bind(1, from);
  plan_cut_.bind(2, end);
  plan_cut_.bind(3, kCutRows);
  std::int64_t next = end;
  std::int64_t bytes = 0;
  int rows = 0;
  while (plan_cut_.step()) {
    bytes += plan_cut_.integer(1);
    if (++rows < kCutRows && bytes < kCutBytes) continue;
    next = plan_cut_.integer(0) + 1;
    break;
  }
  plan_cut_.reset();
  return next;
}

void SqliteSession::cut(std::int64_t from, std::int64_t to) {
  cut_.bind(1, from);
  cut_.bind(2, to);
  cut_.run();
  if (sqlite3_changes(connection_.get()) == 0) return;
  // So that a position is never used again, even when the whole log has gone.
  note_cut_.bind(1, to - 1);
  note_cut_.run();
}

}  // namespace isthmus::backend
