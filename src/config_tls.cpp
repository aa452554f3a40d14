// The options of TLS, under Redis's names
// (https://redis.io/docs/latest/operate/oss_and_stack/management/security/encryption/).
#include <algorithm>

#include "src/config_options.hpp"
#include "src/config_values.hpp"

namespace isthmus {
namespace {

Setter tls_text(std::string TlsConfig::*member) {
  return [=](Config& config, const std::string& text) { config.tls.*member = text; };
}

void set_auth_clients(Config& config, const std::string& text) {
  if (text == "optional") {
    config.tls.auth_clients = TlsClientAuth::optional;
  } else if (text == "yes" || text == "no") {
    config.tls.auth_clients = text == "yes" ? TlsClientAuth::yes : TlsClientAuth::no;
  } else {
    throw BadConfig("'" + text + "' is none of yes, no, optional");
  }
}

// Redis takes TLSv1 and TLSv1.1 as well.
void set_protocols(Config& config, const std::string& text) {
  TlsConfig& tls = config.tls;
  tls.tls12 = tls.tls13 = false;
  for (const std::string& word : split_list(text)) {
    const bool is12 = word == "TLSv1.2" || word == "tlsv1.2", is13 = word == "TLSv1.3" || word == "tlsv1.3";
    if (!is12 && !is13) throw BadConfig("'" + word + "' is neither TLSv1.2 nor TLSv1.3");
    tls.tls12 |= is12;
    tls.tls13 |= is13;
  }
  if (!tls.tls12 && !tls.tls13) throw BadConfig("wants TLSv1.2, TLSv1.3 or both");
}

}  // namespace

bool yes_or_no(const std::string& text) {
  if (text != "yes" && text != "no") throw BadConfig("'" + text + "' is neither yes nor no");
  return text == "yes";
}

std::optional<std::uint16_t> port_or_off(const std::string& text) {
  if (text == "off") return std::nullopt;
  const auto port = parse_option_integer(text);
  if (!port || *port < 0 || *port > 65535) {
    throw BadConfig("'" + text + "' is neither a whole number from 0 to 65535 nor off");
  }
  return static_cast<std::uint16_t>(*port);
}

std::vector<OptionSpec> tls_options() {
  const std::string group = "TLS";
  return {
      {"tls-port", "N", group, "TCP port for TLS; 0 takes any free one, off: none [off]",
       [](Config& config, const std::string& text) { config.tls.port = port_or_off(text); }},
      {"tls-cert-file", "FILE", group,
       "this server's certificate (PEM), then those between it and its\nauthority; files are read again when "
       "they change, and on SIGHUP",
       tls_text(&TlsConfig::cert_file)},
      {"tls-key-file", "FILE", group, "its private key (PEM)", tls_text(&TlsConfig::key_file)},
      {"tls-key-file-pass", "TEXT", group, "the password of that file, if it has one",
       tls_text(&TlsConfig::key_file_pass)},
      {"tls-ca-cert-file", "FILE", group, "who signs certificates of clients and of other servers (PEM)",
       tls_text(&TlsConfig::ca_cert_file)},
      {"tls-ca-cert-dir", "DIR", group, "the same as a folder, made by openssl rehash",
       tls_text(&TlsConfig::ca_cert_dir)},
      {"tls-auth-clients", "yes|no|optional", group, "whether clients must show a certificate [yes]",
       set_auth_clients},
      {"tls-protocols", "LIST", group, "what is spoken [TLSv1.2 TLSv1.3]", set_protocols, 2},
      {"tls-ciphers", "LIST", group, "for TLS 1.2, as openssl-ciphers(1) has it",
       tls_text(&TlsConfig::ciphers)},
      {"tls-ciphersuites", "LIST", group, "the same for TLS 1.3", tls_text(&TlsConfig::ciphersuites)},
      {"tls-replication", "yes|no", group,
       "the site's other servers reach this one by its TLS port\n[no; yes if --port is off]",
       [](Config& config, const std::string& text) { config.tls.replication = yes_or_no(text); }},
  };
}

void check_tls(const Config& config, bool shared) {
  const TlsConfig& tls = config.tls;
  const bool has_authority = !tls.ca_cert_file.empty() || !tls.ca_cert_dir.empty();
  if (!config.port && !tls.port) throw BadConfig("--port: off, and without --tls-port nobody could connect");
  if (tls.cert_file.empty() != tls.key_file.empty()) {
    throw BadConfig("--tls-cert-file and --tls-key-file: give both or neither");
  }
  if (tls.port && tls.cert_file.empty()) {
    throw BadConfig("--tls-port: give a certificate with --tls-cert-file and --tls-key-file");
  }
  if (tls.port && *tls.port != 0 && tls.port == config.port) {
    throw BadConfig("--tls-port: " + std::to_string(*tls.port) + " is the port without TLS already");
  }
  if (tls.port && tls.auth_clients != TlsClientAuth::no && !has_authority) {
    throw BadConfig(
        "--tls-auth-clients: give --tls-ca-cert-file or --tls-ca-cert-dir to check the certificates of "
        "clients, "
        "or say no");
  }
  if (tls.replication && !tls.port) throw BadConfig("--tls-replication: give a port with --tls-port");
  if (tls.replication && !has_authority) {
    throw BadConfig(
        "--tls-replication: give --tls-ca-cert-file or --tls-ca-cert-dir to check the certificates of the "
        "other "
        "servers");
  }
  if (shared && !config.port && !tls.replication) {
    throw BadConfig("--tls-replication: with --port off, other servers reach this one by TLS only; say yes");
  }
}

}  // namespace isthmus
