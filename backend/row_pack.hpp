// Rows that share a row of the log in PostgreSQL: a row costs a database, its walsenders and its peers ten
// times what a small change or message in it does. How they share it stands at RowPacker. Only the code that
// writes and reads rows in SQL knows of it: a Row anywhere else is one message or one change.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "backend/row.hpp"

namespace isthmus::backend {

/// Gathers rows of a batch into rows of SQL. Not thread-safe.
///
/// Messages of one server that came within the same millisecond: their row has their kind, site, origin,
/// version and time, in all of which they agree, and the seq of the last one. `total` is their number, `key`
/// their channels and `value` their payloads one behind the other, and `field` says in ASCII how long each
/// is: "4+11 4+2" are two channels of 4 bytes and payloads of 11 and 2. The view isthmus.messages takes them
/// apart.
///
/// Changes of the state, of which kFewestChanges or more of one origin follow each other: their row is of
/// kind `changes` and has their site and origin, the seq of the last one, the version of the first one, and
/// in `total` their number. `key`, `value` and `reply` hold theirs one behind the other, a field behind its
/// key. `field` describes each in ASCII: numbers that are lengths or stand for themselves, separated by
/// commas, what is empty at the end left out, and a plus in front if its group goes on:
///
///     kind,db,versions behind the first,key,field,value,expire_at,event,requester,request,reply,
///     base_version,base_site,counter,total
///
/// so "set,0,,3,,5,,set del,0,1,3,,,,del" sets a key of 3 bytes to a value of 5 and deletes another one.
/// Events are separated by slashes. The view isthmus.changes takes them apart.
class RowPacker {
 public:
  /// A packed row stays below PostgreSQL's TOAST_TUPLE_THRESHOLD of 2 KiB, with its other columns, so that it
  /// is neither compressed nor taken apart.
  static constexpr std::size_t kPackedBytes = 1700;
  /// More do not go into a row: each takes "0+0 " at least.
  static constexpr std::size_t kMostRows = kPackedBytes / 4;
  /// Fewer changes are not worth it: a person reads them better one by one.
  static constexpr std::size_t kFewestChanges = 4;

  /// Takes the rows from `begin` on that one row of SQL can hold, and says how many those are.
  std::size_t take(const RowBatch& rows, std::size_t begin);
  /// What holds them. Its views live until the batch changes or the next call of `take`.
  const Row& row() const { return row_; }

 private:
  void clear();
  std::size_t bytes() const { return key_.size() + field_.size() + value_.size() + reply_.size(); }
  std::size_t take_messages(const RowBatch& rows, std::size_t begin);
  bool fits(const Row& message) const;
  void add_message(const Row& message);
  std::size_t take_changes(const RowBatch& rows, std::size_t begin);
  bool add_change(const Row& change);
  void describe(const Row& change);

  Row row_;
  std::string key_, field_, value_, reply_;
};

/// Whether a row as it stands in SQL holds several.
inline bool is_packed(const Row& row) {
  return row.kind == RowKind::changes || (is_message(row.kind) && row.count.total != 0);
}

/// Takes a row that holds several apart. Where values or replies have been left out (replies do not leave
/// their site), those of its rows are empty.
class RowUnpacker {
 public:
  /// The views in `packed` must live as long as this.
  explicit RowUnpacker(const Row& packed);
  /// The next one, whose views live until the next call. False at the end, or where it is damaged.
  bool next(Row& row);
  /// After the end: whether all held together.
  bool complete() const;

 private:
  bool next_message(Row& row);
  bool next_change(Row& row);

  const bool changes_, has_values_, has_replies_;
  Row row_;  // what all have in common, and the place of the one before
  const Version first_version_;
  std::int64_t left_;
  std::string_view keys_, sizes_, values_, replies_;
  std::string event_;
};

/// Hands each message or change of a row as it stands in SQL to `each`, or the row itself if it is not
/// packed. False if what it says does not hold together.
template <typename Each>
bool for_each_row(const Row& row, Each each) {
  if (!is_packed(row)) {
    each(row);
    return true;
  }
  RowUnpacker unpacker(row);
  Row one;
  while (unpacker.next(one)) each(one);
  return unpacker.complete();
}

}  // namespace isthmus::backend
