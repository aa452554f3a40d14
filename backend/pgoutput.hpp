// The messages of PostgreSQL's logical replication, without I/O: what a walsender puts into a CopyData, the
// output of the plugin `pgoutput` in it, and the status that goes back. Knows the tables isthmus.log and
// isthmus.inbox and makes their rows; everything else in the stream is recognised and passed over.
//
// Source: PostgreSQL documentation, "Streaming Replication Protocol" (55.4) and "Logical Replication Message
// Formats" (55.9), protocol version 1.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "backend/shared_log.hpp"

namespace isthmus::backend::pgoutput {

/// What came in one CopyData from the walsender.
struct Envelope {
  enum class Kind : std::uint8_t { data, keepalive };
  Kind kind = Kind::data;
  /// Of data: where its WAL begins, 0 for messages that stand for no WAL. Of a keepalive: as `end`.
  Position start = 0;
  /// The end of the WAL that the server has sent, or in a keepalive has dealt with.
  Position end = 0;
  std::int64_t sent_at = 0;      ///< the server's clock: microseconds since 2000-01-01 UTC
  bool reply_requested = false;  ///< of a keepalive: answer at once, or the server takes us for dead
  std::string_view data;         ///< of data: the message of the plugin; a view of the input
};

/// Reads the envelope; false if the bytes are none.
bool parse_envelope(std::string_view bytes, Envelope& envelope);

/// The size of a Standby Status Update in bytes.
inline constexpr std::size_t kStatusSize = 34;

/// Microseconds between the Unix epoch and PostgreSQL's, 2000-01-01 UTC.
inline constexpr std::int64_t kEpochOffsetUs = 946'684'800'000'000;

/// A Standby Status Update that reports everything up to `position` as written, flushed and applied.
/// `now_us`: our clock in microseconds since 2000-01-01 UTC.
std::array<char, kStatusSize> standby_status(Position position, std::int64_t now_us);

/// What a message of the plugin says.
enum class Kind : std::uint8_t {
  ignored,    ///< nothing for us: an origin, a type, a truncation, a row of another table, …
  relation,   ///< the columns of a table, which the decoder remembers
  begin,      ///< a transaction begins; `position` is where its commit stands
  commit,     ///< it ends; `position` is the end of its commit
  row,        ///< a row of isthmus.log, in `row`
  inbox,      ///< a row of isthmus.inbox, in `inbox`
  malformed,  ///< `error` says in which way
};

/// One decoded message. Meant to be used again for the next one: then a row costs no allocation.
struct Event {
  Position position = 0;
  /// Its views are of the message, or of the decoder's memory for values that came as text; valid until the
  /// next message is decoded.
  Row row;
  InboxRow inbox;
  std::string error;
};

/// Decodes the messages of one session in their order: it remembers the tables that were described. After
/// `malformed` it should not be used any further. Not thread-safe.
class Decoder {
 public:
  /// Reads one message and fills the part of `event` that belongs to its kind. Never throws but
  /// std::bad_alloc, whatever the bytes are. Cost: some ten nanoseconds a column.
  Kind decode(std::string_view message, Event& event);

  /// The columns that are looked for; the order is that of their first mention in `pgoutput.cpp`.
  enum class Target : std::uint8_t {
    none,  // a column that we do not read
    site,
    origin,
    seq,
    version,
    db,
    kind,
    group_end,
    key,
    field,
    expire_at,
    sent_at,
    event,
    requester,
    request,
    reply,
    copied,
    base_version,
    base_site,
    counter,
    total,
    value,
    id,  // from here on of the inbox alone
    op,
  };

 private:
  class Reader;
  struct Value;
  enum class Table : std::uint8_t { other, log, inbox };
  struct Relation {
    Table table = Table::other;
    std::vector<Target> columns;
  };

  Kind relation(Reader& reader, Event& event);
  Kind insert(Reader& reader, Event& event);
  bool row_value(Target target, const Value& value, Event& event);
  bool inbox_value(Target target, const Value& value, Event& event);
  bool number(Target target, const Value& value, std::int64_t lowest, std::int64_t highest, std::int64_t& to,
              Event& event) const;
  static bool boolean(Target target, const Value& value, bool& to, Event& event);
  bool bytes(Target target, const Value& value, std::string_view& to, Event& event);

  std::unordered_map<std::uint32_t, Relation> relations_;
  std::uint32_t last_id_ = 0;
  const Relation* last_ = nullptr;  // the relation of last_id_; null: not looked up
  std::string unhexed_;  // bytea values of the current message that came as text; has room for all of them
  std::size_t message_size_ = 0;  // of the current message, in bytes
};

}  // namespace isthmus::backend::pgoutput
