// The parameters under Redis's names (https://redis.io/docs/latest/operate/oss_and_stack/management/config/).
// Those that mean nothing here show what is true of this server; setting them to that is accepted, as many
// programs do it when they start.
#include "src/command/config_parameters.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <filesystem>
#include <limits>
#include <optional>
#include <vector>

#include <sys/resource.h>
#include <unistd.h>

#include "src/command/call.hpp"
#include "src/config_values.hpp"
#include "src/observe/logging.hpp"
#include "src/site/site.hpp"

namespace isthmus {
namespace {

constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kUint32Max = std::numeric_limits<std::uint32_t>::max();
constexpr std::int64_t kMinBufferBytes = 1 << 20;

ParameterChange wrong(std::string text) { return {nullptr, std::move(text)}; }

ParameterChange out_of_range(std::int64_t min, std::int64_t max) {
  return wrong("argument must be between " + std::to_string(min) + " and " + std::to_string(max) +
               " inclusive");
}

template <class Value>
using Setting = std::atomic<Value> Settings::*;

template <class Value>
std::function<std::string(const Services&)> show_setting(Setting<Value> setting) {
  return [setting](const Services& services) { return std::to_string((services.settings.*setting).load()); };
}

// Values above what the setting can hold mean the same as the highest that it can.
template <class Value>
ParameterChange store(Setting<Value> setting, std::uint64_t value) {
  const auto highest = static_cast<std::uint64_t>(std::numeric_limits<Value>::max());
  const auto stored = static_cast<Value>(std::min(value, highest));
  return {[setting, stored](Services& services) { (services.settings.*setting).store(stored); }, {}};
}

template <class Value>
Parameter number(std::string name, Setting<Value> setting, std::int64_t min, std::int64_t max) {
  const auto read = [=](const Services&, std::string_view text) -> ParameterChange {
    const auto value = parse_integer(text);
    if (!value) return wrong("argument couldn't be parsed into an integer");
    if (*value < min || *value > max) return out_of_range(min, max);
    if (*value >= 0) return store(setting, static_cast<std::uint64_t>(*value));
    const auto stored = static_cast<Value>(*value);
    return {[=](Services& services) { (services.settings.*setting).store(stored); }, {}};
  };
  return {std::move(name), show_setting(setting), read};
}

template <class Value>
Parameter memory(std::string name, Setting<Value> setting, std::int64_t min) {
  const auto read = [=](const Services&, std::string_view text) -> ParameterChange {
    const auto bytes = parse_memory_bytes(text.empty() ? "0" : text);
    if (!bytes) return wrong("argument must be a memory value");
    constexpr auto kHighest = static_cast<std::uint64_t>(std::numeric_limits<Value>::max());
    if (*bytes < static_cast<std::uint64_t>(min) || *bytes > kHighest) {
      return wrong("argument must be between " + std::to_string(min) + " and " + std::to_string(kHighest) +
                   " inclusive");
    }
    return store(setting, *bytes);
  };
  return {std::move(name), show_setting(setting), read};
}

// In Redis's words, and as Redis does: what the limit of open files does not allow is refused.
Parameter max_clients() {
  Parameter parameter = number("maxclients", &Settings::maxclients, 1, kUint32Max);
  const auto read = parameter.read;
  parameter.read = [read](const Services& services, std::string_view text) {
    ParameterChange change = read(services, text);
    if (!change.error.empty()) return change;
    const auto wanted = static_cast<std::uint32_t>(*parse_integer(text));
    // What holds already was fitted at the start.
    if (wanted <= services.settings.maxclients.load()) return change;
    const std::uint32_t possible = clients_within_file_limit(wanted);
    if (possible >= wanted) return change;
    return wrong("The operating system is not able to handle the specified number of clients, try with " +
                 std::to_string(possible));
  };
  return parameter;
}

// A limit of packed hashes; the keyspace has its own copy, which only the holder of all locks may change.
Parameter hash_limit(std::string name, Setting<std::uint32_t> setting) {
  Parameter parameter = number(std::move(name), setting, 0, kInt64Max);
  const auto read = parameter.read;
  parameter.read = [read](const Services& services, std::string_view text) {
    ParameterChange change = read(services, text);
    if (!change.error.empty()) return change;
    change.apply = [store_setting = change.apply](Services& all) {
      store_setting(all);
      all.keyspace.set_hash_limits(
          {all.settings.hash_max_packed_fields.load(), all.settings.hash_max_packed_bytes.load()});
    };
    return change;
  };
  return parameter;
}

// A text that says something true of this server and stays as it is. `immutable`: Redis cannot change it
// while it runs either.
Parameter fixed(std::string name, std::function<std::string(const Services&)> show, bool immutable = false) {
  if (immutable) return {std::move(name), std::move(show), nullptr};
  const auto read = [show](const Services& services, std::string_view text) -> ParameterChange {
    const std::string value = show(services);
    if (lower(text) == lower(value)) return {[](Services&) {}, {}};
    return wrong("this server has only the value '" + value + "'");
  };
  return {std::move(name), show, read};
}

Parameter fixed(std::string name, std::string_view value, bool immutable = false) {
  return fixed(
      std::move(name), [value](const Services&) { return std::string(value); }, immutable);
}

std::string yes_or_no(bool value) { return value ? "yes" : "no"; }

Parameter switch_of(std::string name, Setting<bool> setting) {
  const auto show = [setting](const Services& services) {
    return yes_or_no((services.settings.*setting).load());
  };
  const auto read = [setting](const Services&, std::string_view text) -> ParameterChange {
    const std::string word = lower(text);
    if (word != "yes" && word != "no") return wrong("argument must be 'yes' or 'no'");
    return {
        [setting, value = word == "yes"](Services& services) { (services.settings.*setting).store(value); },
        {}};
  };
  return {std::move(name), show, read};
}

std::filesystem::path database_path(const Services& services) {
  constexpr std::string_view kSqlite = "sqlite:";
  const std::string& backend = services.config.backend;
  if (!backend.starts_with(kSqlite)) return {};
  std::error_code failed;
  const std::filesystem::path path = std::filesystem::absolute(backend.substr(kSqlite.size()), failed);
  return failed ? std::filesystem::path(backend.substr(kSqlite.size())) : path;
}

std::string data_folder(const Services& services) {
  const std::filesystem::path database = database_path(services);
  if (!database.empty()) return database.parent_path().string();
  std::error_code failed;
  return std::filesystem::current_path(failed).string();
}

std::string joined_addresses(const Services& services) {
  std::string text;
  for (const std::string& address : services.config.bind) text += (text.empty() ? "" : " ") + address;
  return text;
}

Parameter keyspace_events() {
  const auto show = [](const Services& services) {
    return event_flags_text(services.settings.notify_flags.load());
  };
  const auto read = [](const Services&, std::string_view text) -> ParameterChange {
    const auto flags = parse_event_flags(text);
    if (!flags) return wrong("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.");
    return {[flags](Services& services) { services.settings.notify_flags.store(*flags); }, {}};
  };
  return {"notify-keyspace-events", show, read};
}

Parameter password() {
  const auto show = [](const Services& services) { return services.settings.password(); };
  const auto read = [](const Services&, std::string_view text) -> ParameterChange {
    return {[secret = std::string(text)](Services& services) { services.settings.set_password(secret); }, {}};
  };
  return {"requirepass", show, read};
}

// Redis's names of our levels; its `debug` is the lowest. Ours for errors only has no name in Redis 7.0.
constexpr std::array<std::pair<std::string_view, LogLevel>, 4> kLogLevels = {
    {{"debug", LogLevel::trace},
     {"verbose", LogLevel::debug},
     {"notice", LogLevel::info},
     {"warning", LogLevel::warning}}};

Parameter log_level() {
  const auto show = [](const Services&) -> std::string {
    for (const auto& [name, level] : kLogLevels) {
      if (log_enabled(level)) return std::string(name);
    }
    return "warning";
  };
  const auto read = [](const Services&, std::string_view text) -> ParameterChange {
    for (const auto& [name, level] : kLogLevels) {
      if (lower(text) == name) return {[chosen = level](Services&) { set_log_level(chosen); }, {}};
    }
    return wrong("argument(s) must be one of the following: debug, verbose, notice, warning");
  };
  return {"loglevel", show, read};
}

OutputBufferLimit load(const Settings::OutputLimit& limit) {
  return {limit.hard_bytes.load(), limit.soft_bytes.load(), limit.soft_seconds.load()};
}

void save(Settings::OutputLimit& limit, const OutputBufferLimit& value) {
  limit.hard_bytes.store(value.hard_bytes);
  limit.soft_bytes.store(value.soft_bytes);
  limit.soft_seconds.store(value.soft_seconds);
}

OutputBufferLimits output_limits(const Services& services) {
  const Settings& settings = services.settings;
  return {load(settings.normal_output), load(settings.replica_output), load(settings.pubsub_output)};
}

Parameter output_buffer_limits() {
  const auto show = [](const Services& services) {
    return format_output_buffer_limits(output_limits(services));
  };
  const auto read = [](const Services& services, std::string_view text) -> ParameterChange {
    OutputBufferLimits limits = output_limits(services);
    if (text.empty()) return {[](Services&) {}, {}};
    // The option of the command line may be written with commas and more blanks; CONFIG SET may not.
    if (text.find(',') != std::string_view::npos || text.find("  ") != std::string_view::npos) {
      return wrong("Wrong number of arguments in buffer limit configuration.");
    }
    std::string error = parse_output_buffer_limits(text, limits);
    if (!error.empty()) return wrong(std::move(error));
    return {[limits](Services& all) {
              save(all.settings.normal_output, limits.normal);
              save(all.settings.replica_output, limits.replica);
              save(all.settings.pubsub_output, limits.pubsub);
            },
            {}};
  };
  return {"client-output-buffer-limit", show, read};
}

void add_settings(std::vector<Parameter>& all) {
  all.push_back(number("timeout", &Settings::timeout_s, 0, kInt32Max));
  all.push_back(number("tcp-keepalive", &Settings::tcp_keepalive_s, 0, kInt32Max));
  all.push_back(max_clients());
  all.push_back(number("slowlog-log-slower-than", &Settings::slowlog_threshold_us, -1, kInt64Max));
  all.push_back(number("slowlog-max-len", &Settings::slowlog_max_len, 0, kInt64Max));
  all.push_back(number("latency-monitor-threshold", &Settings::latency_threshold_ms, 0, kInt64Max));
  all.push_back(
      number("commit-timeout", &Settings::commit_timeout_ms, kMinCommitTimeoutMs, kMaxCommitTimeoutMs));
  all.push_back(memory("maxmemory", &Settings::maxmemory_bytes, 0));
  all.push_back(memory("proto-max-bulk-len", &Settings::proto_max_bulk_bytes, kMinBufferBytes));
  all.push_back(memory("client-query-buffer-limit", &Settings::query_buffer_limit_bytes, kMinBufferBytes));
  all.push_back(hash_limit("hash-max-listpack-entries", &Settings::hash_max_packed_fields));
  all.push_back(hash_limit("hash-max-ziplist-entries", &Settings::hash_max_packed_fields));
  all.push_back(hash_limit("hash-max-listpack-value", &Settings::hash_max_packed_bytes));
  all.push_back(hash_limit("hash-max-ziplist-value", &Settings::hash_max_packed_bytes));
  all.push_back(switch_of("protected-mode", &Settings::protected_mode));
  all.push_back(keyspace_events());
  all.push_back(password());
  all.push_back(log_level());
  all.push_back(output_buffer_limits());
}

void add_facts_of_this_process(std::vector<Parameter>& all) {
  const auto config_text = [&](std::string name, auto get, bool immutable = false) {
    all.push_back(fixed(
        std::move(name), [get](const Services& services) { return std::string(get(services)); }, immutable));
  };
  config_text("port", [](const Services& s) { return std::to_string(s.port); });
  config_text("bind", joined_addresses);
  config_text("dir", data_folder);
  config_text("dbfilename", [](const Services& s) { return database_path(s).filename().string(); });
  config_text(
      "databases", [](const Services&) { return std::to_string(kDatabaseCount); }, true);
  config_text(
      "tcp-backlog", [](const Services& s) { return std::to_string(s.config.tcp_backlog); }, true);
  config_text(
      "io-threads", [](const Services& s) { return std::to_string(s.stats.threads()); }, true);
  config_text(
      "logfile", [](const Services& s) { return s.config.log.file; }, true);
  config_text("appendonly", [](const Services& s) { return yes_or_no(s.journal.durable()); });
  config_text("appendfsync", [](const Services& s) { return s.journal.durable() ? "always" : "no"; });
  config_text(
      "backend", [](const Services& s) { return s.log.description(); }, true);
  config_text(
      "advertise",
      [](const Services& s) { return s.site != nullptr ? s.site->address() : s.config.advertise; }, true);
  config_text(
      "message-max-age", [](const Services& s) { return std::to_string(s.config.message_max_age_ms); }, true);
  config_text(
      "publish-ack", [](const Services& s) { return s.config.publish_ack_accept ? "accept" : "commit"; },
      true);
  config_text(
      "log-retention", [](const Services& s) { return std::to_string(s.config.log_retention_s); }, true);
}

// The files are read again when they change, so that there is nothing to set here. The password of the key is
// not shown.
void add_tls(std::vector<Parameter>& all) {
  const auto text = [&](std::string name, auto get) {
    all.push_back(
        fixed(std::move(name), [get](const Services& s) { return std::string(get(s.config.tls)); }));
  };
  all.push_back(fixed("tls-port", [](const Services& s) { return std::to_string(s.tls_port); }));
  text("tls-cert-file", [](const TlsConfig& tls) { return tls.cert_file; });
  text("tls-key-file", [](const TlsConfig& tls) { return tls.key_file; });
  text("tls-ca-cert-file", [](const TlsConfig& tls) { return tls.ca_cert_file; });
  text("tls-ca-cert-dir", [](const TlsConfig& tls) { return tls.ca_cert_dir; });
  text("tls-auth-clients", [](const TlsConfig& tls) {
    return tls.auth_clients == TlsClientAuth::optional ? "optional"
                                                       : yes_or_no(tls.auth_clients == TlsClientAuth::yes);
  });
  text("tls-protocols", [](const TlsConfig& tls) {
    return tls.tls12 && tls.tls13 ? "TLSv1.2 TLSv1.3" : tls.tls12 ? "TLSv1.2" : "TLSv1.3";
  });
  text("tls-ciphers", [](const TlsConfig& tls) { return tls.ciphers; });
  text("tls-ciphersuites", [](const TlsConfig& tls) { return tls.ciphersuites; });
  text("tls-replication", [](const TlsConfig& tls) { return yes_or_no(tls.replication); });
}

// In Redis's words, what this server always does or never does.
void add_constants(std::vector<Parameter>& all) {
  struct Constant {
    std::string_view name, value;
  };
  constexpr Constant kConstants[] = {
      {"active-expire-effort", "1"},
      {"activedefrag", "no"},
      {"cluster-announce-bus-port", "0"},
      {"cluster-announce-ip", ""},
      {"cluster-announce-port", "0"},
      {"disable-thp", "no"},
      {"dynamic-hz", "no"},
      {"hz", "10"},
      {"latency-tracking", "no"},
      {"lazyfree-lazy-eviction", "no"},
      {"lazyfree-lazy-expire", "no"},
      {"lazyfree-lazy-server-del", "no"},
      {"lazyfree-lazy-user-del", "no"},
      {"lazyfree-lazy-user-flush", "no"},
      {"lfu-decay-time", "1"},
      {"lfu-log-factor", "10"},
      {"masterauth", ""},
      {"masteruser", ""},
      {"maxmemory-clients", "0"},
      {"maxmemory-eviction-tenacity", "10"},
      {"maxmemory-policy", "noeviction"},
      {"maxmemory-samples", "5"},
      {"min-replicas-max-lag", "10"},
      {"min-replicas-to-write", "0"},
      {"min-slaves-max-lag", "10"},
      {"min-slaves-to-write", "0"},
      {"no-appendfsync-on-rewrite", "no"},
      {"repl-backlog-size", "0"},
      {"repl-diskless-load", "disabled"},
      {"repl-diskless-sync", "no"},
      {"repl-ping-replica-period", "10"},
      {"repl-timeout", "60"},
      {"replica-lazy-flush", "no"},
      {"replica-priority", "100"},
      {"replica-read-only", "yes"},
      {"replica-serve-stale-data", "yes"},
      {"save", ""},
      {"slave-priority", "100"},
      {"slave-read-only", "yes"},
      {"slave-serve-stale-data", "yes"},
      {"stop-writes-on-bgsave-error", "yes"},
  };
  constexpr Constant kImmutable[] = {
      {"aclfile", ""},
      {"always-show-logo", "no"},
      {"appendfilename", ""},
      {"cluster-enabled", "no"},
      {"daemonize", "no"},
      {"enable-debug-command", "yes"},
      {"enable-module-command", "no"},
      {"enable-protected-configs", "no"},
      {"io-threads-do-reads", "yes"},
      {"pidfile", ""},
      {"replicaof", ""},
      {"slaveof", ""},
      {"supervised", "no"},
      {"syslog-enabled", "no"},
      {"unixsocket", ""},
      {"unixsocketperm", "0"},
  };
  for (const Constant& constant : kConstants)
    all.push_back(fixed(std::string(constant.name), constant.value));
  for (const Constant& constant : kImmutable)
    all.push_back(fixed(std::string(constant.name), constant.value, true));
}

std::vector<Parameter> make_parameters() {
  std::vector<Parameter> all;
  add_settings(all);
  add_facts_of_this_process(all);
  add_tls(all);
  add_constants(all);
  std::sort(all.begin(), all.end(), [](const Parameter& a, const Parameter& b) { return a.name < b.name; });
  return all;
}

}  // namespace

std::uint32_t clients_within_file_limit(std::uint32_t wanted) {
  constexpr rlim_t kOwnFiles = 64;
  const rlim_t files = wanted + kOwnFiles;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= files) return wanted;
  limit.rlim_cur = std::min(files, limit.rlim_max);
  if (setrlimit(RLIMIT_NOFILE, &limit) != 0) getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur >= files) return wanted;
  return static_cast<std::uint32_t>(limit.rlim_cur - std::min(limit.rlim_cur - 1, kOwnFiles));
}

std::span<const Parameter> config_parameters() {
  static const std::vector<Parameter> parameters = make_parameters();
  return parameters;
}

const Parameter* find_parameter(std::string_view name) {
  const auto all = config_parameters();
  const std::string wanted = lower(name);
  const auto it = std::lower_bound(
      all.begin(), all.end(), wanted,
      [](const Parameter& parameter, const std::string& text) { return parameter.name < text; });
  return it != all.end() && it->name == wanted ? &*it : nullptr;
}

}  // namespace isthmus
