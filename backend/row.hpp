// The rows of the log, as every backend stores them and every server folds them.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::backend {

/// A random positive number that a database gets at its birth.
using SiteId = std::int64_t;
/// A random positive number for each source of rows: a lease for state rows, a server process for messages.
using OriginId = std::int64_t;
/// Position of a row within its origin: 1, 2, 3, … 0 means "none".
using Seq = std::uint64_t;
/// A hybrid logical clock timestamp: 48 bits of milliseconds since the Unix epoch, 16 bits of counter.
using Version = std::uint64_t;

/// Databases are numbered from 0, as Redis's sixteen are by default.
inline constexpr std::uint8_t kMaxDb = 15;
/// What is wrong with the number of a database in a table, where its owner may write any; empty if nothing
/// is.
std::string database_error(std::int64_t number);

/// What a row says. The names are those of the column `kind` in SQL.
enum class RowKind : std::uint8_t {
  set,     ///< key becomes a string: value and deadline (none if absent); whatever the key was before is gone
  update,  ///< key's string value; the deadline stays
  hset,    ///< one field of a hash
  hcreate,   ///< the first field of a key that did not exist: as hset, and it writes "no deadline"
  hdel,      ///< one field of a hash is deleted
  del,       ///< key is deleted with all it has
  expire,    ///< key's deadline (none if absent)
  incr,      ///< a site counted on key's string: base and running total (Count); value is the base's value
  hincr,     ///< the same for one field of a hash
  htype,     ///< key was a hash at this version, whatever fields it has (copied rows only)
  sadd,      ///< field is a member of a set
  screate,   ///< the first member of a key that did not exist: as sadd, and it writes "no deadline"
  srem,      ///< an add of a member is taken back: the one at count's base, or those of the row's own site
             ///< until the row
  stype,     ///< key was a set at this version, whatever members it has (copied rows only)
  flush,     ///< all keys of the database are deleted
  publish,   ///< a message: key is the channel, value the payload
  spublish,  ///< a message to a shard channel
  lease,     ///< somebody took the right to write: the first row of an origin
  frontier,  ///< how far a site has folded the others: value is "site=version …", logged once a second
  reach,     ///< copied up to here: value is "origin=seq …" of the site whose rows were copied
  /// A server tells the others who subscribes at it (src/site/announcements.hpp); of the messages' origin,
  /// and treated as they are, but handed to no client
  subscribers,
  changes,  ///< several changes of the state: only as a row stands in PostgreSQL (row_pack.hpp)
};

/// Whether a row of this kind says something of a key or a database: all but messages and bookkeeping.
inline bool is_state(RowKind kind) { return kind <= RowKind::flush; }
/// Whether it says something of one key.
inline bool is_of_key(RowKind kind) { return kind < RowKind::flush; }
inline bool is_count(RowKind kind) { return kind == RowKind::incr || kind == RowKind::hincr; }
/// Whether it is of a server's own origin and of no use to anybody later on.
inline bool is_message(RowKind kind) {
  return kind == RowKind::publish || kind == RowKind::spublish || kind == RowKind::subscribers;
}

/// The name of a kind in SQL, and back. `row_kind_from_name` gives nothing for a name of a newer schema.
std::string_view row_kind_name(RowKind kind);
std::optional<RowKind> row_kind_from_name(std::string_view name);

/// Which parts a row has by its kind, even if they are empty. What it does not have is NULL in SQL, so that a
/// person sees what belongs to it.
struct RowParts {
  bool key, field, value;
};
RowParts row_parts(RowKind kind);

/// What a row of kind incr or hincr says besides its base's value (MERGE.md, "Counters"). Of kind srem only
/// the base: the add that is taken back; 0: none is named (MERGE.md, "Sets").
struct Count {
  /// The register that was counted on. With base_site 0 and no value: nothing was there, as of everything up
  /// to base_version. With base_site and no value: what was there was deleted or expired at that version.
  Version base_version = 0;
  SiteId base_site = 0;
  OriginId counter = 0;    ///< the lease under which it was counted
  std::int64_t total = 0;  ///< what this lease has added to the base so far
};

/// One row of the log. The views belong to whoever handed the row out and live as long as that says.
struct Row {
  SiteId site = 0;
  OriginId origin = 0;
  Seq seq = 0;
  Version version = 0;
  std::uint8_t db = 0;
  RowKind kind = RowKind::set;
  bool group_end = true;  ///< last row of one command or one EXEC: readers see a group whole or not at all
  std::string_view key;
  std::string_view field;
  std::string_view value;
  /// Deadline in milliseconds since the Unix epoch (kinds set and expire).
  std::optional<std::int64_t> expire_at;
  std::int64_t sent_at = 0;  ///< milliseconds since the Unix epoch (messages only, else 0)
  /// The keyspace events that this row raises, in order, separated by commas; empty if none.
  std::string_view event;
  /// Who asked for a forwarded command, which of its requests it was, and what it is told: on the last row of
  /// the group. 0, 0 and empty if the command was not forwarded.
  OriginId requester = 0;
  std::uint64_t request = 0;
  std::string_view reply;
  /// Taken over from another site's database by a server, and not brought by that site's stream.
  bool copied = false;
  Count count;  ///< kinds incr, hincr and srem
};

/// Rows that commit together, with their bytes in one piece of memory. Not thread-safe.
class RowBatch {
 public:
  /// Copies the row and its bytes.
  void append(const Row& row);
  /// The last row ends its group. The batch must not be empty.
  void end_group() { rows_.back().group_end = true; }
  /// Adds a keyspace event to those of the row at `index`.
  void add_event(std::size_t index, std::string_view event);
  /// The last row answers this forwarded request. The batch must not be empty.
  void answer(OriginId requester, std::uint64_t request, std::string_view reply);
  /// Gives the messages of `origin` that have no seq yet the next ones behind `last`, and that version;
  /// returns the last one.
  Seq number_messages(OriginId origin, Seq last, Version version);
  /// Takes the versions of the messages of `origin` away.
  void clear_message_versions(OriginId origin);
  /// Keeps the rows for which `keep` says so. A group that loses its last row ends with the one before.
  void keep_if(const std::function<bool(const Row&)>& keep);
  bool empty() const { return rows_.empty(); }
  std::size_t size() const { return rows_.size(); }
  /// Bytes of keys, fields and values held.
  std::size_t bytes() const { return bytes_.size(); }
  /// The same with what each row takes besides: what the batch costs in memory.
  std::size_t held_bytes() const { return bytes_.size() + rows_.size() * sizeof(Packed); }
  /// The row at `index`; its views live until the batch changes.
  Row operator[](std::size_t index) const;
  /// Forgets the rows and keeps the memory (up to a few MiB) for the next ones.
  void clear();

 private:
  struct Packed {
    SiteId site;
    OriginId origin;
    Seq seq;
    Version version;
    std::int64_t expire_at;
    std::int64_t sent_at;
    std::size_t offset;
    std::uint32_t key_size, field_size, value_size;
    std::uint32_t extra;  // 1 + the place in extras_; 0: none
    std::uint8_t db;
    RowKind kind;
    bool group_end, has_deadline, copied;
  };
  // What few rows have.
  struct Extra {
    std::string event;
    OriginId requester = 0;
    std::uint64_t request = 0;
    std::string reply;
    Count count;
  };
  Extra& extra(Packed& packed);
  std::vector<Packed> rows_;
  std::vector<Extra> extras_;
  std::string bytes_;
};

}  // namespace isthmus::backend
