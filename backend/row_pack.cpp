#include "backend/row_pack.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace isthmus::backend {
namespace {

template <typename Number>
void append_number(std::string& out, Number number) {
  std::array<char, 24> digits;
  out.append(digits.data(), std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr);
}

/// Takes `size` bytes off the front. Nothing if there are fewer.
std::optional<std::string_view> take_front(std::string_view& bytes, std::size_t size) {
  if (size > bytes.size()) return std::nullopt;
  const std::string_view front = bytes.substr(0, size);
  bytes.remove_prefix(size);
  return front;
}

/// Takes what stands in front of the next `mark` off `text`, with the mark; all if there is none.
std::string_view take_until(std::string_view& text, char mark) {
  const std::size_t end = text.find(mark);
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  return part;
}

/// A message that is a group of its own and answers nobody.
bool stands_alone(const Row& row) {
  return (row.kind == RowKind::publish || row.kind == RowKind::spublish) && row.group_end && !row.copied &&
         row.requester == 0 && row.event.empty();
}

bool begins_group(const RowBatch& rows, std::size_t index) { return index == 0 || rows[index - 1].group_end; }

bool may_share(const Row& row) {
  return is_state(row.kind) && row.event.find_first_of("/ ") == std::string_view::npos;
}

}  // namespace

// ---- into one row ----

std::size_t RowPacker::take(const RowBatch& rows, std::size_t begin) {
  row_ = rows[begin];
  if (is_state(row_.kind)) return take_changes(rows, begin);
  if (stands_alone(row_) && begins_group(rows, begin)) return take_messages(rows, begin);
  return 1;
}

void RowPacker::clear() {
  key_.clear();
  field_.clear();
  value_.clear();
  reply_.clear();
}

bool RowPacker::fits(const Row& message) const {
  return stands_alone(message) && message.kind == row_.kind && message.site == row_.site &&
         message.origin == row_.origin && message.seq == row_.seq + 1 && message.version == row_.version &&
         message.db == row_.db && message.sent_at == row_.sent_at &&
         bytes() + message.key.size() + message.value.size() < kPackedBytes;
}

void RowPacker::add_message(const Row& message) {
  if (!field_.empty()) field_.push_back(' ');
  append_number(field_, message.key.size());
  field_.push_back('+');
  append_number(field_, message.value.size());
  key_.append(message.key);
  value_.append(message.value);
}

std::size_t RowPacker::take_messages(const RowBatch& rows, std::size_t begin) {
  if (row_.key.size() + row_.value.size() >= kPackedBytes) return 1;
  clear();
  add_message(row_);
  std::size_t end = begin + 1;
  for (; end < rows.size() && end - begin < kMostRows; ++end) {
    const Row next = rows[end];
    if (!fits(next)) break;
    add_message(next);
    row_.seq = next.seq;
  }
  if (end == begin + 1) return 1;
  row_.key = key_;
  row_.field = field_;
  row_.value = value_;
  row_.count.total = static_cast<std::int64_t>(end - begin);
  return end - begin;
}

std::size_t RowPacker::take_changes(const RowBatch& rows, std::size_t begin) {
  clear();
  Row packed;
  packed.kind = RowKind::changes;
  packed.site = row_.site;
  packed.origin = row_.origin;
  packed.version = row_.version;
  packed.copied = row_.copied;
  packed.seq = row_.seq - 1;
  std::size_t end = begin;
  for (; end < rows.size() && end - begin < kMostRows; ++end) {
    const Row next = rows[end];
    const bool follows = next.site == packed.site && next.origin == packed.origin &&
                         next.copied == packed.copied && next.seq == packed.seq + 1;
    if (!follows || !may_share(next) || !add_change(next)) break;
    packed.seq = next.seq;
    packed.group_end = next.group_end;
  }
  if (end - begin < kFewestChanges) return 1;
  packed.key = key_;
  packed.field = field_;
  packed.value = value_;
  packed.reply = reply_;
  packed.count.total = static_cast<std::int64_t>(end - begin);
  row_ = packed;
  return end - begin;
}

/// False if there is no room for it.
bool RowPacker::add_change(const Row& change) {
  const std::size_t size =
      change.key.size() + change.field.size() + change.value.size() + change.reply.size();
  if (bytes() + size >= kPackedBytes) return false;
  const std::size_t described = field_.size();
  describe(change);
  if (bytes() + size >= kPackedBytes) {
    field_.resize(described);
    return false;
  }
  key_.append(change.key).append(change.field);
  value_.append(change.value);
  reply_.append(change.reply);
  return true;
}

void RowPacker::describe(const Row& change) {
  const RowParts parts = row_parts(change.kind);
  const auto put = [this](bool present, auto number) {
    field_.push_back(',');
    if (present) append_number(field_, number);
  };
  if (!field_.empty()) field_.push_back(' ');
  if (!change.group_end) field_.push_back('+');
  field_.append(row_kind_name(change.kind));
  put(true, unsigned{change.db});
  put(change.version != row_.version, static_cast<std::int64_t>(change.version - row_.version));
  put(parts.key || !change.key.empty(), change.key.size());
  put(parts.field || !change.field.empty(), change.field.size());
  put(parts.value || !change.value.empty(), change.value.size());
  put(change.expire_at.has_value(), change.expire_at.value_or(0));
  const std::size_t event = field_.size() + 1;
  field_.append(1, ',').append(change.event);
  std::replace(field_.begin() + static_cast<std::ptrdiff_t>(event), field_.end(), ',', '/');
  put(change.requester != 0, change.requester);
  put(change.request != 0, change.request);
  put(!change.reply.empty(), change.reply.size());
  const bool counts = is_count(change.kind), has_base = counts || change.count.base_version != 0;
  put(has_base, change.count.base_version);
  put(has_base, change.count.base_site);
  put(counts, change.count.counter);
  put(counts, change.count.total);
  field_.resize(field_.find_last_not_of(',') + 1);
}

// ---- and out of it ----

RowUnpacker::RowUnpacker(const Row& packed)
    : changes_(packed.kind == RowKind::changes),
      has_values_(!packed.value.empty()),
      has_replies_(!packed.reply.empty()),
      row_(packed),
      first_version_(packed.version),
      left_(packed.count.total),
      keys_(packed.key),
      sizes_(packed.field),
      values_(packed.value),
      replies_(packed.reply) {
  row_.count = {};
  row_.seq = packed.seq - static_cast<Seq>(left_);
}

bool RowUnpacker::next(Row& row) {
  if (left_ <= 0 || sizes_.empty()) return false;
  ++row_.seq;
  if (!(changes_ ? next_change(row) : next_message(row))) return false;
  --left_;
  return true;
}

bool RowUnpacker::complete() const {
  return left_ == 0 && keys_.empty() && sizes_.empty() && values_.empty() && replies_.empty();
}

bool RowUnpacker::next_message(Row& row) {
  const std::string_view sizes = take_until(sizes_, ' ');
  const char* const end = sizes.data() + sizes.size();
  std::size_t channel = 0, payload = 0;
  const auto first = std::from_chars(sizes.data(), end, channel);
  if (first.ec != std::errc() || first.ptr == end || *first.ptr != '+') return false;
  const auto second = std::from_chars(first.ptr + 1, end, payload);
  if (second.ec != std::errc() || second.ptr != end) return false;
  const auto key = take_front(keys_, channel), value = take_front(values_, has_values_ ? payload : 0);
  if (!key || !value) return false;
  row = row_;
  row.key = *key;
  row.field = {};
  row.value = *value;
  return true;
}

bool RowUnpacker::next_change(Row& row) {
  std::string_view text = take_until(sizes_, ' ');
  row = row_;
  row.group_end = !text.starts_with('+');
  if (!row.group_end) text.remove_prefix(1);
  const std::optional<RowKind> kind = row_kind_from_name(take_until(text, ','));
  if (!kind || !is_state(*kind)) return false;
  row.kind = *kind;

  bool sound = true;
  // The next number, if it is there.
  const auto number = [&](auto& into) {
    const std::string_view digits = take_until(text, ',');
    if (digits.empty()) return false;
    const char* const end = digits.data() + digits.size();
    const auto [stop, problem] = std::from_chars(digits.data(), end, into);
    sound &= problem == std::errc() && stop == end;
    return true;
  };
  const auto part = [&](std::string_view& from, std::size_t size) {
    const auto found = take_front(from, size);
    sound &= found.has_value();
    return found.value_or(std::string_view());
  };
  std::int64_t behind = 0, deadline = 0;
  std::size_t key = 0, field = 0, value = 0, reply = 0;
  number(row.db);
  number(behind);
  number(key);
  number(field);
  number(value);
  if (number(deadline)) row.expire_at = deadline;
  event_ = take_until(text, ',');
  std::replace(event_.begin(), event_.end(), '/', ',');
  number(row.requester);
  number(row.request);
  number(reply);
  number(row.count.base_version);
  number(row.count.base_site);
  number(row.count.counter);
  number(row.count.total);
  row.version = first_version_ + static_cast<Version>(behind);
  row.event = event_;
  row.key = part(keys_, key);
  row.field = part(keys_, field);
  row.value = part(values_, has_values_ ? value : 0);
  row.reply = part(replies_, has_replies_ ? reply : 0);
  return sound && text.empty() && row.db <= kMaxDb;
}

}  // namespace isthmus::backend
