// A peer of TLS that says much and means nothing: how long one call listens, and what it may leave unread.
#include "src/tls/connection.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include "src/tls/openssl.hpp"

namespace isthmus {
namespace {

// Both ends know one key: no certificate is needed.
constexpr unsigned int kKeySize = 32;

unsigned int show_key(SSL* /*ssl*/, const char* /*hint*/, char* identity, unsigned int room,
                      unsigned char* key, unsigned int /*key_room*/) {
  constexpr std::string_view kIdentity = "test";
  if (room <= kIdentity.size()) return 0;
  std::memcpy(identity, kIdentity.data(), kIdentity.size());
  identity[kIdentity.size()] = '\0';
  std::memset(key, 'k', kKeySize);
  return kKeySize;
}

unsigned int find_key(SSL* /*ssl*/, const char* /*identity*/, unsigned char* key, unsigned int /*room*/) {
  std::memset(key, 'k', kKeySize);
  return kKeySize;
}

Openssl<SSL> make_ssl(int version) {
  const Openssl<SSL_CTX> context(SSL_CTX_new(TLS_method()));
  SSL_CTX_set_min_proto_version(context.get(), version);
  SSL_CTX_set_max_proto_version(context.get(), version);
  SSL_CTX_set_cipher_list(context.get(), "PSK-AES128-GCM-SHA256");
  SSL_CTX_set_ciphersuites(context.get(), "TLS_AES_128_GCM_SHA256");
  SSL_CTX_set_psk_client_callback(context.get(), show_key);
  SSL_CTX_set_psk_server_callback(context.get(), find_key);
  return Openssl<SSL>(SSL_new(context.get()));
}

/// The other end of a connection: OpenSSL between buffers, which reads the socket only when it is told to.
class Peer {
 public:
  Peer(int version, int socket, bool serves) : ssl_(make_ssl(version)), socket_(socket) {
    SSL_set_bio(ssl_.get(), BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    // In TLS 1.3 a record can be padded; then fewer of them are many bytes.
    SSL_set_block_padding(ssl_.get(), 1024);
    if (serves) {
      SSL_set_accept_state(ssl_.get());
    } else {
      SSL_set_connect_state(ssl_.get());
    }
  }

  /// One step, with what has come. Whether it is done.
  bool shake_hands() {
    std::array<char, 4096> bytes;
    ssize_t size = 0;
    while ((size = ::recv(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT)) > 0) {
      BIO_write(SSL_get_rbio(ssl_.get()), bytes.data(), static_cast<int>(size));
    }
    const bool done = SSL_do_handshake(ssl_.get()) == 1;
    take_output();
    send();
    return done;
  }
  /// Sends records without data until the socket takes no more; how many bytes that were.
  std::size_t flood() {
    constexpr std::size_t kAtATime = 64 << 10;
    std::size_t sent = 0;
    for (;;) {
      while (waiting_.size() < kAtATime) say_nothing();
      const std::size_t size = send();
      if (size == 0) return sent;
      sent += size;
    }
  }
  /// Data, behind what waits already.
  void say(std::string_view data) {
    if (SSL_write(ssl_.get(), data.data(), static_cast<int>(data.size())) <= 0) fail("SSL_write");
    take_output();
  }
  /// What waits, as far as the socket takes it.
  std::size_t send() {
    const ssize_t size = ::send(socket_, waiting_.data(), waiting_.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (size <= 0) return 0;
    waiting_.erase(0, static_cast<std::size_t>(size));
    return static_cast<std::size_t>(size);
  }

 private:
  [[noreturn]] static void fail(const std::string& what) {
    throw std::runtime_error(what + ": " + take_openssl_error());
  }
  // New keys, or the wish to begin anew: OpenSSL sends that as often as one likes.
  void say_nothing() {
    const bool wanted = SSL_version(ssl_.get()) == TLS1_3_VERSION
                            ? SSL_key_update(ssl_.get(), SSL_KEY_UPDATE_NOT_REQUESTED) == 1
                            : SSL_renegotiate(ssl_.get()) == 1;
    if (!wanted || SSL_do_handshake(ssl_.get()) != 1) fail("a record without data");
    take_output();
  }
  void take_output() {
    BIO* bio = SSL_get_wbio(ssl_.get());
    char* text = nullptr;
    const long size = BIO_get_mem_data(bio, &text);
    if (size > 0) waiting_.append(text, static_cast<std::size_t>(size));
    (void)BIO_reset(bio);
  }

  Openssl<SSL> ssl_;
  int socket_;
  std::string waiting_;
};

/// A connection and its peer. In TLS 1.3 the peer is the client. In TLS 1.2 it is the server: OpenSSL lets
/// only that one send the same again and again (HelloRequest); it is answered as a client's ClientHello is.
class TlsFlood : public testing::Test {
 protected:
  ~TlsFlood() override {
    connection_.reset();
    for (const int fd : sockets_) {
      if (fd >= 0) ::close(fd);
    }
  }

  void open(int version) {
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sockets_.data()), 0);
    // The flood fits, the answers to it do not.
    set_send_buffer(sockets_[0], 64 << 10);
    set_send_buffer(sockets_[1], 256 << 10);  // Linux makes it twice as much
    SSL* ssl = make_ssl(version).release();
    SSL_set_options(ssl, SSL_OP_NO_RENEGOTIATION);
    SSL_set_read_ahead(ssl, 1);
    const bool serves = version == TLS1_3_VERSION;
    connection_ = serves ? std::make_unique<TlsConnection>(ssl, sockets_[0], stats_)
                         : std::make_unique<TlsConnection>(ssl, sockets_[0], TlsConnection::Judge());
    peer_ = std::make_unique<Peer>(version, sockets_[1], !serves);
    bool done = false;
    for (int i = 0; i < 10 && !done; ++i) {
      const bool peer_done = peer_->shake_hands();
      done = connection_->shake_hands() == 1 && peer_done;
    }
    ASSERT_TRUE(done) << connection_->error();
  }
  static void set_send_buffer(int socket, int bytes) {
    ::setsockopt(socket, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
  }
  /// One call; `error_` is its errno.
  ssize_t receive() {
    errno = 0;
    const ssize_t size = connection_->receive(data_.data(), data_.size());
    error_ = errno;
    return size;
  }
  std::string_view data(ssize_t size) const {
    return {data_.data(), static_cast<std::size_t>(std::max<ssize_t>(size, 0))};
  }

  std::array<int, 2> sockets_{-1, -1};
  TlsStats stats_;
  std::unique_ptr<TlsConnection> connection_;
  std::unique_ptr<Peer> peer_;
  std::array<char, 4096> data_;
  int error_ = 0;
};

TEST_F(TlsFlood, IsReadInPieces) {
  ASSERT_NO_FATAL_FAILURE(open(TLS1_3_VERSION));
  // More than one call reads: its room, 256 KiB, and what OpenSSL reads ahead.
  ASSERT_GT(peer_->flood(), 300U << 10);
  EXPECT_EQ(receive(), -1);
  EXPECT_EQ(error_, EAGAIN);
  EXPECT_TRUE(connection_->has_more()) << "nothing else announces what the socket still has";
  EXPECT_EQ(connection_->error(), "");

  // Data behind it arrives.
  peer_->say("at last");
  ssize_t size = -1;
  for (int i = 0; i < 100 && size < 0 && error_ == EAGAIN; ++i) {
    peer_->send();
    size = receive();
  }
  EXPECT_EQ(data(size), "at last");
  EXPECT_EQ(receive(), -1);
  EXPECT_EQ(error_, EAGAIN);
  EXPECT_FALSE(connection_->has_more()) << "now the socket is empty";
}

TEST_F(TlsFlood, EndsTheConnectionIfTheAnswersAreNotRead) {
  ASSERT_NO_FATAL_FAILURE(open(TLS1_2_VERSION));
  std::size_t flooded = 0;
  do {
    flooded += peer_->flood();
  } while (receive() == -1 && error_ == EAGAIN && flooded < 4U << 20);
  EXPECT_EQ(error_, EPROTO);
  EXPECT_EQ(connection_->error(), "the peer does not read what TLS answers");
  EXPECT_TRUE(connection_->has_more());
  EXPECT_LT(flooded, 2U << 20);
  EXPECT_EQ(receive(), -1) << "it stays so";
  EXPECT_EQ(error_, EPROTO);
}

}  // namespace
}  // namespace isthmus
