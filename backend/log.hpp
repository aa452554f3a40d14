// The interface to a log: append, checkpoint, load. Knows nothing of RESP or of commands.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "backend/row.hpp"

namespace isthmus::backend {

/// For each origin the highest seq that somebody has folded in.
using Vector = std::map<OriginId, Seq>;

/// The types of a key in the checkpoint. `none` is a deleted key that is still remembered.
enum class StoredType : std::uint8_t { none, string, hash, set };

/// A key of the checkpoint without its fields.
struct StoredKey {
  std::uint8_t db = 0;
  std::string key;
  StoredType type = StoredType::none;
  std::string value;  ///< of a string
  Version version = 0;
  SiteId site = 0;
  /// Whatever of this key is older than (cut_version, cut_site) is deleted: the highest set, del or flush
  /// seen.
  Version cut_version = 0;
  SiteId cut_site = 0;
  std::optional<std::int64_t> expire_at;  ///< milliseconds since the Unix epoch
  Version expire_version = 0;
  SiteId expire_site = 0;
  /// Of a string that sites count on: "lease=total@version …", and `value` is the base (empty: none). Else
  /// empty.
  std::string totals;
  /// Write: delete this key and its fields from the checkpoint, whatever their versions.
  bool forget = false;
  /// Write: delete the fields that the checkpoint has before those of this chunk go in. If the others come in
  /// later chunks, each of them must still be in the log behind the checkpoint's progress, for a crash in
  /// between.
  bool replace_fields = false;
};

/// One field of a hash, or one member of a set, in the checkpoint.
struct StoredField {
  std::uint8_t db = 0;
  std::string key;
  std::string field;
  std::string value;
  Version version = 0;
  SiteId site = 0;
  std::string totals;    ///< as that of a key; of a member added by several sites "site=version …"
  bool deleted = false;  ///< a tombstone that is still remembered
  bool forget = false;   ///< write: delete this field from the checkpoint
};

/// A piece of a checkpoint: written in one transaction, keys first, then fields. Chunks whose keys follow
/// each other in the order of (db, key) cost a tenth of others, because neighbours share pages.
struct CheckpointChunk {
  std::vector<StoredKey> keys;
  std::vector<StoredField> fields;
  bool empty() const { return keys.empty() && fields.empty(); }
};

/// All keys of a database at or below (version, site) are deleted: a flush that is still remembered.
struct StoredFlush {
  std::uint8_t db = 0;
  Version version = 0;
  SiteId site = 0;
};

/// Site `site` has said that it has folded everything of site `of` up to `version`.
struct StoredFrontier {
  SiteId site = 0;
  SiteId of = 0;
  Version version = 0;
};

/// What a checkpoint says besides keys and fields.
struct CheckpointMark {
  Vector vector;
  std::vector<StoredFlush> flushes;  ///< one a database at most
  std::vector<StoredFrontier> frontiers;
  /// When the vector was: what has arrived since may be beyond it.
  std::chrono::steady_clock::time_point taken = std::chrono::steady_clock::now();
};

/// Receives what `Log::load` reads: keys and fields of the checkpoint (a key before its fields), then the
/// rows of the log that the checkpoint does not cover, per origin in the order of seq. Views live during the
/// call only.
class LoadSink {
 public:
  virtual ~LoadSink() = default;
  virtual void key(const StoredKey& key) = 0;
  virtual void field(const StoredField& field) = 0;
  virtual void row(const Row& row) = 0;
  /// Of this origin everything up to `seq` is in the checkpoint, whether or not its rows are still in the
  /// log. Before the first key. An embedded log, which is read whole, does not say it.
  virtual void covered(OriginId /*origin*/, Seq /*seq*/, SiteId /*site*/) {}
  /// What the checkpoint's mark says. Before the first key.
  virtual void flushed(const StoredFlush& /*flush*/) {}
  virtual void frontier(const StoredFrontier& /*frontier*/) {}
};

/// The log cannot be opened or used at all: a wrong path, a foreign or newer database, a lock held by another
/// server. `what()` is one clear line for the operator, with the remedy where there is one.
struct OpenError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class SharedLog;

/// The backend could not take a transaction. Of an embedded log nothing of it is in the log; of a shared log
/// whose connection broke that is unknown (SharedLog::connect tells).
struct AppendError : std::runtime_error {
  enum class Kind {
    unavailable,  ///< the world's failure (disk full, file gone, I/O error): the same batch may go in later
    rejected,     ///< this batch will never go in (for example a value that SQL cannot hold)
  };
  AppendError(Kind k, const std::string& what) : std::runtime_error(what), kind(k) {}
  Kind kind;
};

/// A log in SQL. Its functions are called by one thread at a time, except for durable, site, disk_bytes and
/// description, which any thread may call at any time.
class Log {
 public:
  virtual ~Log() = default;

  /// Whether appended rows outlive the process. If not, nothing needs to be appended at all.
  virtual bool durable() const = 0;
  /// The database's own site id, made at its birth.
  virtual SiteId site() const = 0;
  /// What is in the database. Once, before the first append. Throws OpenError.
  virtual void load(LoadSink& sink) = 0;
  /// Commits all rows of the batch in one transaction, in their order. Throws AppendError.
  virtual void append(const RowBatch& batch) = 0;
  /// Writes a piece of the checkpoint in one transaction. A register with a higher (version, site) stays as
  /// it is, but gives way to one of version 0: whoever writes has forgotten it, having seen that it says
  /// nothing any more. Throws AppendError.
  virtual void write_checkpoint(const CheckpointChunk& chunk) = 0;
  /// The same in several transactions, if others would wait too long for all fields that its keys forget or
  /// replace: true if it has deleted some of them, wrote nothing yet, and is to be called again with the same
  /// chunk. In between the checkpoint has such a key as it was, without some of its fields. So whatever ended
  /// those must still be in the log behind the checkpoint's progress, for a crash. Throws AppendError.
  virtual bool write_checkpoint_step(const CheckpointChunk& chunk) {
    write_checkpoint(chunk);
    return false;
  }
  /// Forgets at most a few thousand keys of the checkpoint (with their fields) that a flush of the database
  /// at (version, site) deletes; false when none are left. Throws AppendError.
  virtual bool forget_flushed(std::uint8_t db, Version version, SiteId site) = 0;
  /// The checkpoint now covers `mark.vector`: records that with the rest of the mark (an embedded log has no
  /// peers and keeps the vector only), and may delete the covered rows from the log. Throws AppendError.
  virtual void put_mark(const CheckpointMark& mark) = 0;
  void finish_checkpoint(const Vector& vector) { put_mark({vector, {}, {}}); }
  /// Deletes at most a few thousand covered rows; false when none are left. Throws AppendError.
  virtual bool cut() = 0;
  /// Size of the database on disk in bytes, for INFO. 0 if unknown.
  virtual std::uint64_t disk_bytes() const = 0;
  /// The same log as one that several servers share; null if it is embedded in one process.
  virtual SharedLog* shared() { return nullptr; }
  /// One line for INFO and log lines: the kind and place of the backend without secrets, as `sqlite:/path`.
  virtual std::string description() const = 0;
};

/// What a backend is told besides its place.
struct BackendOptions {
  /// A shared log keeps its rows for so long after they came, for servers and sites that were away. The
  /// partitions of the log are a fifth of it, and at least 10 s.
  std::chrono::seconds log_retention{600};
};

/// Opens the backend that `url` names: `memory:`, `sqlite:PATH`, or whatever libpq takes as a connection
/// string: a URI
/// (`postgresql://…`, `postgres://…`) or keywords and values (`host=… dbname=…`). Throws OpenError and
/// touches nothing if it cannot.
std::unique_ptr<Log> open_log(const std::string& url, const BackendOptions& options = {});

}  // namespace isthmus::backend
