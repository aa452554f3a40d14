// What the files of this folder need of OpenSSL: owners for its objects, its errors as one line.
#pragma once

#include <memory>
#include <string>

#include <openssl/ssl.h>
#include <openssl/x509v3.h>

namespace isthmus {

struct FreeOpenssl {
  void operator()(SSL* ssl) const { SSL_free(ssl); }
  void operator()(SSL_CTX* context) const { SSL_CTX_free(context); }
  void operator()(X509* certificate) const { X509_free(certificate); }
  void operator()(GENERAL_NAMES* names) const { GENERAL_NAMES_free(names); }
};
template <class Object>
using Openssl = std::unique_ptr<Object, FreeOpenssl>;

/// The reason of the oldest error that OpenSSL has noted in this thread since the last call, and forgets
/// them.
std::string take_openssl_error();

/// A certificate's subject as one line, such as `CN=server,O=Example`.
std::string subject_of(const X509& certificate);

}  // namespace isthmus
