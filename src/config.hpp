// What the server can be told: flags, environment and config file, read into one plain structure.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "src/config_values.hpp"
#include "src/observe/logging.hpp"

namespace isthmus {

/// Redis's `databases`; fixed here.
inline constexpr int kDatabases = 16;

/// The bounds of `commit-timeout`, in milliseconds: without any wait each write would fail, and beyond an
/// hour no client waits.
inline constexpr std::int64_t kMinCommitTimeoutMs = 1, kMaxCommitTimeoutMs = 3'600'000;

/// Whether clients must show a certificate.
enum class TlsClientAuth : std::uint8_t { no, optional, yes };

/// The options of TLS. The same files serve clients, other servers of the site, and this server as a client
/// of those.
struct TlsConfig {
  std::optional<std::uint16_t> port;  ///< 0 means any free port; nothing: there is no port with TLS
  std::string cert_file, key_file;    ///< PEM; the certificate with those between it and its authority
  std::string key_file_pass;  ///< empty means that the key is not encrypted. Secret: never in a log line
  std::string ca_cert_file, ca_cert_dir;  ///< who may sign the certificates of clients and other servers
  TlsClientAuth auth_clients = TlsClientAuth::yes;
  bool tls12 = true, tls13 = true;    ///< the protocols that are spoken; one of them at least
  std::string ciphers, ciphersuites;  ///< OpenSSL's lists for TLS 1.2 and 1.3; empty: as OpenSSL has them
  /// Other servers of the site forward to the TLS port of this one.
  bool replication = false;

  /// Whether there is anything to load.
  bool wanted() const { return !cert_file.empty() || !ca_cert_file.empty() || !ca_cert_dir.empty(); }
};

/// Every option, with its default. Units stand last in the names.
struct Config {
  // Network.
  std::optional<std::uint16_t> port = 6379;  ///< 0 means any free port; nothing: there is none without TLS
  std::vector<std::string> bind = {"127.0.0.1"};  ///< at least one address or name to listen on, IPv4 or IPv6
  std::uint32_t tcp_backlog = 511;      ///< connections that the kernel may hold before they are accepted
  std::uint32_t tcp_keepalive_s = 300;  ///< 0 means no probes
  std::uint32_t timeout_s = 0;          ///< closes clients that are idle for so long; 0 means never
  bool protected_mode = true;           ///< without a password only clients of this machine are served
  TlsConfig tls;

  // State.
  /// `memory:`, `sqlite:PATH`, or a connection string of libpq; only its form has been checked. May hold a
  /// password: never in a log line.
  std::string backend = "sqlite:isthmus.db";
  std::int64_t commit_timeout_ms = 5000;  ///< how long a write waits for a backend that is down

  // Several servers on one PostgreSQL.
  /// host:port where the site's other servers reach this one; empty: the first of `bind`, which is no
  /// wildcard then, and the port.
  std::string advertise;
  std::int64_t message_max_age_ms = 10'000;  ///< an older message is not delivered to anybody
  bool publish_ack_accept = false;           ///< PUBLISH is answered before its message is in the log
  std::uint32_t log_retention_s = 600;       ///< rows are kept in the log for so long behind the checkpoint

  // Several data centers.
  std::string site;  ///< this site's name; empty: it has none, and no peers
  struct Peer {
    std::string name;
    std::string url;  ///< of its PostgreSQL, as this site's PostgreSQL reaches it. May hold a password
  };
  std::vector<Peer> peers;
  /// A peer that has said nothing for so long loses its slot and its claim on tombstones here.
  std::int64_t tombstone_retention_ms = 7LL * 24 * 3600 * 1000;
  std::int64_t max_clock_skew_ms = 5000;  ///< a version further ahead of our clock does not move it

  // Clients.
  std::string requirepass;  ///< empty means no password. Secret: never in a log line
  std::uint32_t maxclients = 10'000;
  std::uint64_t proto_max_bulk_bytes = 512ULL << 20;
  OutputBufferLimits client_output_buffer_limits;
  std::string notify_keyspace_events;  ///< Redis's flag characters; checked, but in the order in which they
                                       ///< were given

  // Resources.
  std::uint32_t threads = 1;          ///< I/O threads; parse_config's default is the cores, at most 8
  std::uint64_t maxmemory_bytes = 0;  ///< 0 means no limit

  // Watching it.
  LogOptions log;
  std::int64_t slowlog_log_slower_than_us = 10'000;  ///< negative means no slow log
  std::uint32_t slowlog_max_len = 128;

  std::optional<std::uint16_t> http_port;  ///< of probes and metrics; 0 means any free port; nothing: none
  std::vector<std::string> http_bind;      ///< where it listens; empty: as `bind`

  std::string config_file;       ///< where part of this came from; empty if nowhere
  bool print_admin_sql = false;  ///< instead of serving (backend/postgresql_admin_sql.hpp)
};

/// The environment: the value of a variable, or a null pointer. The process's own is `process_environment`.
using Environment = std::function<const char*(const char* name)>;
const char* process_environment(const char* name);

/// What parse_config found: a configuration, or what to print and the code to leave with.
struct ParsedConfig {
  std::optional<Config> config;
  int exit_code = 0;    ///< if there is no config: 0 after --help or --version, else 1
  std::string message;  ///< for stdout if exit_code is 0 (help, version), else one line for stderr; ends with
                        ///< a newline
};

/// Reads the options of `argv` (argv[0] is skipped), then the environment (ISTHMUS_ and the option's name in
/// capitals, with _ for -), then the file that --config names: what was said first in this order holds, and
/// what nobody says has the default. Files named by --config and --requirepass-file are read here. An unknown
/// option, an unknown name in the file and a bad value end it with one line that names the place. Does not
/// print, does not exit, keeps nothing.
///
/// ISTHMUS_PORT is ignored when it begins with `tcp://`: Kubernetes sets such a variable for a service called
/// isthmus.
ParsedConfig parse_config(int argc, const char* const* argv, const Environment& environment);

}  // namespace isthmus
