// What SCAN, HSCAN and SSCAN have in common: the cursor, the options, how far one call goes, and the reply.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "src/command/call.hpp"
#include "src/keyspace/shard.hpp"

namespace isthmus {

namespace error {
inline constexpr std::string_view kInvalidCursor = "ERR invalid cursor";
}  // namespace error

/// The cursor of a SCAN command as Redis reads one (strtoul): an optional sign and decimal digits; no text is
/// 0, a minus counts down from 2^64. Nothing if it begins with a space, goes on behind the digits, or does
/// not fit into 64 bits.
std::optional<std::uint64_t> parse_cursor(std::string_view text);

/// Where SCAN stands: in which shard and where in that shard's table. 0 is the beginning, and the end.
struct ShardCursor {
  std::uint64_t bucket = 0;  ///< Table's cursor
  std::size_t shard = 0;     ///< below kShards, or equal to it at the end

  ShardCursor() = default;
  explicit ShardCursor(std::uint64_t number) : bucket(number / kShards), shard(number % kShards) {}
  bool at_end() const { return shard == kShards; }
  void next_shard() {
    bucket = 0;
    ++shard;
  }
  /// What the client gets to come back with.
  std::uint64_t number() const { return at_end() ? 0 : bucket * kShards + shard; }
};

/// MATCH, COUNT and TYPE (https://redis.io/docs/latest/commands/scan/).
struct ScanOptions {
  std::int64_t count = 10;
  std::optional<std::string_view> pattern;
  std::optional<std::string_view> type;

  bool matches(std::string_view name) const;
  /// `name` is the lower-case name of a type.
  bool has_type(std::string_view name) const { return !type || equals_ignoring_case(*type, name); }
};

/// Reads the options from args[first] on; TYPE only if `with_type`. Replies with the error and returns
/// nothing if they are not in order.
std::optional<ScanOptions> parse_scan_options(Call& call, std::size_t first, bool with_type);

/// How far one call goes: until COUNT elements have been seen (whether or not they match), or ten times as
/// many buckets.
class ScanBudget {
 public:
  explicit ScanBudget(std::int64_t count)
      : elements_(static_cast<std::uint64_t>(count)),
        buckets_(elements_ > std::numeric_limits<std::uint64_t>::max() / 10 ? elements_ : elements_ * 10) {}
  void see_element() {
    if (elements_ > 0) --elements_;
  }
  void see_bucket() {
    if (buckets_ > 0) --buckets_;
  }
  bool spent() const { return elements_ == 0 || buckets_ == 0; }

 private:
  std::uint64_t elements_, buckets_;
};

/// Gathers bulk strings whose number is known only afterwards.
class BulkList {
 public:
  explicit BulkList(int protocol) : writer_(bytes_, protocol) {}
  BulkList(const BulkList&) = delete;
  BulkList& operator=(const BulkList&) = delete;
  void add(std::string_view text) {
    writer_.bulk(text);
    ++size_;
  }
  std::size_t size() const { return size_; }
  /// Writes them as an array.
  void reply_to(resp::Writer& reply) const {
    reply.array(size_);
    reply.raw(bytes_);
  }

 private:
  std::string bytes_;
  resp::Writer writer_;
  std::size_t size_ = 0;
};

/// HSCAN and SSCAN: `find` finds the key of the right type.
void scan_fields(Call& call, const Node* (Call::*find)(const Key&, bool&), bool with_values);

/// The reply of SCAN, HSCAN and SSCAN: the next cursor as a bulk string, and what was found.
void reply_scan(resp::Writer& reply, std::uint64_t cursor, const BulkList& found);

}  // namespace isthmus
