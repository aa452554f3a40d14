// A client's end of TLS: what is written into its socket comes out at a server's TLS port.
#pragma once

#include <memory>
#include <string>
#include <thread>

#include "tests/support/certificates.hpp"

struct ssl_st;

namespace isthmus::test {

/// A TLS connection to 127.0.0.1. The handshake is done in the constructor, which throws std::runtime_error
/// with OpenSSL's reason if it fails (in TLS 1.3 a server's refusal of our certificate shows only when
/// something is read). A thread carries bytes until one side ends.
class TlsTunnel {
 public:
  struct Options {
    std::string ca_file;  ///< empty: whoever it is
    Identity identity;    ///< what we show; empty files: nothing
    int version = 0;      ///< OpenSSL's number of the only version that is spoken; 0: any
  };
  TlsTunnel(int port, const Options& options);
  ~TlsTunnel();
  TlsTunnel(const TlsTunnel&) = delete;
  TlsTunnel& operator=(const TlsTunnel&) = delete;

  /// The socket for plain bytes; belongs to the caller, and is given once.
  int take_socket();
  /// The common name in the server's certificate.
  const std::string& server_name() const { return server_name_; }
  /// OpenSSL's name of the cipher that was agreed on.
  std::string cipher() const;
  /// Whether the server lets us renegotiate. Before anything is sent, in TLS 1.2.
  bool renegotiates();

 private:
  void carry();
  bool encrypt(const char* data, int size);

  std::unique_ptr<ssl_st, void (*)(ssl_st*)> ssl_;
  std::string server_name_;
  int socket_ = -1;  // to the server
  int near_ = -1;    // ours of the pair
  int stop_ = -1;
  std::thread thread_;
};

}  // namespace isthmus::test
