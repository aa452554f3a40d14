// Certificates of a test: an authority, and what it signs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tests/support/temp_folder.hpp"

struct x509_st;
struct evp_pkey_st;

namespace isthmus::test {

/// A certificate and its key, in PEM files.
struct Identity {
  std::string cert_file, key_file;
};

/// A certificate authority with a folder of its own, which other users may read. Throws std::runtime_error.
class Authority {
 public:
  explicit Authority(const std::string& name = "authority");
  ~Authority();
  Authority(const Authority&) = delete;
  Authority& operator=(const Authority&) = delete;

  /// The authority's own certificate.
  std::string file() const { return folder_.file("ca.crt"); }
  /// Its name in a folder of authorities, without the number behind it (openssl-rehash(1)).
  std::string subject_hash() const;
  /// A file in the authority's folder.
  std::string path(const std::string& name) const { return folder_.file(name); }

  struct Wish {
    std::string name;                     ///< common name; the files are called so too
    std::vector<std::string> dns, ips;    ///< what else it names
    std::int64_t valid_from_s = -86'400;  ///< from now
    std::int64_t valid_until_s = 86'400;
    std::string key_password;  ///< of the file with the key; empty: it is not encrypted
  };
  /// A new certificate for servers and clients. Files of that name are replaced one after the other.
  Identity issue(const Wish& wish) const;
  Identity issue(const std::string& name) const { return issue(Wish{name, {"localhost"}, {"127.0.0.1"}}); }
  Identity issue_expired(const std::string& name) const {
    return issue(Wish{name, {"localhost"}, {"127.0.0.1"}, -86'400, -3'600});
  }

 private:
  TempFolder folder_;
  std::unique_ptr<evp_pkey_st, void (*)(evp_pkey_st*)> key_;
  std::unique_ptr<x509_st, void (*)(x509_st*)> certificate_;
};

}  // namespace isthmus::test
