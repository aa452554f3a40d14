#include "src/tls/contexts.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <stdexcept>
#include <system_error>
#include <utility>

#include <openssl/err.h>
#include <sys/stat.h>
#include <unistd.h>

#include "src/observe/logging.hpp"
#include "src/tls/openssl.hpp"

namespace isthmus {
namespace {

constexpr int kLinesASecond = 5;

std::int64_t now_s() { return static_cast<std::int64_t>(std::time(nullptr)); }

[[noreturn]] void fail(std::string_view option, const std::string& file, const std::string& why) {
  throw std::runtime_error("--" + std::string(option) + ": " + file + ": " + why);
}

// OpenSSL's words for a file that is not there are no help.
void check_readable(std::string_view option, const std::string& file) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(file, error)) {
    fail(option, file, error ? error.message() : "this is not a file");
  }
  if (::access(file.c_str(), R_OK) != 0) fail(option, file, std::generic_category().message(errno));
}

// Without it OpenSSL would ask on the terminal.
int give_password(char* buffer, int size, int /*writes*/, void* text) {
  const auto& password = *static_cast<const std::string*>(text);
  if (password.size() > static_cast<std::size_t>(size)) return 0;
  std::memcpy(buffer, password.data(), password.size());
  return static_cast<int>(password.size());
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm broken{};
  return ASN1_TIME_to_tm(time, &broken) == 1 ? static_cast<std::int64_t>(timegm(&broken)) : 0;
}

// Empty where there is no certificate.
std::string utc_text(std::int64_t seconds) {
  if (seconds == 0) return {};
  const std::time_t time = seconds;
  std::tm broken{};
  gmtime_r(&time, &broken);
  std::array<char, 32> text;
  return {text.data(), std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &broken)};
}

std::string text_of(const ASN1_STRING& string) {
  return {reinterpret_cast<const char*>(ASN1_STRING_get0_data(&string)),
          static_cast<std::size_t>(ASN1_STRING_length(&string))};
}

// Its DNS names; for want of any, its common name (as browsers did before names were extensions).
std::vector<std::string> names_of(const X509& certificate) {
  std::vector<std::string> names;
  const Openssl<GENERAL_NAMES> all(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; all != nullptr && i < sk_GENERAL_NAME_num(all.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all.get(), i);
    if (name->type == GEN_DNS) names.push_back(text_of(*name->d.dNSName));
  }
  if (!names.empty()) return names;
  const X509_NAME* subject = X509_get_subject_name(&certificate);
  const int at = X509_NAME_get_index_by_NID(subject, NID_commonName, -1);
  if (at >= 0) names.push_back(text_of(*X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at))));
  return names;
}

bool names_host(const x509_st& certificate, const std::string& host) {
  auto* shown = const_cast<X509*>(&certificate);  // OpenSSL 3.0 takes no const here
  return X509_check_ip_asc(shown, host.c_str(), 0) == 1 ||
         X509_check_host(shown, host.data(), host.size(), 0, nullptr) == 1;
}

bool is_ip(const std::string& host) {
  ASN1_OCTET_STRING* address = a2i_IPADDRESS(host.c_str());
  ASN1_OCTET_STRING_free(address);
  return address != nullptr;
}

// What servers and clients have in common.
Openssl<SSL_CTX> make_context(const TlsConfig& config, const SSL_METHOD* method) {
  Openssl<SSL_CTX> context(SSL_CTX_new(method));
  if (context == nullptr) throw std::runtime_error("TLS: " + take_openssl_error());
  SSL_CTX* const c = context.get();
  SSL_CTX_set_min_proto_version(c, config.tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
  SSL_CTX_set_max_proto_version(c, config.tls13 ? TLS1_3_VERSION : TLS1_2_VERSION);
  // A connection that ends without a farewell has lost nothing: requests and replies tell their lengths.
  SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_IGNORE_UNEXPECTED_EOF);
  // Thousands of idle connections keep no buffers; a record is read by one call.
  SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_read_ahead(c, 1);
  // Sessions are resumed by tickets, which this server need not remember.
  SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
  if (!config.ciphers.empty() && SSL_CTX_set_cipher_list(c, config.ciphers.c_str()) != 1) {
    fail("tls-ciphers", config.ciphers, take_openssl_error());
  }
  if (!config.ciphersuites.empty() && SSL_CTX_set_ciphersuites(c, config.ciphersuites.c_str()) != 1) {
    fail("tls-ciphersuites", config.ciphersuites, take_openssl_error());
  }
  return context;
}

void use_certificate(const TlsConfig& config, SSL_CTX* context) {
  if (config.cert_file.empty()) return;
  check_readable("tls-cert-file", config.cert_file);
  check_readable("tls-key-file", config.key_file);
  SSL_CTX_set_default_passwd_cb(context, give_password);
  SSL_CTX_set_default_passwd_cb_userdata(context, const_cast<std::string*>(&config.key_file_pass));
  if (SSL_CTX_use_certificate_chain_file(context, config.cert_file.c_str()) != 1) {
    fail("tls-cert-file", config.cert_file, "no certificate can be read (" + take_openssl_error() + ")");
  }
  if (SSL_CTX_use_PrivateKey_file(context, config.key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    const bool other = ERR_GET_REASON(ERR_peek_error()) == X509_R_KEY_VALUES_MISMATCH;
    const std::string why = take_openssl_error();
    fail("tls-key-file", config.key_file,
         other ? "this is not the key of the certificate" : "no key can be read (" + why + ")");
  }
  if (SSL_CTX_check_private_key(context) != 1) {
    ERR_clear_error();
    fail("tls-key-file", config.key_file, "this is not the key of the certificate");
  }
}

void use_authorities(const TlsConfig& config, SSL_CTX* context) {
  if (!config.ca_cert_file.empty()) {
    check_readable("tls-ca-cert-file", config.ca_cert_file);
    if (SSL_CTX_load_verify_file(context, config.ca_cert_file.c_str()) != 1) {
      fail("tls-ca-cert-file", config.ca_cert_file,
           "no certificate can be read (" + take_openssl_error() + ")");
    }
  }
  if (config.ca_cert_dir.empty()) return;
  std::error_code error;
  if (!std::filesystem::is_directory(config.ca_cert_dir, error)) {
    fail("tls-ca-cert-dir", config.ca_cert_dir, error ? error.message() : "this is not a folder");
  }
  if (SSL_CTX_load_verify_dir(context, config.ca_cert_dir.c_str()) != 1) {
    fail("tls-ca-cert-dir", config.ca_cert_dir, take_openssl_error());
  }
}

Openssl<SSL_CTX> make_server_context(const TlsConfig& config) {
  Openssl<SSL_CTX> context = make_context(config, TLS_server_method());
  use_certificate(config, context.get());
  use_authorities(config, context.get());
  constexpr unsigned char kSessionContext[] = "isthmus";
  SSL_CTX_set_session_id_context(context.get(), kSessionContext, sizeof kSessionContext - 1);
  if (config.auth_clients == TlsClientAuth::no) return context;
  SSL_CTX_set_verify(
      context.get(),
      SSL_VERIFY_PEER | (config.auth_clients == TlsClientAuth::yes ? SSL_VERIFY_FAIL_IF_NO_PEER_CERT : 0),
      note_tls_verdict);
  // Clients that have several certificates choose by these names.
  if (!config.ca_cert_file.empty()) {
    SSL_CTX_set_client_CA_list(context.get(), SSL_load_client_CA_file(config.ca_cert_file.c_str()));
  }
  return context;
}

Openssl<SSL_CTX> make_client_context(const TlsConfig& config) {
  Openssl<SSL_CTX> context = make_context(config, TLS_client_method());
  use_certificate(config, context.get());
  use_authorities(config, context.get());
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_PEER, note_tls_verdict);
  return context;
}

}  // namespace

struct TlsContexts::Loaded {
  Openssl<SSL_CTX> server, client;  // null without certificate, without authorities
  std::vector<std::string> names;   // of our certificate
  std::int64_t not_before_s = 0, not_after_s = 0;
};

struct TlsContexts::FileState {
  std::int64_t changed_ns = 0;
  std::uint64_t inode = 0, size = 0;
  bool operator==(const FileState&) const = default;
};

TlsContexts::TlsContexts(const TlsConfig& config) : config_(config) {
  tried_ = seen_ = look();
  current_ = load();
  if (current_->not_after_s != 0 && current_->not_after_s <= now_s()) {
    log_warning("The TLS certificate has expired; clients will refuse it",
                {{"file", config_.cert_file}, {"not_after", utc_text(current_->not_after_s)}});
  }
}

TlsContexts::~TlsContexts() = default;

std::shared_ptr<const TlsContexts::Loaded> TlsContexts::load() const {
  auto loaded = std::make_shared<Loaded>();
  if (!config_.ca_cert_file.empty() || !config_.ca_cert_dir.empty())
    loaded->client = make_client_context(config_);
  if (config_.cert_file.empty()) return loaded;
  loaded->server = make_server_context(config_);
  const X509* own = SSL_CTX_get0_certificate(loaded->server.get());
  loaded->names = names_of(*own);
  loaded->not_before_s = seconds_of(X509_get0_notBefore(own));
  loaded->not_after_s = seconds_of(X509_get0_notAfter(own));
  STACK_OF(X509)* chain = nullptr;
  SSL_CTX_get0_chain_certs(loaded->server.get(), &chain);
  for (int i = 0; i < sk_X509_num(chain); ++i) {
    loaded->not_after_s =
        std::min(loaded->not_after_s, seconds_of(X509_get0_notAfter(sk_X509_value(chain, i))));
  }
  return loaded;
}

std::shared_ptr<const TlsContexts::Loaded> TlsContexts::current() const {
  const std::lock_guard lock(mutex_);
  return current_;
}

std::unique_ptr<TlsConnection> TlsContexts::serve(int socket) {
  SSL* ssl = SSL_new(current()->server.get());
  if (ssl == nullptr) throw std::bad_alloc();
  return std::make_unique<TlsConnection>(ssl, socket, stats_);
}

std::unique_ptr<TlsConnection> TlsContexts::connect(int socket, const std::string& host, std::string& why) {
  const std::shared_ptr<const Loaded> loaded = current();
  if (loaded->client == nullptr) {
    why = "it is reached by TLS, and this server has no --tls-ca-cert-file";
    return nullptr;
  }
  SSL* ssl = SSL_new(loaded->client.get());
  if (ssl == nullptr) throw std::bad_alloc();
  if (!is_ip(host)) SSL_set_tlsext_host_name(ssl, host.c_str());
  return std::make_unique<TlsConnection>(ssl, socket, [host, loaded](const x509_st& shown) -> std::string {
    if (names_host(shown, host)) return {};
    for (const std::string& name : names_of(shown)) {
      if (std::find(loaded->names.begin(), loaded->names.end(), name) != loaded->names.end()) return {};
    }
    return "the certificate is another's: it names neither " + host + " nor what ours names (" +
           subject_of(shown) + ")";
  });
}

std::vector<TlsContexts::FileState> TlsContexts::look() const {
  std::vector<FileState> states;
  for (const std::string& path :
       {config_.cert_file, config_.key_file, config_.ca_cert_file, config_.ca_cert_dir}) {
    struct stat found {};
    FileState& state = states.emplace_back();
    if (path.empty() || ::stat(path.c_str(), &found) != 0) continue;
    state.changed_ns = std::int64_t{found.st_mtim.tv_sec} * 1'000'000'000 + found.st_mtim.tv_nsec;
    state.inode = found.st_ino;
    state.size = static_cast<std::uint64_t>(found.st_size);
  }
  return states;
}

bool TlsContexts::reload() { return take_over(look()); }

void TlsContexts::look_at_files() {
  std::vector<FileState> files = look();
  const bool settled = files == seen_;
  seen_ = files;
  if (settled && files != tried_) take_over(std::move(files));
}

bool TlsContexts::take_over(std::vector<FileState> files) {
  tried_ = std::move(files);
  std::string error;
  std::shared_ptr<const Loaded> loaded;
  try {
    loaded = load();
    const std::int64_t now = now_s();
    if (loaded->server != nullptr && loaded->not_after_s <= now) {
      error = "--tls-cert-file: " + config_.cert_file + ": expired at " + utc_text(loaded->not_after_s);
    } else if (loaded->not_before_s > now) {
      error =
          "--tls-cert-file: " + config_.cert_file + ": not valid before " + utc_text(loaded->not_before_s);
    }
  } catch (const std::runtime_error& failure) {
    error = failure.what();
  }
  const std::lock_guard lock(mutex_);
  reload_error_ = error;
  if (!error.empty()) {
    stats_.failed_reloads.fetch_add(1);
    log_warning("The new TLS files cannot be used; what was loaded before stays", {{"cause", error}});
    return false;
  }
  current_ = std::move(loaded);
  stats_.reloads.fetch_add(1);
  log_info("TLS files loaded; new connections get them", {{"not_after", utc_text(current_->not_after_s)}});
  return true;
}

std::int64_t TlsContexts::not_after_s() const { return current()->not_after_s; }

std::string TlsContexts::reload_error() const {
  const std::lock_guard lock(mutex_);
  return reload_error_;
}

void TlsContexts::note_failed_handshake(const std::string& address, std::string_view why) {
  stats_.failed_handshakes.fetch_add(1, std::memory_order_relaxed);
  std::uint64_t unsaid = 0;
  {
    const std::lock_guard lock(mutex_);
    const std::int64_t now = now_s();
    if (now != std::exchange(window_s_, now)) lines_in_window_ = 0;
    if (lines_in_window_ >= kLinesASecond) {
      ++unsaid_;
      return;
    }
    ++lines_in_window_;
    unsaid = std::exchange(unsaid_, 0);
  }
  log_warning("A TLS handshake failed", {{"address", address}, {"cause", why}, {"more_before", unsaid}});
}

}  // namespace isthmus
