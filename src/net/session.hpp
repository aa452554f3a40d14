// One connection: bytes in, requests, replies, bytes out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <sys/types.h>

#include "resp/request_parser.hpp"
#include "resp/writer.hpp"
#include "src/command/client.hpp"
#include "src/net/admission.hpp"
#include "src/net/output.hpp"
#include "src/net/pending_replies.hpp"
#include "src/site/forward_queue.hpp"
#include "src/tls/connection.hpp"

namespace isthmus {

class IoThread;
struct Arrival;

/// Lives on one I/O thread. Owns its socket.
class Session final : public Client {
 public:
  Session(IoThread& io, const Arrival& arrival);
  ~Session() override;

  /// The socket has something for us, or room.
  void on_events(std::uint32_t events);
  /// Goes on with requests that were read and had to wait, and with reading.
  void resume();
  /// Queues a message.
  void deliver(const MessageRef& message);
  /// Sends what may leave.
  void flush();
  /// What became of a forwarded command. Nothing is evaluated yet: `resume_if_answered` follows.
  void take_answer(ForwardAnswer& answer);
  /// Goes on if it has waited for its forwarded commands and none is out any more.
  void resume_if_answered();
  /// Replies that wait for a seq in (from, to] get this error instead. If this is not the writer any more,
  /// a connection of another server is closed: its requests are decided by the log.
  void fail_waiting(backend::Seq from, backend::Seq to, std::string_view error);
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
  bool has_output() const { return !output_.empty() || has_unsent() || awaits_forwarded; }

  bool subscribe(ChannelKind kind, std::string_view channel) override;
  bool unsubscribe(ChannelKind kind, std::string_view channel) override;

  // Marks of the lists of the I/O thread.
  bool in_dirty = false, in_suspended = false, in_gated = false, in_unread = false, in_parked = false;

 private:
  void read();
  void read_more(std::size_t wanted);
  ssize_t receive(char* data, std::size_t room);
  ssize_t send_pieces(Output::Pieces& pieces);
  /// Encrypted bytes wait for the socket.
  bool has_unsent() const { return tls_ != nullptr && tls_->has_unsent(); }
  void close_broken(std::string_view why);
  void process();
  std::size_t evaluate(std::string_view bytes);
  bool must_wait();
  bool refuse_http();
  void bound_requests();
  bool take_request(resp::Writer& writer);
  bool take_behind_forwarded();
  bool forward();
  bool refuse_to_forward();
  bool drops_reply();
  bool confirms_subscription() const;
  bool refuse_ordinary_client(resp::Writer& writer);
  void after_reply(backend::Seq gate);
  void protocol_error();
  void count_subscriptions();
  bool over_output_limit();

  void show_output();

  IoThread* io_;
  int socket_;                          // -1 once it is closed
  std::unique_ptr<TlsConnection> tls_;  // null on a connection without TLS
  resp::RequestParser parser_;
  std::string input_;  // a request that is not whole yet, or must wait
  Output output_;
  bool readable_ = false;    // the socket may have bytes that have not been read
  bool peer_ended_ = false;  // it will send no more: read until its end
  bool closing_ = false;     // nothing more is read; closed when the output is out
  Admission admission_ = Admission::everyone;
  std::int64_t parked_since_ms_ = 0;  // a request waits for a commit before it is forwarded; 0: none
  bool counts_as_client_ = true;
  std::unique_ptr<PendingReplies> pending_;  // made with the first forwarded command
  std::int64_t over_soft_limit_since_ms_ = 0;
};

}  // namespace isthmus
