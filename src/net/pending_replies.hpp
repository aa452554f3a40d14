// Replies of one connection that are not there yet, because the writer of the site evaluates their commands.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

namespace isthmus {

struct Command;

/// Lets replies leave in the order of requests, whatever the order in which they come. Used by one thread.
class PendingReplies {
 public:
  /// More are not begun: the connection waits.
  static constexpr std::size_t kMax = 10'000;

  /// The next request went out under this number. With `drop` its reply will not be sent (CLIENT REPLY).
  void expect(std::uint64_t number, bool drop, const Command* command = nullptr) {
    replies_.push_back({number, command, drop, false, {}});
  }
  /// The next request has its reply already: it was refused.
  void add(std::string reply, bool drop) { replies_.push_back({0, nullptr, drop, true, std::move(reply)}); }
  /// What expect() was told of a request that has no reply yet; null if there is none of that number.
  const Command* command(std::uint64_t number) const;
  /// The reply to that request.
  void fill(std::uint64_t number, std::string reply);
  /// Hands the replies that may leave to `send`, in order.
  template <class Send>
  void take(Send&& send) {
    for (; !replies_.empty() && replies_.front().there; replies_.pop_front()) {
      if (!replies_.front().drop) send(std::string_view(replies_.front().bytes));
    }
  }
  template <class Visit>
  void for_each_expected(Visit&& visit) const {
    for (const Reply& reply : replies_) {
      if (!reply.there) visit(reply.number);
    }
  }
  bool empty() const { return replies_.empty(); }
  bool full() const { return replies_.size() >= kMax; }

  /// An EXEC is out, which may change the database of the connection: nothing more goes out before its reply.
  bool after_exec = false;

 private:
  struct Reply {
    std::uint64_t number;
    const Command* command;
    bool drop;
    bool there;
    std::string bytes;
  };
  std::deque<Reply> replies_;
};

inline const Command* PendingReplies::command(std::uint64_t number) const {
  for (const Reply& expected : replies_) {
    if (!expected.there && expected.number == number) return expected.command;
  }
  return nullptr;
}

inline void PendingReplies::fill(std::uint64_t number, std::string reply) {
  for (Reply& expected : replies_) {
    if (expected.there || expected.number != number) continue;
    expected.bytes = std::move(reply);
    expected.there = true;
    return;
  }
}

}  // namespace isthmus
