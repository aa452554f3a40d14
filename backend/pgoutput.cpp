#include "backend/pgoutput.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>
#include <utility>

namespace isthmus::backend::pgoutput {
namespace {

using Target = Decoder::Target;

constexpr std::string_view kSchema = "isthmus";
constexpr std::string_view kLogTable = "log";
constexpr std::string_view kInboxTable = "inbox";

/// Columns by their names, in the order of Target.
constexpr std::array<std::pair<std::string_view, Target>, 23> kColumns = {{
    {"site", Target::site},
    {"origin", Target::origin},
    {"seq", Target::seq},
    {"version", Target::version},
    {"db", Target::db},
    {"kind", Target::kind},
    {"group_end", Target::group_end},
    {"key", Target::key},
    {"field", Target::field},
    {"expire_at", Target::expire_at},
    {"sent_at", Target::sent_at},
    {"event", Target::event},
    {"requester", Target::requester},
    {"request", Target::request},
    {"reply", Target::reply},
    {"copied", Target::copied},
    {"base_version", Target::base_version},
    {"base_site", Target::base_site},
    {"counter", Target::counter},
    {"total", Target::total},
    {"value", Target::value},
    {"id", Target::id},
    {"op", Target::op},
}};

/// What a table must have, as bits of Target.
constexpr std::uint32_t bit(Target target) { return 1U << static_cast<unsigned>(target); }
constexpr std::uint32_t kLogColumns = (bit(Target::id) - 1U) & ~bit(Target::none);
constexpr std::uint32_t kInboxColumns = bit(Target::id) | bit(Target::op) | bit(Target::db) |
                                        bit(Target::key) | bit(Target::field) | bit(Target::value) |
                                        bit(Target::expire_at);
/// What must not be NULL, or a row says nothing.
constexpr std::uint32_t kRequired = bit(Target::site) | bit(Target::origin) | bit(Target::seq) |
                                    bit(Target::version) | bit(Target::kind) | bit(Target::id) |
                                    bit(Target::op);

constexpr std::int64_t kMaxNumber = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMinNumber = std::numeric_limits<std::int64_t>::min();

std::string_view column_name(Target target) {
  if (target == Target::none) return "?";
  return kColumns[static_cast<std::size_t>(target) - 1].first;
}

Target column_target(std::string_view name) {
  for (const auto& [column, target] : kColumns) {
    if (column == name) return target;
  }
  return Target::none;
}

Kind fail(Event& event, std::string_view what) {
  event.error = what;
  return Kind::malformed;
}

bool refuse(Event& event, Target target, std::string_view what) {
  event.error.assign("column '").append(column_name(target)).append("' ").append(what);
  return false;
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

void put_int64(char* to, std::uint64_t number) {
  for (int i = 7; i >= 0; --i) {
    to[i] = static_cast<char>(number & 0xFFU);
    number >>= 8U;
  }
}

}  // namespace

/// One column of a row: NULL, or bytes in the type's binary or text form.
struct Decoder::Value {
  bool null = false;
  bool binary = false;
  std::string_view bytes;
};

/// Takes big-endian numbers and strings off the front of a message. What is not there reads as zero and makes
/// `good` false for good.
class Decoder::Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}

  bool good() const { return good_; }
  bool at_end() const { return good_ && rest_.empty(); }

  std::uint64_t number(std::size_t size) {
    const std::string_view raw = bytes(size);
    std::uint64_t result = 0;
    for (const char c : raw) result = result << 8U | static_cast<unsigned char>(c);
    return result;
  }
  char byte() { return static_cast<char>(number(1)); }
  std::uint16_t int16() { return static_cast<std::uint16_t>(number(2)); }
  std::uint32_t int32() { return static_cast<std::uint32_t>(number(4)); }
  std::uint64_t int64() { return number(8); }

  std::string_view bytes(std::size_t size) {
    if (size > rest_.size()) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view result = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return result;
  }

  std::string_view rest() { return bytes(rest_.size()); }

  /// A string that ends with a zero byte.
  std::string_view text() {
    const std::size_t end = rest_.find('\0');
    if (end == std::string_view::npos) {
      good_ = false;
      rest_ = {};
      return {};
    }
    const std::string_view result = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return result;
  }

  /// A column of a row. An unchanged TOAST value ('u') is refused: a new row cannot have one.
  bool value(Value& value) {
    const char form = byte();
    value.null = form == 'n';
    value.binary = form == 'b';
    if (value.null) return good_;
    if (!value.binary && form != 't') return false;
    const std::uint32_t size = int32();
    value.bytes = bytes(size);
    return good_;
  }

 private:
  std::string_view rest_;
  bool good_ = true;
};

bool parse_envelope(std::string_view bytes, Envelope& envelope) {
  // The layouts: 'w' start end clock data, and 'k' end clock reply. All numbers have 8 bytes, `reply` one.
  constexpr std::size_t kDataHeader = 1 + 8 + 8 + 8;
  constexpr std::size_t kKeepalive = 1 + 8 + 8 + 1;
  const auto number = [bytes](std::size_t at) {
    std::uint64_t result = 0;
    for (const char c : bytes.substr(at, 8)) result = result << 8U | static_cast<unsigned char>(c);
    return result;
  };
  envelope = {};
  if (bytes.size() >= kDataHeader && bytes[0] == 'w') {
    envelope.kind = Envelope::Kind::data;
    envelope.start = number(1);
    envelope.end = number(9);
    envelope.sent_at = static_cast<std::int64_t>(number(17));
    envelope.data = bytes.substr(kDataHeader);
    return true;
  }
  if (bytes.size() == kKeepalive && bytes[0] == 'k') {
    envelope.kind = Envelope::Kind::keepalive;
    envelope.start = envelope.end = number(1);
    envelope.sent_at = static_cast<std::int64_t>(number(9));
    envelope.reply_requested = bytes[17] != 0;
    return true;
  }
  return false;
}

std::array<char, kStatusSize> standby_status(Position position, std::int64_t now_us) {
  std::array<char, kStatusSize> status{};
  status[0] = 'r';
  put_int64(&status[1], position);   // written
  put_int64(&status[9], position);   // flushed
  put_int64(&status[17], position);  // applied
  put_int64(&status[25], static_cast<std::uint64_t>(now_us));
  status[33] = 0;  // no reply wanted
  return status;
}

Kind Decoder::decode(std::string_view message, Event& event) {
  Reader reader(message);
  message_size_ = message.size();
  const char type = reader.byte();
  if (!reader.good()) return fail(event, "an empty message");
  switch (type) {
    case 'I':
      return insert(reader, event);
    case 'B':
      event.position = reader.int64();
      reader.int64();  // the time of the commit
      reader.int32();  // the transaction's xid
      return reader.at_end() ? Kind::begin : fail(event, "a malformed Begin message");
    case 'C':
      reader.byte();   // flags, none defined
      reader.int64();  // where the commit begins
      event.position = reader.int64();
      reader.int64();  // its time
      return reader.at_end() ? Kind::commit : fail(event, "a malformed Commit message");
    case 'R':
      return relation(reader, event);
    case 'M':  // a message of pg_logical_emit_message
    case 'O':  // where a replicated transaction came from
    case 'Y':  // a type
    case 'T':  // a truncation
    case 'U':  // the publication has no updates and no deletes; were they added, the log's rows would still
               // count
    case 'D':  // as they were inserted
      return Kind::ignored;
    default:
      return fail(event, "a message of an unknown type");
  }
}

Kind Decoder::relation(Reader& reader, Event& event) {
  const std::uint32_t id = reader.int32();
  const std::string_view schema = reader.text();
  const std::string_view name = reader.text();
  reader.byte();  // replica identity
  const std::uint16_t count = reader.int16();
  Relation relation;
  if (schema == kSchema && name == kLogTable) relation.table = Table::log;
  if (schema == kSchema && name == kInboxTable) relation.table = Table::inbox;
  std::uint32_t found = 0;
  for (std::uint16_t i = 0; i < count && reader.good(); ++i) {
    reader.byte();  // flags: part of the key
    const Target target = column_target(reader.text());
    reader.int32();  // type
    reader.int32();  // type modifier
    if (relation.table == Table::other) continue;
    const bool wanted = ((relation.table == Table::log ? kLogColumns : kInboxColumns) & bit(target)) != 0;
    relation.columns.push_back(wanted ? target : Target::none);
    if (wanted) found |= bit(target);
  }
  if (!reader.at_end()) return fail(event, "a malformed Relation message");
  const std::uint32_t needed = relation.table == Table::log     ? kLogColumns
                               : relation.table == Table::inbox ? kInboxColumns
                                                                : 0U;
  for (const auto& [column, target] : kColumns) {
    if ((needed & ~found & bit(target)) == 0) continue;
    event.error.assign("the table ").append(kSchema).append(".").append(name);
    event.error.append(" has no column '").append(column).append("' in the publication");
    return Kind::malformed;
  }
  relations_[id] = std::move(relation);
  last_ = nullptr;
  return Kind::relation;
}

Kind Decoder::insert(Reader& reader, Event& event) {
  const std::uint32_t id = reader.int32();
  if (last_ == nullptr || id != last_id_) {
    const auto found = relations_.find(id);
    if (found == relations_.end()) return fail(event, "an Insert message for a table that was not described");
    last_id_ = id;
    last_ = &found->second;
  }
  const Relation& relation = *last_;
  if (relation.table == Table::other) return Kind::ignored;
  const char marker = reader.byte();
  const std::uint16_t count = reader.int16();
  if (marker != 'N' || count != relation.columns.size() || !reader.good()) {
    return fail(event, "a malformed Insert message");
  }
  unhexed_.clear();
  if (relation.table == Table::log) {
    event.row = Row();
  } else {
    event.inbox = InboxRow();
  }
  for (const Target target : relation.columns) {
    Value value;
    if (!reader.value(value)) return fail(event, "a malformed value in an Insert message");
    if (target == Target::none) continue;
    if (value.null && (kRequired & bit(target)) != 0) {
      refuse(event, target, "is NULL");
      return Kind::malformed;
    }
    const bool taken =
        relation.table == Table::log ? row_value(target, value, event) : inbox_value(target, value, event);
    if (!taken) return Kind::malformed;
  }
  if (!reader.at_end()) return fail(event, "an Insert message with bytes behind its end");
  return relation.table == Table::log ? Kind::row : Kind::inbox;
}

/// A number in either form; NULL leaves `to` as it is.
bool Decoder::number(Target target, const Value& value, std::int64_t lowest, std::int64_t highest,
                     std::int64_t& to, Event& event) const {
  if (value.null) return true;
  std::int64_t result = 0;
  if (value.binary) {
    const std::size_t size = value.bytes.size();
    Reader reader(value.bytes);
    if (size == 8) {
      result = static_cast<std::int64_t>(reader.int64());
    } else if (size == 4) {
      result = static_cast<std::int32_t>(reader.int32());
    } else if (size == 2) {
      result = static_cast<std::int16_t>(reader.int16());
    } else {
      return refuse(event, target, "is no integer");
    }
  } else {
    const char* end = value.bytes.data() + value.bytes.size();
    const auto [stop, problem] = std::from_chars(value.bytes.data(), end, result);
    if (problem != std::errc() || stop != end) return refuse(event, target, "is no integer");
  }
  if (result < lowest || result > highest) return refuse(event, target, "is out of its range");
  to = result;
  return true;
}

bool Decoder::boolean(Target target, const Value& value, bool& to, Event& event) {
  if (value.null) return true;
  if (value.bytes.size() != 1) return refuse(event, target, "is no boolean");
  to = value.bytes[0] == (value.binary ? '\1' : 't');
  return true;
}

/// Bytes in either form; NULL is empty. Those that came as text are kept in unhexed_, which has room for all
/// of a message's before the first is taken, so that views of it stay valid.
bool Decoder::bytes(Target target, const Value& value, std::string_view& to, Event& event) {
  to = {};
  if (value.null) return true;
  if (value.binary) {
    to = value.bytes;
    return true;
  }
  const std::string_view text = value.bytes;
  if (!text.starts_with("\\x") || text.size() % 2 != 0) return refuse(event, target, "is no bytea in hex");
  if (unhexed_.empty()) unhexed_.reserve(message_size_);
  const std::size_t begin = unhexed_.size();
  for (std::size_t i = 2; i < text.size(); i += 2) {
    const int high = hex_digit(text[i]);
    const int low = hex_digit(text[i + 1]);
    if (high < 0 || low < 0) return refuse(event, target, "is no bytea in hex");
    unhexed_.push_back(static_cast<char>(high << 4 | low));
  }
  to = std::string_view(unhexed_).substr(begin);
  return true;
}

bool Decoder::row_value(Target target, const Value& value, Event& event) {
  Row& row = event.row;
  std::int64_t n = 0;
  switch (target) {
    case Target::site:
      return number(target, value, kMinNumber, kMaxNumber, row.site, event);
    case Target::origin:
      return number(target, value, kMinNumber, kMaxNumber, row.origin, event);
    case Target::seq:
      if (!number(target, value, 0, kMaxNumber, n, event)) return false;
      row.seq = static_cast<Seq>(n);
      return true;
    case Target::version:
      if (!number(target, value, 0, kMaxNumber, n, event)) return false;
      row.version = static_cast<Version>(n);
      return true;
    case Target::db:
      if (!number(target, value, 0, kMaxDb, n, event)) return false;
      row.db = static_cast<std::uint8_t>(n);
      return true;
    case Target::kind: {
      const std::optional<RowKind> kind = row_kind_from_name(value.bytes);
      if (!kind) return refuse(event, target, "has a value that this version does not know");
      row.kind = *kind;
      return true;
    }
    case Target::group_end:
      return boolean(target, value, row.group_end, event);
    case Target::copied:
      return boolean(target, value, row.copied, event);
    case Target::base_version:
      if (!number(target, value, 0, kMaxNumber, n, event)) return false;
      row.count.base_version = static_cast<Version>(n);
      return true;
    case Target::base_site:
      return number(target, value, kMinNumber, kMaxNumber, row.count.base_site, event);
    case Target::counter:
      return number(target, value, kMinNumber, kMaxNumber, row.count.counter, event);
    case Target::total:
      return number(target, value, kMinNumber, kMaxNumber, row.count.total, event);
    case Target::key:
      return bytes(target, value, row.key, event);
    case Target::field:
      return bytes(target, value, row.field, event);
    case Target::value:
      return bytes(target, value, row.value, event);
    case Target::reply:
      return bytes(target, value, row.reply, event);
    case Target::event:
      row.event = value.bytes;
      return true;
    case Target::expire_at:
      if (!number(target, value, kMinNumber, kMaxNumber, n, event)) return false;
      if (!value.null) row.expire_at = n;
      return true;
    case Target::sent_at:
      return number(target, value, kMinNumber, kMaxNumber, row.sent_at, event);
    case Target::requester:
      return number(target, value, kMinNumber, kMaxNumber, row.requester, event);
    case Target::request:
      if (!number(target, value, 0, kMaxNumber, n, event)) return false;
      row.request = static_cast<std::uint64_t>(n);
      return true;
    case Target::none:
    case Target::id:
    case Target::op:
      break;
  }
  return true;
}

bool Decoder::inbox_value(Target target, const Value& value, Event& event) {
  InboxRow& row = event.inbox;
  std::int64_t n = 0;
  std::string_view view;
  switch (target) {
    case Target::id:
      return number(target, value, kMinNumber, kMaxNumber, row.id, event);
    case Target::op:
      row.op = value.bytes;
      return true;
    case Target::db:
      if (!number(target, value, 0, kMaxDb, n, event)) return false;
      row.db = static_cast<std::uint8_t>(n);
      return true;
    case Target::key:
    case Target::field:
    case Target::value:
      if (!bytes(target, value, view, event)) return false;
      (target == Target::key ? row.key : target == Target::field ? row.field : row.value) = view;
      return true;
    case Target::expire_at:
      if (!number(target, value, kMinNumber, kMaxNumber, n, event)) return false;
      if (!value.null) row.expire_at = n;
      return true;
    default:
      break;
  }
  return true;
}

}  // namespace isthmus::backend::pgoutput
