// How rows and checkpoint entries look in SQLite, and how the database is read into a server.
#include "backend/sqlite_rows.hpp"

#include <array>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>

namespace isthmus::backend {
namespace {

/// In the order of StoredType.
constexpr std::array<std::string_view, 4> kTypeNames = {"none", "string", "hash", "set"};

using Stamp = std::pair<Version, SiteId>;

Stamp value_stamp(const StoredKey& key) { return {key.version, key.site}; }
Stamp cut_stamp(const StoredKey& key) { return {key.cut_version, key.cut_site}; }
Stamp expire_stamp(const StoredKey& key) { return {key.expire_version, key.expire_site}; }

[[noreturn]] void throw_newer(const std::string& what) {
  throw SqliteError(SQLITE_MISMATCH, what + " is unknown: a newer Isthmus wrote it; use that version");
}

std::uint8_t checked_database(std::int64_t number) {
  if (const std::string error = database_error(number); !error.empty())
    throw SqliteError(SQLITE_CORRUPT, error);
  return static_cast<std::uint8_t>(number);
}

StoredType parse_type(std::string_view name) {
  for (std::size_t i = 0; i < kTypeNames.size(); ++i) {
    if (kTypeNames[i] == name) return static_cast<StoredType>(i);
  }
  throw_newer("the type '" + std::string(name) + "' of a key");
}

/// A string that was set and later deleted: the deletion is what remains.
void drop_dead_string(StoredKey& key) {
  if (key.type != StoredType::string || value_stamp(key) >= cut_stamp(key)) return;
  key.type = StoredType::none;
  key.value.clear();
}

/// A field that a deletion of the key or a newer string has superseded.
bool is_dead(const StoredField& field, const StoredKey& owner) {
  const Stamp stamp{field.version, field.site};
  return stamp < cut_stamp(owner) || (owner.type == StoredType::string && stamp < value_stamp(owner));
}

/// The fields of the checkpoint, read beside its keys: both come in the order of (db, key).
class FieldReader {
 public:
  explicit FieldReader(const Connection& connection)
      : statement_(connection.prepare("SELECT db, key, field, version, site, deleted, value FROM field "
                                      "ORDER BY db, key, field")) {
    next();
  }

  bool done() const { return done_; }
  const StoredField& field() const { return field_; }

  void next() {
    done_ = !statement_.step();
    if (done_) return;
    field_.db = checked_database(statement_.integer(0));
    field_.key = statement_.bytes(1);
    field_.field = statement_.bytes(2);
    field_.version = static_cast<Version>(statement_.integer(3));
    field_.site = statement_.integer(4);
    field_.deleted = statement_.integer(5) != 0;
    field_.value = statement_.bytes(6);
  }

  /// Whether the field belongs to a key before `key`.
  bool before(const StoredKey& key) const {
    return !done_ && std::tie(field_.db, field_.key) < std::tie(key.db, key.key);
  }
  bool of(const StoredKey& key) const { return !done_ && field_.db == key.db && field_.key == key.key; }

 private:
  Statement statement_;
  StoredField field_;
  bool done_ = false;
};

/// Hands out the fields of `owner`, which the sink has just got.
void load_fields(FieldReader& fields, const StoredKey& owner, LoadSink& sink) {
  for (; fields.of(owner); fields.next()) {
    if (!is_dead(fields.field(), owner)) sink.field(fields.field());
  }
}

/// Fields whose key has no row of its own: the sink gets a key for them that claims nothing.
void load_orphans(FieldReader& fields, LoadSink& sink) {
  StoredKey owner;
  owner.db = fields.field().db;
  owner.key = fields.field().key;
  owner.type = StoredType::hash;
  sink.key(owner);
  load_fields(fields, owner, sink);
}

void load_checkpoint(const Connection& connection, LoadSink& sink) {
  Statement keys = connection.prepare(std::string(kSelectKeysSql) + " ORDER BY db, key");
  FieldReader fields(connection);
  StoredKey key;
  while (keys.step()) {
    read_stored_key(keys, key);
    drop_dead_string(key);
    while (fields.before(key)) load_orphans(fields, sink);
    sink.key(key);
    load_fields(fields, key, sink);
  }
  while (!fields.done()) load_orphans(fields, sink);
}

/// The last seq of each origin that the sink has, from the checkpoint or the rows so far.
class Progress {
 public:
  explicit Progress(const Connection& connection) {
    Statement statement = connection.prepare("SELECT origin, seq FROM progress");
    while (statement.step()) seqs_[statement.integer(0)] = static_cast<Seq>(statement.integer(1));
  }

  /// Whether the row is new, and takes note of it. A row that was committed twice, because its first commit
  /// was not known to have succeeded, counts once.
  bool advance(OriginId origin, Seq seq) {
    // Rows of one origin mostly come one after the other. Pointers into this map stay valid when it grows.
    if (last_seq_ == nullptr || last_origin_ != origin) {
      last_origin_ = origin;
      last_seq_ = &seqs_[origin];
    }
    if (seq <= *last_seq_) return false;
    *last_seq_ = seq;
    return true;
  }

 private:
  std::unordered_map<OriginId, Seq> seqs_;
  OriginId last_origin_ = 0;
  Seq* last_seq_ = nullptr;
};

void read_row(const Statement& statement, Row& row) {
  row.version = static_cast<Version>(statement.integer(3));
  row.db = checked_database(statement.integer(4));
  const std::optional<RowKind> kind = row_kind_from_name(statement.bytes(5));
  if (!kind) throw_newer("the kind '" + std::string(statement.bytes(5)) + "' of a log row");
  row.kind = *kind;
  row.group_end = statement.integer(6) != 0;
  row.key = statement.bytes(7);
  row.field = statement.bytes(8);
  row.expire_at.reset();
  if (!statement.is_null(9)) row.expire_at = statement.integer(9);
  row.sent_at = statement.integer(10);
  row.value = statement.bytes(11);
}

void load_log(const Connection& connection, LoadSink& sink) {
  Progress progress(connection);
  Statement statement = connection.prepare(
      "SELECT site, origin, seq, version, db, kind, group_end, key, field, expire_at, sent_at, value FROM "
      "log "
      "ORDER BY position");
  Row row;
  while (statement.step()) {
    row.site = statement.integer(0);
    row.origin = statement.integer(1);
    row.seq = static_cast<Seq>(statement.integer(2));
    if (!progress.advance(row.origin, row.seq)) continue;
    read_row(statement, row);
    sink.row(row);
  }
}

}  // namespace

std::string_view stored_type_name(StoredType type) { return kTypeNames.at(static_cast<std::size_t>(type)); }

void read_stored_key(const Statement& statement, StoredKey& key) {
  key.db = checked_database(statement.integer(0));
  key.key = statement.bytes(1);
  key.type = parse_type(statement.bytes(2));
  key.version = static_cast<Version>(statement.integer(3));
  key.site = statement.integer(4);
  key.cut_version = static_cast<Version>(statement.integer(5));
  key.cut_site = statement.integer(6);
  key.expire_at.reset();
  if (!statement.is_null(7)) key.expire_at = statement.integer(7);
  key.expire_version = static_cast<Version>(statement.integer(8));
  key.expire_site = statement.integer(9);
  key.value = statement.bytes(10);
}

void merge_stored_key(StoredKey& key, const StoredKey& stored) {
  if (cut_stamp(stored) > cut_stamp(key)) {
    key.cut_version = stored.cut_version;
    key.cut_site = stored.cut_site;
  }
  // A register of version 0 has been forgotten by who writes: it says nothing any more.
  if (key.expire_version != 0 && expire_stamp(stored) > expire_stamp(key)) {
    key.expire_at = stored.expire_at;
    key.expire_version = stored.expire_version;
    key.expire_site = stored.expire_site;
  }
  if (value_stamp(stored) > value_stamp(key) && value_stamp(stored) >= cut_stamp(key)) {
    key.type = stored.type;
    key.value = stored.value;
    key.version = stored.version;
    key.site = stored.site;
  }
}

void load_database(const Connection& connection, LoadSink& sink) {
  // One transaction, so that all of it is one state even if a person edits the database meanwhile.
  connection.execute("BEGIN");
  load_checkpoint(connection, sink);
  load_log(connection, sink);
  connection.execute("COMMIT");
}

}  // namespace isthmus::backend
