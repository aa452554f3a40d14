#include "tests/support/tls_tunnel.hpp"

#include <array>
#include <csignal>
#include <stdexcept>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isthmus::test {
namespace {

[[noreturn]] void fail(const std::string& what) {
  const char* reason = ERR_reason_error_string(ERR_peek_error());
  ERR_clear_error();
  throw std::runtime_error(what + ": " + (reason == nullptr ? "closed" : reason));
}

SSL* make_ssl(const TlsTunnel::Options& options) {
  SSL_CTX* context = SSL_CTX_new(TLS_client_method());
  if (options.version != 0) {
    SSL_CTX_set_min_proto_version(context, options.version);
    SSL_CTX_set_max_proto_version(context, options.version);
    // So that versions can be tried that the system forbids.
    SSL_CTX_set_security_level(context, 0);
  }
  if (!options.ca_file.empty()) {
    SSL_CTX_load_verify_file(context, options.ca_file.c_str());
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, nullptr);
  }
  if (!options.identity.cert_file.empty()) {
    SSL_CTX_use_certificate_chain_file(context, options.identity.cert_file.c_str());
    SSL_CTX_use_PrivateKey_file(context, options.identity.key_file.c_str(), SSL_FILETYPE_PEM);
  }
  SSL* ssl = SSL_new(context);
  SSL_CTX_free(context);
  return ssl;
}

int connect_to(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return fd;
  ::close(fd);
  throw std::runtime_error("nobody listens on the TLS port");
}

bool write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t done = ::send(fd, data, size, MSG_NOSIGNAL);
    if (done <= 0) return false;
    data += done;
    size -= static_cast<std::size_t>(done);
  }
  return true;
}

}  // namespace

TlsTunnel::TlsTunnel(int port, const Options& options) : ssl_(make_ssl(options), SSL_free) {
  std::signal(SIGPIPE, SIG_IGN);
  socket_ = connect_to(port);
  SSL_set_fd(ssl_.get(), socket_);
  if (SSL_connect(ssl_.get()) != 1) {
    ::close(socket_);
    fail("no TLS connection");
  }
  X509* shown = SSL_get1_peer_certificate(ssl_.get());
  std::array<char, 256> name{};
  X509_NAME_get_text_by_NID(X509_get_subject_name(shown), NID_commonName, name.data(), name.size());
  X509_free(shown);
  server_name_ = name.data();
}

TlsTunnel::~TlsTunnel() {
  if (thread_.joinable()) {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(stop_, &one, sizeof one);
    // The thread may be writing to somebody who does not read.
    ::shutdown(near_, SHUT_RDWR);
    ::shutdown(socket_, SHUT_RDWR);
    thread_.join();
  }
  for (const int fd : {socket_, near_, stop_}) {
    if (fd >= 0) ::close(fd);
  }
}

int TlsTunnel::take_socket() {
  std::array<int, 2> pair{};
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.data()) != 0)
    throw std::runtime_error("socketpair");
  near_ = pair[0];
  // Otherwise SSL_read would wait for data behind what only TLS has to say.
  ::fcntl(socket_, F_SETFL, ::fcntl(socket_, F_GETFL) | O_NONBLOCK);
  stop_ = ::eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { carry(); });
  return pair[1];
}

std::string TlsTunnel::cipher() const { return SSL_get_cipher_name(ssl_.get()); }

bool TlsTunnel::renegotiates() {
  // The server answers with a warning, which ends the handshake here.
  return SSL_renegotiate(ssl_.get()) == 1 && SSL_do_handshake(ssl_.get()) == 1;
}

bool TlsTunnel::encrypt(const char* data, int size) {
  for (;;) {
    const int done = SSL_write(ssl_.get(), data, size);
    if (done > 0) return true;
    if (SSL_get_error(ssl_.get(), done) != SSL_ERROR_WANT_WRITE) return false;
    std::array<pollfd, 2> files{{{socket_, POLLOUT, 0}, {stop_, POLLIN, 0}}};
    ::poll(files.data(), files.size(), -1);
    if (files[1].revents != 0) return false;
  }
}

// One direction at a time; a test's server never waits for both.
void TlsTunnel::carry() {
  std::array<char, 16384> buffer;
  bool sends = true;
  for (;;) {
    std::array<pollfd, 3> files{{{socket_, POLLIN, 0}, {sends ? near_ : -1, POLLIN, 0}, {stop_, POLLIN, 0}}};
    if (SSL_pending(ssl_.get()) == 0 && ::poll(files.data(), files.size(), -1) < 0) break;
    if (files[2].revents != 0) break;
    if (files[0].revents != 0 || SSL_pending(ssl_.get()) > 0) {
      const int size = SSL_read(ssl_.get(), buffer.data(), buffer.size());
      const int error = SSL_get_error(ssl_.get(), size);
      if (size > 0 && !write_all(near_, buffer.data(), static_cast<std::size_t>(size))) break;
      if (size <= 0 && error != SSL_ERROR_WANT_READ) break;
    }
    if (files[1].revents != 0) {
      const ssize_t size = ::recv(near_, buffer.data(), buffer.size(), 0);
      if (size > 0 && !encrypt(buffer.data(), static_cast<int>(size))) break;
      if (size <= 0) {
        sends = false;
        SSL_shutdown(ssl_.get());  // a farewell; the rest of the replies is read
      }
    }
  }
  ::shutdown(near_, SHUT_RDWR);
  ::shutdown(socket_, SHUT_RDWR);
}

}  // namespace isthmus::test
