// One connection: bytes in, requests, replies, bytes out.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "resp/request_parser.hpp"
#include "src/command/client.hpp"
#include "src/net/output.hpp"

namespace isthmus {

class IoThread;

/// Lives on one I/O thread. Owns its socket.
class Session final : public Client {
 public:
  Session(IoThread& io, int socket);
  ~Session() override;

  /// The socket has something for us, or room.
  void on_events(std::uint32_t events);
  /// Goes on with requests that were read and had to wait, and with reading.
  void resume();
  /// Queues a message.
  void deliver(const MessageRef& message);
  /// Sends what may leave.
  void flush();
  /// Fails replies that have waited for their commit for too long.
  void check_commit_timeout(std::int64_t timeout_ms);
  /// Closes the connection if its client does not read what waits for it, or is idle for too long.
  void check_limits();
  void close(std::string_view why);
  bool closed() const { return socket_ < 0; }
  int socket() const { return socket_; }
  /// Whether it is at rest and may go to another thread: nothing to send, in no list.
  bool can_move() const;
  /// Belongs to that thread from now on.
  void move_to(IoThread& io);
  bool has_output() const { return !output_.empty(); }

  bool subscribe(ChannelKind kind, std::string_view channel) override;
  bool unsubscribe(ChannelKind kind, std::string_view channel) override;

  // Marks of the lists of the I/O thread.
  bool in_dirty = false, in_suspended = false, in_gated = false, in_unread = false;

 private:
  void read();
  void read_more(std::size_t wanted);
  ssize_t receive(char* data, std::size_t room);
  void process();
  std::size_t evaluate(std::string_view bytes);
  bool must_wait();
  void after_reply(backend::Seq gate);
  void protocol_error();
  void count_subscriptions();
  bool over_output_limit();

  void show_output();

  IoThread* io_;
  int socket_;  // -1 once it is closed
  resp::RequestParser parser_;
  std::string input_;  // a request that is not whole yet, or must wait
  Output output_;
  bool readable_ = false;    // the socket may have bytes that have not been read
  bool peer_ended_ = false;  // it will send no more: read until its end
  bool closing_ = false;     // nothing more is read; closed when the output is out
  bool parser_authenticated_ = false;
  std::int64_t over_soft_limit_since_ms_ = 0;
};

}  // namespace isthmus
