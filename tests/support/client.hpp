// A connection to a server under test: RESP2 or RESP3, with a deadline on every wait.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <initializer_list>
#include <optional>
#include <ostream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "resp/reply_reader.hpp"
#include "tests/support/process.hpp"

namespace isthmus::resp {
/// How GoogleTest shows a reply.
inline void PrintTo(const Value& value, std::ostream* out) { *out << to_text(value); }
}  // namespace isthmus::resp

namespace isthmus::test {

using resp::Value;

/// Nothing came, or nothing could be sent, in time.
struct TimedOut : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// The server closed the connection.
struct Closed : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A pub/sub message as a subscriber gets it.
struct Message {
  std::string kind;     ///< "message", "pmessage" or "smessage"
  std::string pattern;  ///< of a pmessage, else empty
  std::string channel;
  std::string payload;
  std::chrono::system_clock::time_point arrived;

  friend bool operator==(const Message& a, const Message& b) {
    return a.kind == b.kind && a.pattern == b.pattern && a.channel == b.channel && a.payload == b.payload;
  }
};
std::ostream& operator<<(std::ostream& out, const Message& message);

/// One connection to 127.0.0.1. Functions throw TimedOut, Closed, or std::runtime_error when the server sends
/// what is not RESP. Not thread-safe.
class Client {
 public:
  /// Connects; with protocol 3 it says HELLO 3. `receive_buffer_bytes` bounds what the kernel takes for a
  /// client that does not read (0: as the system has it).
  explicit Client(int port, int protocol = 2, int receive_buffer_bytes = 0);
  /// Takes over a socket that is connected.
  struct Connected {
    int socket;
  };
  explicit Client(Connected connected, int protocol = 2);
  ~Client();
  Client(Client&& other) noexcept;
  Client& operator=(Client&& other) noexcept;

  int protocol() const { return protocol_; }
  int fd() const { return fd_; }

  /// Sends a command and awaits its reply.
  Value call(std::initializer_list<std::string_view> args) {
    return call(std::vector<std::string_view>(args));
  }
  Value call(const std::vector<std::string_view>& args);
  /// Sends a command and awaits nothing.
  void send(std::initializer_list<std::string_view> args);
  /// Sends bytes as they are. What the server answers meanwhile is taken in, so that long pipelines do not
  /// stop.
  void send_raw(std::string_view bytes, milliseconds patience = kPatience);
  /// Sends without ever reading; gives how many bytes the server took until `patience` ran out or it closed.
  std::size_t push_raw(std::string_view bytes, milliseconds patience);
  /// No more will be sent (a half-closed connection).
  void finish_sending();

  /// The next reply. Pushes of RESP3 that come before it are kept for next_push() and next_message().
  Value read(milliseconds patience = kPatience);
  /// The next value, reply or push, in the order of the wire.
  Value read_any(milliseconds patience = kPatience);
  /// The next pub/sub message: in RESP3 the next push, in RESP2 the next value. Throws if that is something
  /// else.
  Message next_message(milliseconds patience = kPatience);
  /// As next_message, or nothing if none comes in time.
  std::optional<Message> message_within(milliseconds patience);
  /// Subscribes by `command` (SUBSCRIBE, PSUBSCRIBE, SSUBSCRIBE) and awaits every acknowledgement.
  void subscribe(std::string_view command, const std::vector<std::string>& names);
  /// Whether the server closes the connection in time. What it still sends is thrown away.
  bool closed_within(milliseconds patience = kPatience);
  /// Closes the connection, with a reset instead of a farewell if `abruptly`.
  void close(bool abruptly = false);

  /// Pushes kept by read(), oldest first.
  std::deque<Value>& kept_pushes() { return pushes_; }

 private:
  using Deadline = std::chrono::steady_clock::time_point;
  void begin();
  // MONITOR shows a whole command in one line.
  static constexpr resp::ReplyLimits kLimits{.max_line = std::size_t{64} << 20};
  std::optional<Value> take();
  void receive(Deadline deadline);
  bool receive_ready();
  void await(short events, Deadline deadline) const;

  int fd_ = -1;
  int protocol_ = 2;
  resp::ReplyReader reader_{kLimits};
  std::deque<Value> pushes_;
};

/// A reply as redis-cli would show it.
std::string show(const Value& value);
/// `text` as redis-cli shows a bulk string; for expectations.
std::string quoted(std::string_view text);

/// The value of `name` in the reply of INFO (whole text), or nothing.
std::optional<std::string> info_field(Client& client, std::string_view section, std::string_view name);

/// Runs `work(0)` … `work(count - 1)`, each in a thread of its own, and waits for all. An exception in one
/// becomes a failure of the running test.
void in_threads(int count, const std::function<void(int)>& work);

/// Asks `done` again and again until it says true, at most for `patience`. For states that no event tells of.
bool eventually(const std::function<bool()>& done, milliseconds patience = kPatience);

}  // namespace isthmus::test
