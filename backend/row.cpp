// Names of the row kinds and the batch that rows gather in before they commit.
#include "backend/row.hpp"

#include <algorithm>
#include <array>
#include <limits>
#include <stdexcept>

namespace isthmus::backend {
namespace {

/// In the order of RowKind.
constexpr std::array<std::string_view, 22> kKindNames = {
    "set",      "update", "hset",     "hcreate", "hdel",        "del",    "expire", "incr",
    "hincr",    "htype",  "sadd",     "screate", "srem",        "stype",  "flush",  "publish",
    "spublish", "lease",  "frontier", "reach",   "subscribers", "changes"};

/// In the order of RowKind.
constexpr std::array<RowParts, 22> kParts = {{
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
    {true, true, false},    // sadd
    {true, true, false},    // screate
    {true, true, false},    // srem
    {true, false, false},   // stype
    {false, false, false},  // flush
    {true, false, true},    // publish
    {true, false, true},    // spublish
    {true, false, true},    // lease
    {false, false, true},   // frontier
    {false, false, true},   // reach
    {false, false, true},   // subscribers
    {true, true, true},     // changes
}};

/// What a cleared batch may keep: enough for a busy group commit, small beside the keyspace.
constexpr std::size_t kKeptBytes = 4U << 20U;

std::uint32_t checked_size(std::string_view part) {
  if (part.size() > std::numeric_limits<std::uint32_t>::max()) {
    throw std::length_error("a part of a log row is larger than 4 GiB");
  }
  return static_cast<std::uint32_t>(part.size());
}

}  // namespace

std::string database_error(std::int64_t number) {
  if (number >= 0 && number <= kMaxDb) return {};
  return "a row names the database " + std::to_string(number) + ", and there are 0 to " +
         std::to_string(kMaxDb);
}

std::string_view row_kind_name(RowKind kind) { return kKindNames.at(static_cast<std::size_t>(kind)); }

RowParts row_parts(RowKind kind) { return kParts.at(static_cast<std::size_t>(kind)); }

std::optional<RowKind> row_kind_from_name(std::string_view name) {
  const auto* found = std::find(kKindNames.begin(), kKindNames.end(), name);
  if (found == kKindNames.end()) return std::nullopt;
  return static_cast<RowKind>(found - kKindNames.begin());
}

void RowBatch::append(const Row& row) {
  Packed packed{};
  packed.site = row.site;
  packed.origin = row.origin;
  packed.seq = row.seq;
  packed.version = row.version;
  packed.expire_at = row.expire_at.value_or(0);
  packed.sent_at = row.sent_at;
  packed.offset = bytes_.size();
  packed.key_size = checked_size(row.key);
  packed.field_size = checked_size(row.field);
  packed.value_size = checked_size(row.value);
  packed.db = row.db;
  packed.kind = row.kind;
  packed.group_end = row.group_end;
  packed.has_deadline = row.expire_at.has_value();
  packed.copied = row.copied;
  bytes_.append(row.key).append(row.field).append(row.value);
  if (!row.event.empty() || row.requester != 0 || is_count(row.kind) || row.count.base_version != 0) {
    Extra& more = extra(packed);
    more = {std::string(row.event), row.requester, row.request, std::string(row.reply), row.count};
  }
  rows_.push_back(packed);
}

RowBatch::Extra& RowBatch::extra(Packed& packed) {
  if (packed.extra == 0) {
    extras_.emplace_back();
    packed.extra = static_cast<std::uint32_t>(extras_.size());
  }
  return extras_[packed.extra - 1];
}

void RowBatch::add_event(std::size_t index, std::string_view event) {
  std::string& events = extra(rows_[index]).event;
  if (!events.empty()) events.push_back(',');
  events.append(event);
}

void RowBatch::answer(OriginId requester, std::uint64_t request, std::string_view reply) {
  Extra& more = extra(rows_.back());
  more.requester = requester;
  more.request = request;
  more.reply = reply;
}

Seq RowBatch::number_messages(OriginId origin, Seq last, Version version) {
  for (Packed& packed : rows_) {
    if (packed.origin != origin || packed.seq != 0 || !is_message(packed.kind)) continue;
    packed.seq = ++last;
    packed.version = version;
  }
  return last;
}

void RowBatch::clear_message_versions(OriginId origin) {
  for (Packed& packed : rows_) {
    if (packed.origin == origin) packed.version = 0;
  }
}

void RowBatch::keep_if(const std::function<bool(const Row&)>& keep) {
  RowBatch kept;
  bool group_has_rows = false;
  for (std::size_t i = 0; i < size(); ++i) {
    const Row row = (*this)[i];
    if (keep(row)) {
      kept.append(row);
      group_has_rows = !row.group_end;
    } else if (row.group_end) {
      if (group_has_rows) kept.end_group();
      group_has_rows = false;
    }
  }
  *this = std::move(kept);
}

Row RowBatch::operator[](std::size_t index) const {
  const Packed& packed = rows_[index];
  const std::string_view bytes = std::string_view(bytes_).substr(packed.offset);
  Row row;
  row.site = packed.site;
  row.origin = packed.origin;
  row.seq = packed.seq;
  row.version = packed.version;
  row.db = packed.db;
  row.kind = packed.kind;
  row.group_end = packed.group_end;
  row.key = bytes.substr(0, packed.key_size);
  row.field = bytes.substr(packed.key_size, packed.field_size);
  row.value = bytes.substr(std::size_t{packed.key_size} + packed.field_size, packed.value_size);
  if (packed.has_deadline) row.expire_at = packed.expire_at;
  row.sent_at = packed.sent_at;
  row.copied = packed.copied;
  if (packed.extra == 0) return row;
  const Extra& more = extras_[packed.extra - 1];
  row.event = more.event;
  row.requester = more.requester;
  row.request = more.request;
  row.reply = more.reply;
  row.count = more.count;
  return row;
}

void RowBatch::clear() {
  rows_.clear();
  extras_.clear();
  bytes_.clear();
  if (rows_.capacity() * sizeof(Packed) > kKeptBytes) std::vector<Packed>().swap(rows_);
  if (bytes_.capacity() > kKeptBytes) std::string().swap(bytes_);
}

}  // namespace isthmus::backend
