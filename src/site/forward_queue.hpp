// The book of a server's forwarded requests: which are out, which have happened, which must be sent again.
// Knows no sockets, threads or clocks.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backend/shared_log.hpp"
#include "resp/reply_reader.hpp"

namespace isthmus {

/// A state-changing command on its way to the writer.
struct ForwardRequest {
  std::uint8_t db = 0;
  int protocol = 2;                ///< of the client that waits for the reply
  backend::Position position = 0;  ///< of this server's feed: what the client may have read
  std::size_t argc = 0;
  std::string args;  ///< so many RESP bulk strings
};

/// What became of a request.
struct ForwardAnswer {
  std::uint64_t request = 0;
  std::string reply;               ///< as it goes to the client
  std::optional<std::uint8_t> db;  ///< selected afterwards; nothing: as before
};

/// Takes answers for the connections of one I/O thread. Any thread; must not block.
class AnswerMailbox {
 public:
  virtual ~AnswerMailbox() = default;
  virtual void push_answers(std::vector<ForwardAnswer> answers) = 0;
};

/// What stands in a row as the answer to a forwarded request: the reply, with the database in front that is
/// selected afterwards, if that is another. A reply that is too large for a row is left out.
std::string row_answer(std::optional<std::uint8_t> db, std::string_view reply, std::size_t limit_bytes);

/// Requests leave in the order of their numbers over one connection to the writer, and are answered in that
/// order: [lease, seq, db afterwards, reply]. An answer is released when the feed has shown that seq of that
/// lease (so a client reads what it has written), or when the feed has shown a row that answers it.
///
/// A request whose connection broke is *in doubt*. It is decided when the feed has shown everything that was
/// evaluated for that connection: if no row answered it, it did not happen (or changed nothing), and is sent
/// again under its old number. How far the feed must be for that is what the next handshake answers: a new
/// writer names its own first row, which stands behind everything of the former lease; the same writer what
/// it has evaluated so far for older connections.
///
/// Events go in by the functions, actions come out by the take functions. Times are milliseconds of any
/// monotonic clock.
class ForwardQueue {
 public:
  /// Bounds of what is outstanding; above them connections are not read.
  static constexpr std::size_t kMaxRequests = 10'000;
  static constexpr std::size_t kMaxBytes = 64 << 20;

  ForwardQueue(backend::OriginId self, std::int64_t now_ms) : self_(self), not_ready_since_ms_(now_ms) {}

  /// A new request. Returns its number, which its answer will bear.
  std::uint64_t submit(const ForwardRequest& request, AnswerMailbox& mailbox, std::int64_t now_ms);

  // What the feed shows, in its order.
  void writer_is(const backend::LeaseRow& row);
  void answered(std::uint64_t request, std::string_view row_reply);
  void applied(backend::OriginId lease, backend::Seq seq);
  /// The feed has passed over rows that it could not read any more, and answers may have been among them.
  void missed_rows();

  // What happens to the connection.
  /// Whether there should be one, to `address()`.
  bool wants_connection() const;
  const std::string& address() const { return writer_.address; }
  /// Whether the one there is leads to somebody who is not the writer any more, or is no longer needed.
  bool must_drop() const { return connection_ != Connection::none && (stale_ || !wants_connection()); }
  /// There is one, to that address: the handshake goes out.
  void connected(const std::string& address, std::string_view secret);
  /// The handshake has not been answered yet.
  bool greeting() const { return connection_ == Connection::greeting; }
  /// A reply from the peer. False if the connection is to be dropped.
  bool received(resp::Value& value);
  void lost(std::int64_t now_ms);

  /// Tells clients whose requests have waited for too long.
  void tick(std::int64_t now_ms, std::int64_t timeout_ms);

  /// Bytes for the connection.
  std::string take_output() { return std::exchange(output_, {}); }
  bool has_output() const { return !output_.empty(); }
  struct Delivery {
    AnswerMailbox* mailbox;
    std::vector<ForwardAnswer> answers;
  };
  std::vector<Delivery> take_released() { return std::exchange(released_, {}); }

  /// Whether new requests should fail at once, because the oldest has waited for too long, or nobody was
  /// there to send it to for so long. As of the last tick; false again when the connection is back.
  bool refuses() const { return refuses_; }
  bool full() const { return outstanding_ >= kMaxRequests || bytes_ >= kMaxBytes; }
  bool ready() const { return connection_ == Connection::ready; }
  std::size_t outstanding() const { return outstanding_; }
  /// How many requests have been sent once more.
  std::uint64_t retries() const { return retries_; }

 private:
  enum class State : std::uint8_t {
    unsent,
    sent,      // on the connection
    in_doubt,  // its connection broke
    answered,  // by the writer; waits for the feed
    done,
  };
  struct Entry {
    std::string bytes;  // the whole request
    AnswerMailbox* mailbox = nullptr;
    std::int64_t submitted_ms = 0;
    State state = State::unsent;
    bool in_log = false;      // a row answers it
    bool reply_lost = false;  // but is without the reply
    bool expired = false;     // the client has been told that nobody knows
    backend::OriginId lease = 0;
    backend::Seq seq = 0;
    std::string reply;
    std::optional<std::uint8_t> db;
  };
  enum class Connection : std::uint8_t { none, greeting, catching_up, ready };

  Entry* find(std::uint64_t number);
  void finish(std::uint64_t number, Entry& entry);
  void expire(std::uint64_t number, Entry& entry);
  void release_answered();
  void send(std::uint64_t number, Entry& entry);
  void begin();
  bool caught_up() const;
  bool superseded(backend::OriginId lease) const;
  bool is_applied(const Entry& entry) const;
  bool greeted(const resp::Value& value);
  bool take_answer(resp::Value& value);

  const backend::OriginId self_;
  std::deque<Entry> entries_;
  std::uint64_t first_ = 1;  // number of entries_.front()
  std::size_t outstanding_ = 0, bytes_ = 0, in_doubt_ = 0, expired_ = 0;
  std::deque<std::uint64_t> in_flight_;  // on the connection, in its order
  std::deque<std::uint64_t> answered_;   // by the writer; wait for the feed
  std::vector<std::uint64_t> in_log_;    // answered by a row of a group that the feed has not folded yet

  backend::LeaseRow writer_;
  std::deque<backend::OriginId> former_;  // leases before that of writer_
  backend::OriginId applied_lease_ = 0;
  backend::Seq applied_seq_ = 0;

  Connection connection_ = Connection::none;
  bool stale_ = false;
  std::string connected_to_;
  std::uint64_t epoch_ = 0;  // of the connection, for the peer
  backend::OriginId peer_lease_ = 0;
  backend::Seq peer_seq_ = 0;
  std::int64_t not_ready_since_ms_;
  bool refuses_ = false;
  std::uint64_t retries_ = 0;
  std::string output_;
  std::vector<Delivery> released_;
};

}  // namespace isthmus
