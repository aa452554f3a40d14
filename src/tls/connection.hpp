// One TLS connection on a non-blocking socket.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include <sys/types.h>
#include <sys/uio.h>

struct ssl_st;
struct x509_st;
struct x509_store_ctx_st;

namespace isthmus {

/// What is counted of the connections that this server has taken. Thread-safe.
struct TlsStats {
  std::atomic<std::uint64_t> connections{0};  ///< open now, with their handshake done
  std::atomic<std::uint64_t> handshakes{0}, failed_handshakes{0};
  std::atomic<std::uint64_t> reloads{0}, failed_reloads{0};
};

/// Speaks TLS over a socket, and offers what recv(2) and sendmsg(2) offer over a plain one. OpenSSL reads
/// from the socket itself; what it writes is gathered here, so that a flush is one call however many records
/// it has, and nothing that was handed over once has to be handed over again. Renegotiation is off. Used by
/// one thread at a time, perhaps by another one later. Does not own the socket.
class TlsConnection {
 public:
  /// Says why the peer is not who it should be, after its certificate has been verified; empty: it is.
  using Judge = std::function<std::string(const x509_st& certificate)>;

  /// A connection that was taken. `stats` outlives it.
  TlsConnection(ssl_st* ssl, int socket, TlsStats& stats);
  /// One that was made. The owner of the SSL object is this from now on, as above.
  TlsConnection(ssl_st* ssl, int socket, Judge judge);
  ~TlsConnection();
  TlsConnection(const TlsConnection&) = delete;
  TlsConnection& operator=(const TlsConnection&) = delete;

  /// As recv(2). A result below `room`, or -1 with errno EAGAIN, means that nothing more has come, unless
  /// `has_more`. -1 with another errno: it is over, see `error`. Does the handshake first. One call takes
  /// `room` and some 256 KiB from the socket at most, because a peer can send records without data for ever.
  /// If it does not read what OpenSSL answers to them, the connection is refused.
  ssize_t receive(char* data, std::size_t room);
  /// As sendmsg(2): how many bytes were taken, or -1 with errno EAGAIN when the socket takes nothing now.
  /// What the socket did not take of them waits here (`has_unsent`), at most some 64 KiB. Without parts it
  /// sends just that, and then 0 means that nothing is left.
  ssize_t send(const iovec* parts, std::size_t count);
  /// Goes on with the handshake. 1 when it is done, -1 with errno as above.
  int shake_hands();

  bool established() const { return established_; }
  /// Whether the peer has said anything at all.
  bool heard() const { return heard_; }
  bool has_unsent() const { return sent_ < unsent_.size(); }
  /// Whether `receive` may give more, or the end, though the socket announces nothing.
  bool has_more() const { return cut_ || ended_ || !error_.empty(); }
  /// Why it is over; empty as long as TLS has no objection.
  const std::string& error() const { return error_; }
  /// Says farewell (close_notify) as far as the socket takes it. The socket can be closed then.
  void finish();

 private:
  friend struct TlsSocketBio;
  friend int note_tls_verdict(int accepted, x509_store_ctx_st* chain);
  void allow_reading(std::size_t room);
  ssize_t read_records(char* data, std::size_t room);
  bool push();
  /// -1, with errno for what OpenSSL says of the last call.
  int explain(int result);
  int refuse(std::string why);
  void attach();

  ssl_st* ssl_;
  int socket_;
  TlsStats* stats_ = nullptr;  // null for a connection that was made
  Judge judge_;
  bool established_ = false, heard_ = false;
  bool drained_ = false;    // the last read took all that the socket had
  bool cut_ = false;        // the last call stopped reading though the socket may have more
  bool ended_ = false;      // the peer sends no more
  std::size_t budget_ = 0;  // so much the call at hand may still read
  std::string verdict_;     // why the peer's certificate is refused
  std::string error_;
  std::string unsent_;  // [sent_, …) waits for the socket
  std::size_t sent_ = 0;
};

/// For SSL_CTX_set_verify(3), with connections of this kind: remembers which certificate is refused, and why.
int note_tls_verdict(int accepted, x509_store_ctx_st* chain);

}  // namespace isthmus
