#include "backend/message_pack.hpp"

namespace isthmus::backend {
namespace {

/// A message that is a group of its own and answers nobody.
bool stands_alone(const Row& row) {
  return (row.kind == RowKind::publish || row.kind == RowKind::spublish) && row.group_end && !row.copied &&
         row.requester == 0 && row.event.empty();
}

bool begins_group(const RowBatch& rows, std::size_t index) { return index == 0 || rows[index - 1].group_end; }

}  // namespace

bool MessagePacker::fits(const Row& next) const {
  return stands_alone(next) && next.kind == row_.kind && next.site == row_.site &&
         next.origin == row_.origin && next.seq == row_.seq + 1 && next.version == row_.version &&
         next.db == row_.db && next.sent_at == row_.sent_at &&
         key_.size() + field_.size() + value_.size() + next.key.size() + next.value.size() < kPackedBytes;
}

void MessagePacker::add(const Row& message) {
  if (!field_.empty()) field_.push_back(' ');
  field_.append(std::to_string(message.key.size()))
      .append(1, '+')
      .append(std::to_string(message.value.size()));
  key_.append(message.key);
  value_.append(message.value);
}

std::size_t MessagePacker::take(const RowBatch& rows, std::size_t begin) {
  row_ = rows[begin];
  if (!stands_alone(row_) || row_.key.size() + row_.value.size() >= kPackedBytes ||
      !begins_group(rows, begin))
    return 1;
  key_.clear();
  field_.clear();
  value_.clear();
  add(row_);
  std::size_t end = begin + 1;
  for (; end < rows.size() && end - begin < kMostMessages; ++end) {
    const Row next = rows[end];
    if (!fits(next)) break;
    add(next);
    row_.seq = next.seq;
  }
  if (end == begin + 1) return 1;
  row_.key = key_;
  row_.field = field_;
  row_.value = value_;
  row_.count.total = static_cast<std::int64_t>(end - begin);
  return end - begin;
}

}  // namespace isthmus::backend
