#include "src/tls/connection.hpp"

#include <algorithm>
#include <cerrno>
#include <utility>

#include <openssl/err.h>
#include <sys/socket.h>

#include "src/tls/openssl.hpp"

namespace isthmus {
namespace {

// So much is encrypted at a time; more waits, not encrypted, with whoever sends.
constexpr std::size_t kBatchBytes = 64 << 10;
constexpr std::size_t kKeepCapacity = 16 << 10;
// OpenSSL reads on by itself behind records without data (KeyUpdate, or ClientHello once more). One call
// takes so much of them: a peer that sends nothing else would keep the thread for ever.
constexpr std::size_t kReadBeyondRoom = 256 << 10;
// Some of those records are answered, and nobody asks whether the answers are read. When so much of them
// waits, they are not.
constexpr std::size_t kUnreadAnswersBytes = 256 << 10;

}  // namespace

/// The socket as OpenSSL sees it (BIO_meth_new(3)).
struct TlsSocketBio {
  static TlsConnection& owner(BIO* bio) { return *static_cast<TlsConnection*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* data, int size) {
    TlsConnection& connection = owner(bio);
    BIO_clear_retry_flags(bio);
    if (connection.budget_ == 0) {
      connection.cut_ = true;
      BIO_set_retry_read(bio);
      return -1;
    }
    ssize_t got = 0;
    do {
      got = ::recv(connection.socket_, data, static_cast<std::size_t>(size), 0);
    } while (got < 0 && errno == EINTR);
    connection.drained_ = got < size;
    connection.ended_ |= got == 0;
    connection.heard_ |= got > 0;
    if (got > 0) connection.budget_ -= std::min(connection.budget_, static_cast<std::size_t>(got));
    if (got < 0 && errno == EAGAIN) BIO_set_retry_read(bio);
    return static_cast<int>(got);
  }

  static int write(BIO* bio, const char* data, int size) {
    owner(bio).unsent_.append(data, static_cast<std::size_t>(size));
    return size;
  }

  static long control(BIO* bio, int command, long /*number*/, void* /*pointer*/) {
    if (command == BIO_CTRL_FLUSH) return 1;
    if (command == BIO_CTRL_EOF) return owner(bio).ended_ ? 1 : 0;
    return 0;
  }

  static BIO* make(TlsConnection& connection) {
    // Lives as long as the process.
    static BIO_METHOD* const method = [] {
      BIO_METHOD* made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "isthmus socket");
      BIO_meth_set_read(made, read);
      BIO_meth_set_write(made, write);
      BIO_meth_set_ctrl(made, control);
      return made;
    }();
    BIO* bio = BIO_new(method);
    BIO_set_data(bio, &connection);
    BIO_set_init(bio, 1);
    return bio;
  }
};

TlsConnection::TlsConnection(ssl_st* ssl, int socket, TlsStats& stats)
    : ssl_(ssl), socket_(socket), stats_(&stats) {
  attach();
  SSL_set_accept_state(ssl_);
}

TlsConnection::TlsConnection(ssl_st* ssl, int socket, Judge judge)
    : ssl_(ssl), socket_(socket), judge_(std::move(judge)) {
  attach();
  SSL_set_connect_state(ssl_);
}

TlsConnection::~TlsConnection() {
  if (stats_ != nullptr && established_) stats_->connections.fetch_sub(1, std::memory_order_relaxed);
  SSL_free(ssl_);
}

void TlsConnection::attach() {
  BIO* bio = TlsSocketBio::make(*this);
  SSL_set_bio(ssl_, bio, bio);
}

int TlsConnection::shake_hands() {
  if (established_) return 1;
  if (!error_.empty()) return refuse(error_);
  allow_reading(0);
  const int result = SSL_do_handshake(ssl_);
  push();
  if (result != 1) return explain(result);
  if (judge_) {
    const Openssl<X509> certificate(SSL_get1_peer_certificate(ssl_));
    std::string why = certificate ? judge_(*certificate) : "there is no certificate";
    if (!why.empty()) return refuse(std::move(why));
  }
  established_ = true;
  if (stats_ != nullptr) {
    stats_->handshakes.fetch_add(1, std::memory_order_relaxed);
    stats_->connections.fetch_add(1, std::memory_order_relaxed);
  }
  return 1;
}

ssize_t TlsConnection::receive(char* data, std::size_t room) {
  if (!established_ && shake_hands() != 1) return error_.empty() && ended_ ? 0 : -1;
  allow_reading(room);
  const ssize_t size = read_records(data, room);
  // What OpenSSL answers by itself, such as an alert or new keys.
  const int error = errno;
  if (has_unsent()) push();
  if (error_.empty() && unsent_.size() - sent_ > kUnreadAnswersBytes) {
    refuse("the peer does not read what TLS answers");
    if (size <= 0) return -1;  // behind data it shows itself in the next call
  }
  errno = error;
  return size;
}

void TlsConnection::allow_reading(std::size_t room) {
  budget_ = room + kReadBeyondRoom;
  cut_ = false;
}

ssize_t TlsConnection::read_records(char* data, std::size_t room) {
  if (!error_.empty()) return refuse(error_);
  std::size_t size = 0;
  while (size < room) {
    std::size_t part = 0;
    const int result = SSL_read_ex(ssl_, data + size, room - size, &part);
    size += part;
    if (result == 1) {
      // What the socket gets from now on it announces.
      if (size < room && drained_ && SSL_has_pending(ssl_) == 0) break;
      continue;
    }
    explain(result);
    if (size == 0 && (errno == EAGAIN || !error_.empty())) return -1;
    break;  // an end shows itself in the next call
  }
  return static_cast<ssize_t>(size);
}

ssize_t TlsConnection::send(const iovec* parts, std::size_t count) {
  if (!established_ && shake_hands() != 1) return -1;
  if (!push()) return -1;
  std::size_t taken = 0;
  for (std::size_t i = 0; i < count && taken < kBatchBytes; ++i) {
    const std::size_t size = std::min(parts[i].iov_len, kBatchBytes - taken);
    std::size_t part = 0;
    if (size == 0) continue;
    const int result = SSL_write_ex(ssl_, parts[i].iov_base, size, &part);
    if (result != 1) return explain(result);
    taken += part;
  }
  push();
  return static_cast<ssize_t>(taken);
}

// Sends what waits. False, with errno, if something is left.
bool TlsConnection::push() {
  while (has_unsent()) {
    const ssize_t size =
        ::send(socket_, unsent_.data() + sent_, unsent_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (size < 0 && errno == EINTR) continue;
    if (size < 0) {
      // Answers can be added to a rest that never gets empty; what was sent must not stay in front of it.
      if (sent_ > kBatchBytes) unsent_.erase(0, std::exchange(sent_, 0));
      return false;
    }
    sent_ += static_cast<std::size_t>(size);
  }
  unsent_.clear();
  sent_ = 0;
  if (unsent_.capacity() > kKeepCapacity) unsent_.shrink_to_fit();
  return true;
}

int TlsConnection::explain(int result) {
  const int error = errno;
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      errno = EAGAIN;
      return -1;
    case SSL_ERROR_ZERO_RETURN:
      ended_ = true;
      errno = ECONNRESET;
      return -1;
    case SSL_ERROR_SYSCALL:
      ERR_clear_error();
      ended_ = true;
      errno = error != 0 && error != EAGAIN ? error : ECONNRESET;
      return -1;
    default:
      break;
  }
  const std::string why = take_openssl_error();
  return refuse(verdict_.empty() ? why : verdict_);
}

int TlsConnection::refuse(std::string why) {
  error_ = std::move(why);
  ended_ = true;
  errno = EPROTO;
  return -1;
}

int note_tls_verdict(int accepted, x509_store_ctx_st* chain) {
  if (accepted == 1) return accepted;
  const auto* ssl =
      static_cast<const SSL*>(X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const X509* refused = X509_STORE_CTX_get_current_cert(chain);
  std::string& verdict = TlsSocketBio::owner(SSL_get_rbio(ssl)).verdict_;
  verdict = X509_verify_cert_error_string(X509_STORE_CTX_get_error(chain));
  if (refused == nullptr) return accepted;
  verdict += " (" + subject_of(*refused);
  const X509* shown = X509_STORE_CTX_get0_cert(chain);
  if (shown != nullptr && shown != refused) verdict += ", of " + subject_of(*shown);
  verdict += ")";
  return accepted;
}

// SSL_shutdown must not be called after a fatal error (SSL_shutdown(3)).
void TlsConnection::finish() {
  if (!established_ || !error_.empty()) return;
  SSL_shutdown(ssl_);
  ERR_clear_error();
  push();
}

}  // namespace isthmus
