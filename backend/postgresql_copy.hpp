// COPY in PostgreSQL's binary format: encodes rows of the log, and takes apart what COPY … TO STDOUT sends.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/postgresql_connection.hpp"
#include "backend/row.hpp"

namespace isthmus::backend {

/// The columns of isthmus.log in the order in which `append_copy_row` writes them.
inline constexpr const char* kLogColumns =
    "site, origin, seq, version, db, kind, group_end, key, field, expire_at, sent_at, event, requester, "
    "request, reply, copied, base_version, base_site, counter, total, value";
inline constexpr std::size_t kLogColumnCount = 21;
/// The same as a list of a SELECT from the log under the name l, with another expression for the value.
std::string select_log_columns(std::string_view value);

/// What goes before the first row and behind the last one of a binary COPY.
void append_copy_header(std::string& out);
void append_copy_trailer(std::string& out);
/// A row of the log with the columns of kLogColumns. What a row does not have is NULL.
void append_copy_row(std::string& out, const Row& row);

/// Appends the rows as SQL holds them, and says how many those are: with `packs` neighbours share rows
/// (row_pack.hpp).
std::size_t append_copy_rows(std::string& out, const RowBatch& rows, bool packs);

/// The log as a whole, for `copy_rows`.
inline constexpr const char* kLogTable = "isthmus.log";

/// Appends the rows to `table`, the log or a partition of it: runs `before` and a COPY in one string, which
/// is one transaction unless the session is in one. `buffer` is memory that is used again. `packs`: see
/// `append_copy_rows`. Throws PgError.
void copy_rows(PgConnection& connection, const std::string& table, const RowBatch& rows,
               const std::string& before, bool packs, std::string& buffer);

/// Takes apart the byte stream of a binary COPY, without I/O. Source: PostgreSQL documentation, COPY, "Binary
/// Format".
class CopyDecoder {
 public:
  enum class Step { row, need_more, end };
  /// Hands over the next piece, when `next` needs more. The bytes must live until `next` needs more again.
  void feed(std::string_view piece);
  /// The next row; `need_more` when the pieces so far hold no further whole one. Throws PgError (XX001) if
  /// the bytes are no COPY.
  Step next();

  /// Of the current row. Views live until the next call of `next` or `feed`.
  std::size_t columns() const { return fields_.size(); }
  bool is_null(std::size_t column) const { return fields_.at(column).data() == nullptr; }
  std::string_view bytes(std::size_t column) const { return fields_.at(column); }
  std::int64_t integer(std::size_t column) const;
  bool boolean(std::size_t column) const { return bytes(column) == std::string_view("\1", 1); }

 private:
  /// Keeps the beginning of a row beyond the life of its piece.
  Step keep_rest();
  bool take_header();
  /// Bytes of the first row of `rest_` if all of it is there, else 0; fills `fields_`.
  std::size_t take_row();

  std::string carry_;  // the beginning of a row whose end is in the next piece
  std::string_view rest_;
  std::vector<std::string_view> fields_;
  bool header_taken_ = false, ended_ = false;
};

/// Reads the rows of a `COPY … TO STDOUT (FORMAT binary)`. To be read to its end, or the connection closed.
class CopyReader {
 public:
  CopyReader(PgConnection& connection, const std::string& sql) : connection_(connection) {
    connection_.begin_copy_out(sql);
  }
  /// Goes to the next row; false at the end. Throws PgError.
  bool next();
  /// Of the current row; views live until `next`.
  const CopyDecoder* operator->() const { return &decoder_; }

 private:
  PgConnection& connection_;
  CopyDecoder decoder_;
};

/// The number of a database as SQL has it. Throws PgError if there is no such database: whoever owns the
/// tables may write any number.
std::uint8_t checked_database(std::int64_t number);

/// Reads all rows, whose columns are those of kLogColumns, and hands them out, each message of a packed one
/// for itself. Views live during the call of `each`. Throws PgError if a newer Isthmus has written a row.
void read_log_rows(CopyReader& reader, const std::function<void(const Row&)>& each);

}  // namespace isthmus::backend
