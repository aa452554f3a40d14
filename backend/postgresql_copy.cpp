#include "backend/postgresql_copy.hpp"

#include <array>
#include <cstring>
#include <optional>

#include "backend/big_endian.hpp"
#include "backend/row_pack.hpp"

namespace isthmus::backend {
namespace {

/// Signature, flags, length of the header's extension.
constexpr std::string_view kHeader("PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0", 19);
constexpr std::size_t kSignatureBytes = 11;
constexpr std::uint32_t kNull = 0xFFFFFFFFU;
constexpr std::uint16_t kTrailer = 0xFFFFU;
/// Encoded rows go to libpq in pieces of about this size.
constexpr std::size_t kPieceBytes = 256U << 10U;
/// A buffer that had to hold a huge row shrinks to nothing above this.
constexpr std::size_t kKeptBytes = 4U << 20U;

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
  constexpr std::size_t kFixedBytes = 2 + kLogColumnCount * 4 + 12 * 8 + 2 + 1 + 1;
  const std::size_t begin = out.size();
  out.resize(begin + kFixedBytes + kind.size() + row.key.size() + row.field.size() + row.value.size() +
             row.event.size() + row.reply.size());
  const RowParts parts = row_parts(row.kind);
  Cursor cursor(&out[begin]);
  cursor.number(static_cast<std::uint16_t>(kLogColumnCount));
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
  cursor.number<std::uint32_t>(1);
  cursor.number<std::uint8_t>(row.copied ? 1 : 0);
  const bool counts = is_count(row.kind);
  const bool has_base = counts || row.count.base_version != 0;
  cursor.int8_or_null(has_base, row.count.base_version);
  cursor.int8_or_null(has_base, static_cast<std::uint64_t>(row.count.base_site));
  cursor.int8_or_null(counts, static_cast<std::uint64_t>(row.count.counter));
  cursor.int8_or_null(counts || is_packed(row), static_cast<std::uint64_t>(row.count.total));
  cursor.bytes_or_null(parts.value, row.value);
  out.resize(static_cast<std::size_t>(cursor.at() - out.data()));
}

namespace {

/// Appends the rows as SQL holds them; calls `row_done` after each.
template <typename RowDone>
void encode(const RowBatch& rows, bool packs, std::string& out, RowDone row_done) {
  RowPacker packer;
  for (std::size_t i = 0; i < rows.size();) {
    if (packs) {
      i += packer.take(rows, i);
      append_copy_row(out, packer.row());
    } else {
      append_copy_row(out, rows[i++]);
    }
    row_done();
  }
}

}  // namespace

std::size_t append_copy_rows(std::string& out, const RowBatch& rows, bool packs) {
  std::size_t count = 0;
  encode(rows, packs, out, [&count] { ++count; });
  return count;
}

void copy_rows(PgConnection& connection, const std::string& table, const RowBatch& rows,
               const std::string& before, bool packs, std::string& buffer) {
  connection.send(before + "COPY " + table + " (" + kLogColumns + ") FROM STDIN (FORMAT binary)");
  // The first piece is encoded while PostgreSQL begins.
  buffer.clear();
  append_copy_header(buffer);
  bool begun = false;
  const auto hand_over = [&] {
    if (!begun) connection.await_copy_in();
    begun = true;
    connection.copy_in(buffer);
    buffer.clear();
  };
  encode(rows, packs, buffer, [&] {
    if (buffer.size() >= kPieceBytes) hand_over();
  });
  append_copy_trailer(buffer);
  hand_over();
  connection.end_copy_in();
  if (buffer.capacity() > kKeptBytes) std::string().swap(buffer);
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

std::string select_log_columns(std::string_view value) {
  return "l.site, l.origin, l.seq, l.version, l.db, l.kind, l.group_end, l.key, l.field, l.expire_at, "
         "l.sent_at, l.event, l.requester, l.request, l.reply, l.copied, l.base_version, l.base_site, "
         "l.counter, l.total, " +
         std::string(value);
}

std::uint8_t checked_database(std::int64_t number) {
  if (const std::string error = database_error(number); !error.empty()) throw PgError(error, "", false);
  return static_cast<std::uint8_t>(number);
}

namespace {

/// The current row, whose columns are those of kLogColumns, as it stands in SQL.
Row log_row(const CopyReader& reader) {
  Row row;
  row.site = reader->integer(0);
  row.origin = reader->integer(1);
  row.seq = static_cast<Seq>(reader->integer(2));
  row.version = static_cast<Version>(reader->integer(3));
  row.db = checked_database(reader->integer(4));
  const std::optional<RowKind> kind = row_kind_from_name(reader->bytes(5));
  if (!kind) {
    throw PgError("the kind of a log row '" + std::string(reader->bytes(5)) +
                      "' is unknown: a newer Isthmus wrote it; use that version",
                  "", false);
  }
  row.kind = *kind;
  row.group_end = reader->boolean(6);
  row.key = reader->bytes(7);
  row.field = reader->bytes(8);
  if (!reader->is_null(9)) row.expire_at = reader->integer(9);
  row.sent_at = reader->integer(10);
  row.event = reader->bytes(11);
  row.requester = reader->integer(12);
  row.request = static_cast<std::uint64_t>(reader->integer(13));
  row.reply = reader->bytes(14);
  row.copied = reader->boolean(15);
  row.count = {static_cast<Version>(reader->integer(16)), reader->integer(17), reader->integer(18),
               reader->integer(19)};
  row.value = reader->bytes(20);
  return row;
}

}  // namespace

void read_log_rows(CopyReader& reader, const std::function<void(const Row&)>& each) {
  while (reader.next()) {
    if (!for_each_row(log_row(reader), each))
      throw PgError("a log row that holds several does not fit its sizes", "XX001", false);
  }
}

}  // namespace isthmus::backend
