#include "tests/support/certificates.hpp"

#include <array>
#include <cstdio>
#include <filesystem>
#include <random>
#include <stdexcept>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

namespace isthmus::test {
namespace {

namespace fs = std::filesystem;

void check(bool good, const char* what) {
  if (!good) throw std::runtime_error(std::string("OpenSSL: ") + what);
}

void add_extension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str());
  check(extension != nullptr, value.c_str());
  X509_add_ext(certificate, extension, -1);
  X509_EXTENSION_free(extension);
}

/// A certificate without extensions and signature.
X509* make_certificate(const std::string& name, EVP_PKEY* key, std::int64_t from_s, std::int64_t until_s) {
  static std::mt19937 random(std::random_device{}());
  X509* certificate = X509_new();
  X509_set_version(certificate, 2);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), random());
  X509_gmtime_adj(X509_getm_notBefore(certificate), from_s);
  X509_gmtime_adj(X509_getm_notAfter(certificate), until_s);
  X509_set_pubkey(certificate, key);
  X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_ASC,
                             reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
  return certificate;
}

template <class Write>
void write_pem(const std::string& path, Write&& write) {
  // Beside it and then in its place: nobody reads half a file.
  const std::string fresh = path + ".new";
  std::FILE* file = std::fopen(fresh.c_str(), "w");
  check(file != nullptr && write(file) == 1, path.c_str());
  std::fclose(file);
  fs::permissions(fresh, fs::perms::owner_read | fs::perms::owner_write | fs::perms::others_read);
  fs::rename(fresh, path);
}

}  // namespace

Authority::Authority(const std::string& name)
    : key_(EVP_EC_gen("P-256"), EVP_PKEY_free),
      certificate_(make_certificate(name, key_.get(), -86'400, 86'400), X509_free) {
  X509* own = certificate_.get();
  X509_set_issuer_name(own, X509_get_subject_name(own));
  add_extension(own, own, NID_basic_constraints, "critical,CA:TRUE");
  add_extension(own, own, NID_subject_key_identifier, "hash");
  check(X509_sign(own, key_.get(), EVP_sha256()) > 0, "sign");
  // PostgreSQL runs as another user.
  fs::permissions(folder_.path(), fs::perms::owner_all | fs::perms::others_read | fs::perms::others_exec);
  write_pem(file(), [&](std::FILE* out) { return PEM_write_X509(out, own); });
}

Authority::~Authority() = default;

std::string Authority::subject_hash() const {
  std::array<char, 16> text{};
  std::snprintf(text.data(), text.size(), "%08lx", X509_subject_name_hash(certificate_.get()));
  return text.data();
}

Identity Authority::issue(const Wish& wish) const {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> certificate(
      make_certificate(wish.name, key.get(), wish.valid_from_s, wish.valid_until_s), X509_free);
  X509* made = certificate.get();
  X509_set_issuer_name(made, X509_get_subject_name(certificate_.get()));
  std::string names;
  for (const std::string& dns : wish.dns) names += (names.empty() ? "DNS:" : ",DNS:") + dns;
  for (const std::string& ip : wish.ips) names += (names.empty() ? "IP:" : ",IP:") + ip;
  if (!names.empty()) add_extension(made, certificate_.get(), NID_subject_alt_name, names);
  add_extension(made, certificate_.get(), NID_ext_key_usage, "serverAuth,clientAuth");
  check(X509_sign(made, key_.get(), EVP_sha256()) > 0, "sign");
  Identity identity{path(wish.name + ".crt"), path(wish.name + ".key")};
  write_pem(identity.key_file, [&](std::FILE* out) {
    std::string password = wish.key_password;
    if (password.empty()) return PEM_write_PrivateKey(out, key.get(), nullptr, nullptr, 0, nullptr, nullptr);
    return PEM_write_PrivateKey(out, key.get(), EVP_aes_256_cbc(),
                                reinterpret_cast<const unsigned char*>(password.data()),
                                static_cast<int>(password.size()), nullptr, nullptr);
  });
  write_pem(identity.cert_file, [&](std::FILE* out) { return PEM_write_X509(out, made); });
  return identity;
}

}  // namespace isthmus::test
