// Messages of one server that came within the same millisecond share a row of the log in PostgreSQL: a row
// costs a database, its walsenders and its peers ten times what a small message in it does.
//
// Such a row has the kind, site, origin, version and time of its messages, which are neighbours in all of
// these, and the seq of its last one. `total` is their number, `key` their channels and `value` their
// payloads one behind the other, and `field` says in ASCII how long each is: "4+11 4+2" are two channels of 4
// bytes and payloads of 11 and 2. The view isthmus.messages takes them apart in SQL. Only the code that
// writes and reads rows in SQL knows of it: a Row anywhere else is one message.
#pragma once

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>

#include "backend/row.hpp"

namespace isthmus::backend {

/// Gathers rows of a batch into rows of SQL. Not thread-safe.
class MessagePacker {
 public:
  /// A packed row stays below PostgreSQL's TOAST_TUPLE_THRESHOLD of 2 KiB, with its other columns, so that it
  /// is neither compressed nor taken apart.
  static constexpr std::size_t kPackedBytes = 1700;
  /// More do not go into a row: each takes "0+0 " at least.
  static constexpr std::size_t kMostMessages = kPackedBytes / 4;

  /// Takes the rows from `begin` on that one row of SQL can hold, and says how many those are: one, or
  /// several messages.
  std::size_t take(const RowBatch& rows, std::size_t begin);
  /// What holds them. Its views live until the batch changes or the next call of `take`.
  const Row& row() const { return row_; }

 private:
  bool fits(const Row& next) const;
  void add(const Row& message);
  Row row_;
  std::string key_, field_, value_;
};

/// Whether a row as it stands in SQL holds several messages.
inline bool is_packed(const Row& row) { return is_message(row.kind) && row.count.total != 0; }

/// Hands each message of a row as it stands in SQL to `each`, or the row itself if it is not packed. False if
/// what it says does not hold together. Where the payloads have been left out, those of its messages are
/// empty.
template <typename Each>
bool for_each_message(const Row& row, Each each) {
  if (!is_packed(row)) {
    each(row);
    return true;
  }
  Row message = row;
  message.count = {};
  message.field = {};
  message.seq = row.seq - static_cast<Seq>(row.count.total);
  std::string_view channels = row.key, payloads = row.value;
  const char* at = row.field.data();
  const char* const end = at + row.field.size();
  const auto size = [&](char mark, std::size_t& into) {
    const auto [stop, problem] = std::from_chars(at, end, into);
    if (problem != std::errc() || (stop != end && *stop != mark)) return false;
    at = stop == end ? end : stop + 1;
    return true;
  };
  for (std::int64_t i = 0; i < row.count.total; ++i) {
    std::size_t channel = 0, payload = 0;
    if (!size('+', channel) || !size(' ', payload) || channel > channels.size()) return false;
    if (!row.value.empty() && payload > payloads.size()) return false;
    ++message.seq;
    message.key = channels.substr(0, channel);
    channels.remove_prefix(channel);
    message.value = payloads.substr(0, payload);
    payloads.remove_prefix(message.value.size());
    each(message);
  }
  return at == end && channels.empty() && payloads.empty();
}

}  // namespace isthmus::backend
