// An open SQLite database of ours with every statement that the log uses.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "backend/log.hpp"
#include "backend/sqlite_connection.hpp"

namespace isthmus::backend {

/// A flush of a database that the checkpoint has to follow, and how far it has: first through the fields,
/// then the keys.
struct FlushCursor {
  std::uint8_t db = 0;
  Version version = 0;
  SiteId site = 0;
  bool fields_done = false;
  std::string key, field;  ///< the first that nobody has looked at
};

/// What one transaction may still delete.
struct DeleteRoom {
  int rows;
  std::int64_t bytes;
};

/// A connection with its settings and prepared statements. A new one is made when the old one cannot be
/// trusted any more. Throws SqliteError.
class SqliteSession {
 public:
  /// `busy_timeout_ms`: how long a statement waits for another process that writes.
  SqliteSession(const std::string& path, int busy_timeout_ms);

  void begin() { begin_.run(); }
  void commit() { commit_.run(); }
  /// Ends an open transaction, if there is one, and takes back all it did.
  void rollback() noexcept;

  const Connection& connection() const { return connection_; }
  /// The id in the table `site`, 0 when that has not exactly one row.
  SiteId read_site() const;
  /// The position for the next row of the log: above all that are there and all that ever were.
  std::int64_t read_next_position() const;
  /// Copies the whole write-ahead log into the database file. Throws if something is left over.
  void drain() const;

  /// Adds a row to the log. Its bytes must live until the next call.
  void insert(std::int64_t position, std::int64_t arrived_ms, const Row& row);
  /// Deletes fields that the keys of the chunk forget or replace, as many as one transaction should; false if
  /// some are left.
  bool make_room(const CheckpointChunk& chunk);
  /// Writes a piece of the checkpoint, keys first. Of each register the higher (version, site) stays.
  void put(const CheckpointChunk& chunk);
  /// Raises the checkpoint's progress for one origin.
  void put_progress(OriginId origin, Seq seq);

  /// Looks at some keys and fields of the checkpoint and deletes what a flush covers. `cursor` says where to
  /// go on; false when the end was reached.
  bool forget_flushed(FlushCursor& cursor);

  /// The positions of the log from `from` up to `end` that one cut should look at: where the next one starts.
  std::int64_t plan_cut(std::int64_t from, std::int64_t end);
  /// Deletes the rows from `from` up to and without `to` that the checkpoint covers.
  void cut(std::int64_t from, std::int64_t to);

 private:
  void configure(int busy_timeout_ms) const;
  void put_key(const StoredKey& key);
  void put_field(const StoredField& field);
  void merge_key(const StoredKey& key);
  bool flush_fields(FlushCursor& cursor);
  bool flush_keys(FlushCursor& cursor);
  void delete_key(std::uint8_t db, const std::string& key);
  bool delete_fields(const StoredKey& key, DeleteRoom& room);
  void delete_fields(std::uint8_t db, const std::string& key);

  Connection connection_;
  // Whatever is prepared on the connection comes below it, and so goes first.
  Statement begin_, commit_, rollback_;
  Statement insert_;
  Statement upsert_key_, read_key_, replace_key_, delete_key_, delete_fields_;
  Statement look_at_fields_, delete_fields_before_;
  Statement upsert_field_, delete_field_;
  Statement next_field_, flush_fields_, next_key_, flush_keys_;
  Statement upsert_progress_;
  Statement plan_cut_, cut_, note_cut_;
};

}  // namespace isthmus::backend
