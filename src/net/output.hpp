// What waits to be sent on one connection: replies in order, some behind a commit, and shared messages
// between them.
#pragma once

#include <array>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include <sys/uio.h>

#include "backend/row.hpp"
#include "src/pubsub/message.hpp"

namespace isthmus {

/// A queue of bytes for a socket. Replies are written into `replies()` and closed by `end_reply`; a message
/// is only referred to, so a payload is in memory once however many subscribers wait for it. Used by one
/// thread.
class Output {
 public:
  /// Where the next reply's bytes go.
  std::string& replies() { return bytes_; }
  /// The bytes since the last call are one reply; it may leave when `gate` is committed (0: at once).
  /// `now_ms` is by the steady clock.
  void end_reply(backend::Seq gate, std::int64_t now_ms);
  /// What has been written since the last end_reply, and taking it back.
  std::string_view unfinished_reply() const { return std::string_view(bytes_).substr(reply_end_); }
  void drop_reply() { bytes_.resize(reply_end_); }
  void push(MessageRef message, bool resp3);

  /// Bytes that wait, messages counted in full.
  std::size_t pending_bytes() const { return bytes_.size() - sent_ + message_bytes_; }
  /// The same without messages, which are shared: what this connection alone holds.
  std::size_t pending_reply_bytes() const { return bytes_.size() - sent_; }
  std::size_t pending_messages() const { return messages_; }
  bool empty() const { return pending_bytes() == 0; }
  /// Whether the first thing that waits is behind a commit that is not there yet.
  bool gated(backend::Seq committed) const;

  /// Pieces to send now: at most `kPieces`, valid until the next change. Empty if nothing may leave.
  struct Pieces {
    static constexpr std::size_t kMax = 64;
    std::array<iovec, kMax> parts;
    std::size_t count = 0;
    std::size_t bytes = 0;
  };
  void gather(backend::Seq committed, Pieces& pieces) const;
  /// So many bytes of what `gather` gave have been sent.
  void consume(std::size_t bytes);

  /// Replaces the replies at the head that have waited since before `since_ms` by `error` (without '-').
  /// Returns how many.
  std::size_t fail_gated(backend::Seq committed, std::int64_t since_ms, std::string_view error);
  /// Puts this reply in the place of all whose gate is in (from, to], which will not be committed. Returns
  /// how many.
  std::size_t replace_gated(backend::Seq from, backend::Seq to, std::string_view reply);
  void clear();

 private:
  struct Item {
    MessageRef message;  // null: a piece of bytes_
    std::size_t size;    // not sent of it
    backend::Seq gate = 0;
    std::int64_t since_ms = 0;
    bool resp3 = false;
  };
  void cover_ungated();
  template <class Chosen>
  std::size_t replace(std::string_view reply, Chosen&& chosen);

  std::string bytes_;  // replies; [sent_, …) not sent
  std::size_t sent_ = 0;
  std::size_t reply_end_ = 0;  // end of the last finished reply
  std::size_t covered_ = 0;    // bytes of [sent_, …) that items_ speak of
  std::deque<Item> items_;     // empty while there are only replies that may leave at once
  std::size_t message_bytes_ = 0;
  std::size_t messages_ = 0;
};

}  // namespace isthmus
