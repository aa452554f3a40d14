#include "src/net/output.hpp"

#include <algorithm>
#include <utility>

namespace isthmus {
namespace {

// Smaller pieces are copied together: cheaper than an iovec for each.
constexpr std::size_t kCopyBelow = 4096;
constexpr std::size_t kScratchBytes = 64 * 1024;
constexpr std::size_t kKeepCapacity = 64 * 1024;

thread_local std::array<char, kScratchBytes> scratch;

}  // namespace

void Output::end_reply(backend::Seq gate, std::int64_t now_ms) {
  const std::size_t size = bytes_.size() - reply_end_;
  if (size == 0) return;
  if (gate != 0 || !items_.empty()) {
    cover_ungated();
    items_.push_back({nullptr, size, gate, now_ms, false});
    covered_ += size;
  }
  reply_end_ = bytes_.size();
}

void Output::cover_ungated() {
  const std::size_t uncovered = reply_end_ - sent_ - covered_;
  if (uncovered == 0) return;
  items_.push_back({nullptr, uncovered, 0, 0, false});
  covered_ += uncovered;
}

void Output::push(MessageRef message, bool resp3) {
  cover_ungated();
  const std::size_t size = message->frame.size();
  items_.push_back({std::move(message), size, 0, 0, resp3});
  message_bytes_ += size;
  ++messages_;
}

bool Output::gated(backend::Seq committed) const {
  return !items_.empty() && items_.front().gate > committed;
}

void Output::gather(backend::Seq committed, Pieces& pieces) const {
  pieces.count = pieces.bytes = 0;
  if (items_.empty()) {
    if (reply_end_ == sent_) return;
    pieces.parts[0] = {const_cast<char*>(bytes_.data()) + sent_, reply_end_ - sent_};
    pieces.count = 1;
    pieces.bytes = reply_end_ - sent_;
    return;
  }
  std::size_t used = 0;  // of scratch
  const auto add = [&](const char* data, std::size_t size) {
    const bool copy = size < kCopyBelow;
    if (copy) {
      std::copy_n(data, size, scratch.data() + used);
      data = scratch.data() + used;
      used += size;
    }
    iovec* last = pieces.count == 0 ? nullptr : &pieces.parts[pieces.count - 1];
    if (last != nullptr && static_cast<char*>(last->iov_base) + last->iov_len == data) {
      last->iov_len += size;
    } else {
      pieces.parts[pieces.count++] = {const_cast<char*>(data), size};
    }
    pieces.bytes += size;
  };
  std::size_t reply_at = sent_;
  for (const Item& item : items_) {
    if (item.gate > committed) break;
    if (pieces.count + 2 > Pieces::kMax || used + kCopyBelow > kScratchBytes) break;
    if (item.message == nullptr) {
      add(bytes_.data() + reply_at, item.size);
      reply_at += item.size;
      continue;
    }
    const std::string& frame = item.message->frame;
    const char* data = frame.data() + (frame.size() - item.size);
    std::size_t size = item.size;
    if (item.resp3 && size == frame.size() && frame[0] == '*') {
      add(">", 1);
      ++data;
      --size;
    }
    add(data, size);
  }
}

void Output::consume(std::size_t bytes) {
  while (bytes > 0 && !items_.empty()) {
    Item& item = items_.front();
    const std::size_t part = std::min(bytes, item.size);
    item.size -= part;
    bytes -= part;
    if (item.message != nullptr) {
      message_bytes_ -= part;
    } else {
      sent_ += part;
      covered_ -= part;
    }
    if (item.size > 0) break;
    if (item.message != nullptr) --messages_;
    items_.pop_front();
  }
  sent_ += bytes;
  if (sent_ == bytes_.size()) {
    bytes_.clear();
    if (bytes_.capacity() > kKeepCapacity) bytes_.shrink_to_fit();
    sent_ = reply_end_ = 0;
  } else if (sent_ > kKeepCapacity && sent_ > bytes_.size() / 2) {
    bytes_.erase(0, sent_);
    reply_end_ -= sent_;
    sent_ = 0;
  }
}

template <class Chosen>
std::size_t Output::replace(std::string_view reply, Chosen&& chosen) {
  if (std::none_of(items_.begin(), items_.end(), chosen)) return 0;
  // Put together anew, as there may be a million of them.
  std::size_t replaced = 0, at = sent_;
  std::string bytes;
  bytes.reserve(bytes_.size() - sent_);
  covered_ = 0;
  for (Item& item : items_) {
    if (item.message != nullptr) continue;
    const std::size_t size = item.size;
    if (chosen(item)) {
      bytes.append(reply);
      item.size = reply.size();
      item.gate = 0;
      ++replaced;
    } else {
      bytes.append(bytes_, at, size);
    }
    at += size;
    covered_ += item.size;
  }
  const std::size_t unfinished = bytes_.size() - reply_end_;
  bytes.append(bytes_, at);
  bytes_ = std::move(bytes);
  sent_ = 0;
  reply_end_ = bytes_.size() - unfinished;
  return replaced;
}

std::size_t Output::fail_gated(backend::Seq committed, std::int64_t since_ms, std::string_view error) {
  std::string line = "-";
  line.append(error).append("\r\n");
  return replace(line, [&](const Item& item) { return item.gate > committed && item.since_ms <= since_ms; });
}

std::size_t Output::replace_gated(backend::Seq from, backend::Seq to, std::string_view reply) {
  return replace(reply, [&](const Item& item) { return item.gate > from && item.gate <= to; });
}

void Output::clear() { *this = Output(); }

}  // namespace isthmus
