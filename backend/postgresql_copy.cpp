#include "backend/postgresql_copy.hpp"

#include <array>
#include <cstring>

#include "backend/big_endian.hpp"

namespace isthmus::backend {
namespace {

/// Signature, flags, length of the header's extension.
constexpr std::string_view kHeader("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", 19);
constexpr std::size_t kSignatureBytes = 11;
constexpr std::uint16_t kLogColumnCount = 16;
constexpr std::uint32_t kNull = 0xFFFFFFFFU;
constexpr std::uint16_t kTrailer = 0xFFFFU;

/// Which parts a row has by its kind, even if they are empty. What it does not have is NULL, so that a person
/// sees what belongs to it.
struct Parts {
  bool key, field, value;
};

/// In the order of RowKind.
constexpr std::array<Parts, 16> kParts = {{
    {true, false, true},    // set
    {true, false, true},    // update
    {true, true, true},     // hset
    {true, true, true},     // hcreate
    {true, true, false},    // hdel
    {true, false, false},   // del
    {true, false, false},   // expire
    {true, false, false},   // incr
    {true, true, false},    // hincr
    {true, false, false},   // htype
    {false, false, false},  // flush
    {true, false, true},    // publish
    {true, false, true},    // spublish
    {true, false, true},    // lease
    {false, false, true},   // frontier
    {false, false, true},   // reach
}};

/// Writes into memory that is large enough.
class Cursor {
 public:
  explicit Cursor(char* at) : at_(at) {}
  template <typename Number>
  void number(Number value) {
    store_big_endian(at_, value);
    at_ += sizeof(Number);
  }
  void int8(std::uint64_t value) {
    number<std::uint32_t>(8);
    number(value);
  }
  void int8_or_null(bool present, std::uint64_t value) {
    if (present) {
      int8(value);
    } else {
      number(kNull);
    }
  }
  void bytes(std::string_view value) {
    number(static_cast<std::uint32_t>(value.size()));
    // An empty view may point nowhere, which memcpy does not take.
    if (!value.empty()) std::memcpy(at_, value.data(), value.size());
    at_ += value.size();
  }
  void bytes_or_null(bool present, std::string_view value) {
    if (present || !value.empty()) {
      bytes(value);
    } else {
      number(kNull);
    }
  }
  const char* at() const { return at_; }

 private:
  char* at_;
};

[[noreturn]] void malformed() {
  throw PgError("PostgreSQL sent bytes that are no binary COPY", "XX001", false);
}

}  // namespace

void append_copy_header(std::string& out) { out.append(kHeader); }
void append_copy_trailer(std::string& out) { append_big_endian(out, kTrailer); }

void append_copy_row(std::string& out, const Row& row) {
  const std::string_view kind = row_kind_name(row.kind);
  // The lengths of all columns, the numbers, and the parts of variable size.
  constexpr std::size_t kFixedBytes = 2 + kLogColumnCount * 4 + 8 * 8 + 2 + 1;
  const std::size_t begin = out.size();
  out.resize(begin + kFixedBytes + kind.size() + row.key.size() + row.field.size() + row.value.size() +
             row.event.size() + row.reply.size());
  const Parts parts = kParts.at(static_cast<std::size_t>(row.kind));
  Cursor cursor(&out[begin]);
  cursor.number(kLogColumnCount);
  cursor.int8(static_cast<std::uint64_t>(row.site));
  cursor.int8(static_cast<std::uint64_t>(row.origin));
  cursor.int8(row.seq);
  cursor.int8(row.version);
  cursor.number<std::uint32_t>(2);
  cursor.number<std::uint16_t>(row.db);
  cursor.bytes(kind);
  cursor.number<std::uint32_t>(1);
  cursor.number<std::uint8_t>(row.group_end ? 1 : 0);
  cursor.bytes_or_null(parts.key, row.key);
  cursor.bytes_or_null(parts.field, row.field);
  cursor.int8_or_null(row.expire_at.has_value(), static_cast<std::uint64_t>(row.expire_at.value_or(0)));
  cursor.int8_or_null(row.sent_at != 0, static_cast<std::uint64_t>(row.sent_at));
  cursor.bytes_or_null(false, row.event);
  cursor.int8_or_null(row.requester != 0, static_cast<std::uint64_t>(row.requester));
  cursor.int8_or_null(row.requester != 0, row.request);
  cursor.bytes_or_null(row.requester != 0 && row.request != 0, row.reply);
  cursor.bytes_or_null(parts.value, row.value);
  out.resize(static_cast<std::size_t>(cursor.at() - out.data()));
}

std::int64_t CopyDecoder::integer(std::size_t column) const {
  const std::string_view value = bytes(column);
  switch (value.size()) {
    case 2:
      return static_cast<std::int16_t>(load_big_endian<std::uint16_t>(value.data()));
    case 4:
      return static_cast<std::int32_t>(load_big_endian<std::uint32_t>(value.data()));
    case 8:
      return static_cast<std::int64_t>(load_big_endian<std::uint64_t>(value.data()));
    case 0:
      return 0;
    default:
      malformed();
  }
}

void CopyDecoder::feed(std::string_view piece) {
  if (rest_.empty()) {
    rest_ = piece;
    return;
  }
  // The rest is in carry_ already.
  carry_.append(piece);
  rest_ = carry_;
}

CopyDecoder::Step CopyDecoder::keep_rest() {
  // PostgreSQL sends one row a piece, so there hardly ever is one.
  if (!rest_.empty()) {
    carry_ = std::string(rest_);
    rest_ = carry_;
  }
  return Step::need_more;
}

bool CopyDecoder::take_header() {
  if (header_taken_) return true;
  if (rest_.size() < kHeader.size()) return false;
  if (rest_.substr(0, kSignatureBytes) != kHeader.substr(0, kSignatureBytes)) malformed();
  const auto extension = load_big_endian<std::uint32_t>(&rest_[kSignatureBytes + 4]);
  if (rest_.size() < kHeader.size() + extension) return false;
  rest_.remove_prefix(kHeader.size() + extension);
  header_taken_ = true;
  return true;
}

std::size_t CopyDecoder::take_row() {
  const auto columns = load_big_endian<std::uint16_t>(rest_.data());
  fields_.resize(columns);
  std::size_t at = 2;
  for (std::string_view& field : fields_) {
    if (rest_.size() < at + 4) return 0;
    const auto size = load_big_endian<std::uint32_t>(&rest_[at]);
    at += 4;
    field = {};
    if (size == kNull) continue;
    if (size > 0x7FFFFFFFU) malformed();
    if (rest_.size() - at < size) return 0;
    field = std::string_view(rest_.data() + at, size);
    at += size;
  }
  return at;
}

CopyDecoder::Step CopyDecoder::next() {
  if (ended_) return Step::end;
  if (!take_header() || rest_.size() < 2) return keep_rest();
  if (load_big_endian<std::uint16_t>(rest_.data()) == kTrailer) {
    ended_ = true;
    return Step::end;
  }
  const std::size_t size = take_row();
  if (size == 0) return keep_rest();
  rest_.remove_prefix(size);
  return Step::row;
}

bool CopyReader::next() {
  for (;;) {
    const CopyDecoder::Step step = decoder_.next();
    if (step == CopyDecoder::Step::row) return true;
    std::string_view piece;
    if (!connection_.copy_out(piece)) {
      if (step != CopyDecoder::Step::end) malformed();
      return false;
    }
    if (step == CopyDecoder::Step::need_more) decoder_.feed(piece);
  }
}

}  // namespace isthmus::backend
