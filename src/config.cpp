// Reads flags, environment and config file. CLI11 parses the command line and writes the help; the values of
// all three sources go through the same setters.
#include "src/config.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <memory>
#include <stdexcept>
#include <string_view>
#include <thread>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <arpa/inet.h>
#include <netinet/in.h>

#include "src/config_file.hpp"
#include "src/config_options.hpp"

namespace isthmus {
namespace {

constexpr std::uint32_t kMaxThreads = 64;  // far beyond what one shared keyspace can use
constexpr std::uint32_t kMaxDefaultThreads =
    8;  // more I/O threads rarely pay, and the machine has other work
constexpr std::int64_t kMaxPatienceMs = 3'600'000;  // of other waits than that for a commit
// A server that was away for a moment must find in the log what it missed, or it reads all state anew.
constexpr std::int64_t kMinLogRetentionS = 10;
constexpr std::uint64_t kMinBulkBytes = 1 << 20;  // Redis's lower bound for proto-max-bulk-len

// --- Setters: from the text of a value to the structure.

std::int64_t whole_number(const std::string& text, std::int64_t lowest, std::int64_t highest) {
  const auto number = parse_option_integer(text);
  if (!number || *number < lowest || *number > highest) {
    throw BadConfig("'" + text + "' is not a whole number from " + std::to_string(lowest) + " to " +
                    std::to_string(highest));
  }
  return *number;
}

template <typename T>
Setter number(T Config::*member, std::int64_t lowest, std::int64_t highest) {
  return [=](Config& config, const std::string& text) {
    config.*member = static_cast<T>(whole_number(text, lowest, highest));
  };
}

Setter memory_bytes(std::uint64_t Config::*member, std::uint64_t lowest) {
  return [=](Config& config, const std::string& text) {
    const auto bytes = parse_memory_bytes(text);
    if (!bytes) throw BadConfig("'" + text + "' is not a size such as 100mb, 1gb or 4096");
    if (*bytes < lowest)
      throw BadConfig("'" + text + "' is too small, at least " + std::to_string(lowest) + " bytes");
    config.*member = *bytes;
  };
}

std::int64_t duration_ms(const std::string& text, std::int64_t bare_unit_ms, std::int64_t lowest_ms,
                         std::int64_t highest_ms, const char* examples) {
  const auto duration = parse_duration_ms(text, bare_unit_ms);
  if (!duration || *duration < lowest_ms || *duration > highest_ms) {
    throw BadConfig("'" + text + "' is not a duration such as " + examples + ", from " +
                    std::to_string(lowest_ms) + " to " + std::to_string(highest_ms) + " ms");
  }
  return *duration;
}

Setter whole_seconds(std::uint32_t Config::*member) {
  return [=](Config& config, const std::string& text) {
    constexpr std::int64_t kHighestMs = 1000LL * std::numeric_limits<std::int32_t>::max();
    const std::int64_t duration = duration_ms(text, 1000, 0, kHighestMs, "300 or 300s or 5m");
    if (duration % 1000 != 0) throw BadConfig("'" + text + "' is not a whole number of seconds");
    config.*member = static_cast<std::uint32_t>(duration / 1000);
  };
}

void set_commit_timeout(Config& config, const std::string& text) {
  config.commit_timeout_ms =
      duration_ms(text, 1, kMinCommitTimeoutMs, kMaxCommitTimeoutMs, "5000 or 500ms or 5s");
}

void set_bind(Config& config, const std::string& text) {
  std::vector<std::string> addresses = split_list(text);
  if (addresses.empty()) throw BadConfig("wants at least one address, as 127.0.0.1 or 0.0.0.0,::");
  for (std::string& address : addresses) {
    // Redis's words for "everywhere".
    if (address == "*") address = "0.0.0.0";
    if (address == "::*") address = "::";
  }
  config.bind = std::move(addresses);
}

void set_backend(Config& config, const std::string& text) {
  constexpr std::string_view kSqlite = "sqlite:";
  const bool sqlite = text.starts_with(kSqlite) && text.size() > kSqlite.size();
  // A URL of another kind may carry a password, so the text stays out of the line.
  // What libpq takes: a URI, or keywords with values (`host=… dbname=…`).
  const bool postgresql = text.starts_with("postgresql://") || text.starts_with("postgres://") ||
                          (text.find('=') != std::string::npos && text.find(':') > text.find('='));
  if (!sqlite && !postgresql && text != "memory:") {
    throw BadConfig("the backend is memory:, sqlite:PATH or postgresql://HOST/DATABASE");
  }
  config.backend = text;
}

// Whether an address means "everywhere": one to listen on, where nobody can connect from elsewhere.
bool is_wildcard(std::string host) {
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  in_addr four{};
  in6_addr six{};
  if (host == "*") return true;
  // As resolvers read it: 0 and 0.0 are 0.0.0.0 too.
  if (::inet_aton(host.c_str(), &four) != 0) return four.s_addr == INADDR_ANY;
  if (::inet_pton(AF_INET6, host.c_str(), &six) != 1) return false;
  constexpr std::array<std::uint8_t, 16> kAnyOfFour{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
  return IN6_IS_ADDR_UNSPECIFIED(&six) || std::memcmp(&six, kAnyOfFour.data(), kAnyOfFour.size()) == 0;
}

void set_advertise(Config& config, const std::string& text) {
  const std::size_t colon = text.rfind(':');
  const auto port = colon == std::string::npos ? std::nullopt : parse_option_integer(text.substr(colon + 1));
  if (colon == 0 || !port || *port < 1 || *port > 65535) throw BadConfig("wants HOST:PORT, as 10.0.0.7:6379");
  if (is_wildcard(text.substr(0, colon))) {
    throw BadConfig(text.substr(0, colon) + " is an address to listen on; say where this server is reached");
  }
  config.advertise = text;
}

void set_message_max_age(Config& config, const std::string& text) {
  config.message_max_age_ms = duration_ms(text, 1, 1, kMaxPatienceMs, "10000 or 500ms or 10s");
}

void set_log_retention(Config& config, const std::string& text) {
  constexpr std::int64_t kHighestMs = 1000LL * std::numeric_limits<std::int32_t>::max();
  config.log_retention_s = static_cast<std::uint32_t>(
      duration_ms(text, 1000, 1000 * kMinLogRetentionS, kHighestMs, "600 or 600s or 10m") / 1000);
}

bool is_site_name(std::string_view name) {
  constexpr std::size_t kLongest = 63;
  return !name.empty() && name.size() <= kLongest && std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

void set_site(Config& config, const std::string& text) {
  if (!is_site_name(text)) throw BadConfig("a site's name has 1 to 63 letters, digits, - and _");
  config.site = text;
}

// One or more NAME=URL, separated by blanks. The URL may hold a password, so no part of it is repeated.
void set_peers(Config& config, const std::string& text) {
  config.peers.clear();
  std::size_t at = 0;
  while ((at = text.find_first_not_of(" \t\n", at)) != std::string::npos) {
    const std::size_t end = std::min(text.find_first_of(" \t\n", at), text.size());
    const std::string word = text.substr(at, end - at);
    at = end;
    const std::size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const std::string url = equals == std::string::npos ? "" : word.substr(equals + 1);
    if (!is_site_name(name) || !(url.starts_with("postgresql://") || url.starts_with("postgres://"))) {
      throw BadConfig("wants NAME=postgresql://HOST/DATABASE, where NAME is the --site of the peer");
    }
    const auto same = [&](const Config::Peer& peer) { return peer.name == name; };
    if (std::any_of(config.peers.begin(), config.peers.end(), same)) {
      throw BadConfig("the peer '" + name + "' is given twice");
    }
    config.peers.push_back({name, url});
  }
}

void set_max_clock_skew(Config& config, const std::string& text) {
  config.max_clock_skew_ms = duration_ms(text, 1, 1, kMaxPatienceMs, "5000 or 500ms or 5s");
}

void set_tombstone_retention(Config& config, const std::string& text) {
  constexpr std::int64_t kLowestMs = 10'000, kHighestMs = 1000LL * std::numeric_limits<std::int32_t>::max();
  config.tombstone_retention_ms = duration_ms(text, 1000, kLowestMs, kHighestMs, "168h or 3600 or 60m");
}

// Whether several servers may be on this backend.
bool is_shared(const Config& config) {
  return config.backend != "memory:" && !config.backend.starts_with("sqlite:");
}

void check_sites(const Config& config) {
  if (config.peers.empty()) return;
  if (config.site.empty()) throw BadConfig("--peer: give this site a name of its own with --site");
  if (!is_shared(config)) {
    throw BadConfig("--peer: sites are linked by PostgreSQL; this backend has no links");
  }
  for (const Config::Peer& peer : config.peers) {
    if (peer.name == config.site) throw BadConfig("--peer: '" + peer.name + "' is this site itself");
  }
}

// The other servers of a site would connect to themselves.
void check_advertise(const Config& config) {
  if (!is_shared(config) || !config.advertise.empty() || !is_wildcard(config.bind.front())) return;
  throw BadConfig("--bind: the other servers on this PostgreSQL cannot connect to " + config.bind.front() +
                  ": say by --advertise HOST:PORT where they reach this one");
}

void set_publish_ack(Config& config, const std::string& text) {
  if (text != "commit" && text != "accept") throw BadConfig("wants commit or accept");
  config.publish_ack_accept = text == "accept";
}

void set_databases(Config& /*config*/, const std::string& text) {
  if (parse_option_integer(text) != kDatabases) throw BadConfig("there are always 16 databases");
}

void set_requirepass(Config& config, const std::string& text) {
  if (text.empty()) throw BadConfig("the password is empty; leave the option out for none");
  config.requirepass = text;
}

void set_requirepass_file(Config& config, const std::string& path) {
  std::ifstream file(path);
  std::string line;
  if (!file || (!std::getline(file, line) && !file.eof()))
    throw BadConfig("cannot read the file '" + path + "'");
  if (!line.empty() && line.back() == '\r') line.pop_back();
  if (line.empty()) throw BadConfig("the first line of '" + path + "' is empty; it should be the password");
  config.requirepass = line;
}

void set_output_buffer_limits(Config& config, const std::string& text) {
  const std::string wrong = parse_output_buffer_limits(text, config.client_output_buffer_limits);
  if (!wrong.empty()) throw BadConfig(wrong + " As in: pubsub 32mb 8mb 60");
}

void set_keyspace_events(Config& config, const std::string& text) {
  if (!is_keyspace_event_flags(text))
    throw BadConfig("'" + text + "' has characters other than KEg$lshzxetdmnA");
  config.notify_keyspace_events = text;
}

void set_http_port(Config& config, const std::string& text) {
  config.http_port = static_cast<std::uint16_t>(whole_number(text, 0, 65535));
}

void set_http_bind(Config& config, const std::string& text) {
  Config with;
  set_bind(with, text);
  config.http_bind = with.bind;
}

void set_log_level(Config& config, const std::string& text) {
  const auto level = log_level_from_name(text);
  if (!level) throw BadConfig("'" + text + "' is none of trace, debug, info, warning, error");
  config.log.level = *level;
}

void set_log_format(Config& config, const std::string& text) {
  if (text != "text" && text != "json") throw BadConfig("'" + text + "' is neither text nor json");
  config.log.format = text == "json" ? LogFormat::json : LogFormat::text;
}

void set_log_file(Config& config, const std::string& text) { config.log.file = text; }

// --- The table of all options.

constexpr std::int64_t kInt32Max = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kInt64Max = std::numeric_limits<std::int64_t>::max();

std::vector<OptionSpec> network_options() {
  const std::string group = "Network";
  return {
      {"port", "N", group, "TCP port; 0 takes any free one, see the log line;\noff: none without TLS [6379]",
       [](Config& config, const std::string& text) { config.port = port_or_off(text); }},
      {"bind", "ADDR,...", group, "addresses to listen on; 0.0.0.0,:: is everywhere [127.0.0.1]", set_bind},
      {"tcp-backlog", "N", group, "connections the kernel may hold for us [511]",
       number(&Config::tcp_backlog, 1, kInt32Max)},
      {"tcp-keepalive", "TIME", group, "probe silent clients this often, 0 = never [300s]",
       whole_seconds(&Config::tcp_keepalive_s)},
      {"timeout", "TIME", group, "close clients idle this long, 0 = never; not subscribers [0]",
       whole_seconds(&Config::timeout_s)},
      {"protected-mode", "yes|no", group, "without a password serve only clients of this machine [yes]",
       [](Config& config, const std::string& text) { config.protected_mode = yes_or_no(text); }},
  };
}

std::vector<OptionSpec> state_options() {
  const std::string group = "State";
  return {
      {"backend", "URL", group,
       "where state lives: sqlite:PATH, postgresql://USER@HOST/DATABASE\n"
       "(or another connection string of libpq), or memory: (gone when\nthe server ends) [sqlite:isthmus.db]",
       set_backend},
      {"commit-timeout", "TIME", group, "how long a write waits for a backend that is down [5s]",
       set_commit_timeout},
      {"databases", "16", group, "for Redis's sake: there are always 16", set_databases},
  };
}

std::vector<OptionSpec> site_options() {
  const std::string group = "Several servers on one PostgreSQL";
  return {
      {"advertise", "HOST:PORT", group,
       "where the other servers reach this one; needed where --bind is\n0.0.0.0 or :: [bind and port]",
       set_advertise},
      {"message-max-age", "TIME", group, "messages that come later are not delivered [10s]",
       set_message_max_age},
      {"publish-ack", "WHEN", group, "PUBLISH is answered at commit or at accept [commit]", set_publish_ack},
      {"log-retention", "TIME", group, "rows stay in the log for so long, at least [600s]",
       set_log_retention},
  };
}

std::vector<OptionSpec> links_options() {
  const std::string group = "Several data centers";
  return {
      {"site", "NAME", group, "the name of this site, the same on all of its servers", set_site},
      {"peer", "NAME=URL", group,
       "another site and its PostgreSQL, as ours reaches it; once for each\npeer (in the environment and the "
       "file: separated by blanks)",
       set_peers, 1, true},
      {"tombstone-retention", "TIME", group,
       "a peer that is away for longer copies the state when it comes\nback; deletions are remembered for it "
       "until then [168h]",
       set_tombstone_retention},
      {"max-clock-skew", "TIME", group, "clocks of sites may differ by so much [5s]", set_max_clock_skew},
  };
}

std::vector<OptionSpec> client_options() {
  const std::string group = "Clients";
  return {
      {"requirepass", "TEXT", group,
       "the password that clients must give (AUTH);\nanyone who can list processes sees it, so better:",
       set_requirepass},
      {"requirepass-file", "FILE", group, "the same, from the first line of a file", set_requirepass_file},
      {"maxclients", "N", group, "connections at a time [10000]", number(&Config::maxclients, 1, kInt32Max)},
      {"proto-max-bulk-len", "SIZE", group, "the longest value a client may send [512mb]",
       memory_bytes(&Config::proto_max_bulk_bytes, kMinBulkBytes)},
      {"client-output-buffer-limit", "CLASS HARD SOFT TIME", group,
       "what may wait for a client that does not read: it is closed\n"
       "beyond HARD, or beyond SOFT for TIME seconds\n[pubsub 32mb 8mb 60]",
       set_output_buffer_limits, 12},
      {"notify-keyspace-events", "FLAGS", group, "keyspace events to publish, as in Redis; AKE is all [none]",
       set_keyspace_events},
  };
}

std::vector<OptionSpec> resource_options() {
  const std::string group = "Resources";
  return {
      {"threads", "N", group, "I/O threads, 1 to 64 [the cores, at most 8]",
       number(&Config::threads, 1, kMaxThreads)},
      {"maxmemory", "SIZE", group, "refuse writes beyond this much memory, 0 = no limit [0]",
       memory_bytes(&Config::maxmemory_bytes, 0)},
  };
}

std::vector<OptionSpec> observe_options() {
  const std::string group = "Watching it";
  return {
      {"http-port", "N", group, "HTTP port of /healthz, /readyz and /metrics; 0 takes any\nfree one [none]",
       set_http_port},
      {"http-bind", "ADDR,...", group, "addresses of that port [as --bind]", set_http_bind},
      {"log-level", "LEVEL", group, "trace, debug, info, warning or error [info]", set_log_level},
      {"log-format", "FORMAT", group, "text, or json with one object a line [text]", set_log_format},
      {"log-file", "FILE", group, "append log lines to this file [stderr]", set_log_file},
      {"slowlog-log-slower-than", "US", group,
       "SLOWLOG keeps commands that take more microseconds than\nthis, -1 = none [10000]",
       number(&Config::slowlog_log_slower_than_us, -1, kInt64Max)},
      {"slowlog-max-len", "N", group, "and at most so many of them [128]",
       number(&Config::slowlog_max_len, 0, kInt32Max)},
  };
}

std::vector<OptionSpec> all_options() {
  std::vector<OptionSpec> all;
  for (auto& part : {network_options(), tls_options(), state_options(), site_options(), links_options(),
                     client_options(), resource_options(), observe_options()}) {
    all.insert(all.end(), part.begin(), part.end());
  }
  return all;
}

// --- The three sources. Each gives {name: (value, place)}; the one asked first wins.

struct Setting {
  std::string value;
  std::string place;  // begins the error line, as `--port` or `isthmus.conf:3: port`
};
using Settings = std::map<std::string, Setting>;

std::string environment_name(const std::string& option) {
  std::string name = "ISTHMUS_";
  for (const char c : option) {
    name += c == '-' ? '_' : static_cast<char>(c >= 'a' && c <= 'z' ? c - ('a' - 'A') : c);
  }
  return name;
}

std::optional<Setting> from_environment(const std::string& option, const Environment& environment) {
  const std::string name = environment_name(option);
  const char* const value = environment(name.c_str());
  if (value == nullptr || *value == '\0') return std::nullopt;
  if (option == "port" && std::string_view(value).starts_with("tcp://")) return std::nullopt;
  return Setting{value, name};
}

Settings from_file(const std::string& path, const std::vector<OptionSpec>& options) {
  std::ifstream file(path);
  if (!file || file.peek() == std::ifstream::traits_type::eof()) {
    // A folder opens, and shows only when it is read that it cannot be.
    if (!file.is_open() || file.bad() || !file.eof())
      throw BadConfig("cannot read the config file '" + path + "'");
  }
  Settings settings;
  try {
    for (ConfigFileEntry& entry : read_config_file(file)) {
      const std::string place = path + ":" + std::to_string(entry.line) + ": " + entry.name;
      const auto known = [&](const OptionSpec& option) { return option.name == entry.name; };
      if (std::none_of(options.begin(), options.end(), known)) throw BadConfig(place + ": no such option");
      if (!settings.try_emplace(entry.name, Setting{std::move(entry.value), place}).second) {
        throw BadConfig(place + ": given twice");
      }
    }
  } catch (const ConfigFileError& error) {
    throw BadConfig(path + ":" + std::to_string(error.line) + ": " + error.what());
  }
  return settings;
}

// The password has two names. The source that ranks higher wins, as with any other option; one source may not
// use both.
enum class Source { flag, environment, file };

struct Found {
  Setting setting;
  Source source = Source::flag;
};

void settle_password(std::map<std::string, Found>& found) {
  const auto plain = found.find("requirepass");
  const auto file = found.find("requirepass-file");
  if (plain == found.end() || file == found.end()) return;
  if (plain->second.source == file->second.source) {
    throw BadConfig(file->second.setting.place + ": give either this or requirepass");
  }
  found.erase(plain->second.source < file->second.source ? file : plain);
}

std::uint32_t default_threads() {
  return std::clamp<std::uint32_t>(std::thread::hardware_concurrency(), 1, kMaxDefaultThreads);
}

// --- The command line.

constexpr const char* kDescription =
    "Isthmus is a Redis server whose state lives in SQL. Applications use it by their Redis URL.\n";

constexpr const char* kFooter =
    "Each option can also be set by the environment (ISTHMUS_PORT for --port, ISTHMUS_LOG_LEVEL for "
    "--log-level)\n"
    "or in the config file (a line such as port = 6379). A flag wins over the environment, and that over the "
    "file.\n"
    "SIZE: bytes, or 100mb, 1gb (kb = 1024, k = 1000). TIME: 300, 300s, 500ms, 5m.\n"
    "\n"
    "Examples:\n"
    "  isthmus                                      state in ./isthmus.db, port 6379, this machine only\n"
    "  isthmus --port 7000 --backend memory:        nothing is kept\n"
    "  isthmus --bind 0.0.0.0 --requirepass-file /etc/isthmus/password --backend "
    "sqlite:/var/lib/isthmus/state.db";

class CommandLine {
 public:
  explicit CommandLine(const std::vector<OptionSpec>& options) : app_(kDescription, "isthmus") {
    app_.get_formatter()->column_width(36);
    app_.footer(kFooter);
    app_.set_help_flag("-h,--help", "print this and exit")->group("General");
    app_.set_version_flag("-v,--version", "isthmus " ISTHMUS_VERSION, "print the version and exit")
        ->group("General");
    app_.add_flag(
            "--print-admin-sql", print_admin_sql_,
            "print what a superuser runs once in PostgreSQL 15 so that\n--peer needs no superuser, and exit")
        ->group("General");
    add({"config", "FILE", "General", "read options from this file", nullptr});
    for (const OptionSpec& option : options) add(option);
    app_.allow_extras();
  }

  // Null if the command line is fine, else what to do instead.
  std::optional<ParsedConfig> parse(int argc, const char* const* argv) {
    try {
      app_.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      return ParsedConfig{std::nullopt, 0, help()};
    } catch (const CLI::CallForVersion& version) {
      return ParsedConfig{std::nullopt, 0, std::string(version.what()) + "\n"};
    } catch (const CLI::ParseError& error) {
      throw BadConfig(error.what());
    }
    refuse_extras();
    return std::nullopt;
  }

  bool print_admin_sql() const { return print_admin_sql_; }

  std::optional<Setting> setting(const std::string& name) const {
    const CLI::Option* const option = app_.get_option("--" + name);
    if (option->count() == 0) return std::nullopt;
    std::string joined;
    for (const std::string& word : option->reduced_results()) joined += (joined.empty() ? "" : " ") + word;
    return Setting{joined, "--" + name};
  }

 private:
  // CLI11's help without the second blank line that it puts between groups.
  std::string help() const {
    std::string text = app_.help();
    for (std::size_t at = text.find("\n\n\n"); at != std::string::npos; at = text.find("\n\n\n", at))
      text.erase(at, 1);
    return text;
  }

  void add(const OptionSpec& spec) {
    // The values are taken from the option itself, so the variable that CLI11 wants to fill is a throw-away.
    CLI::Option* option = nullptr;
    if (spec.repeats) {
      option = app_.add_option("--" + spec.name, unused_words_, spec.help)
                   ->expected(1, kMaxRepeats)
                   ->allow_extra_args(false);
    } else if (spec.max_words == 1) {
      // Said twice, the later one holds, so that a wrapper's options can be overridden by appending.
      option = app_.add_option("--" + spec.name, unused_word_, spec.help)
                   ->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    } else {
      option = app_.add_option("--" + spec.name, unused_words_, spec.help)->expected(1, spec.max_words);
    }
    option->type_name(spec.type)->group(spec.group);
  }

  // An unknown option is named, but only up to its `=`; a bare word is not repeated at all, as it may belong
  // to a password.
  void refuse_extras() const {
    const std::vector<std::string> extras = app_.remaining();
    for (const std::string& extra : extras) {
      if (extra.starts_with("-") && extra.size() > 1) {
        throw BadConfig(extra.substr(0, extra.find('=')) + ": no such option");
      }
    }
    if (!extras.empty())
      throw BadConfig("a word on the command line belongs to no option; quote values with blanks");
  }

  static constexpr int kMaxRepeats = 256;
  bool print_admin_sql_ = false;
  std::string unused_word_;
  std::vector<std::string> unused_words_;
  CLI::App app_;
};

// Picks each option's value from the source that ranks highest.
std::map<std::string, Found> find_all(const std::vector<OptionSpec>& options, const CommandLine& flags,
                                      const Environment& environment, const Settings& file) {
  std::map<std::string, Found> found;
  for (const OptionSpec& option : options) {
    if (auto flag = flags.setting(option.name)) {
      found[option.name] = {*flag, Source::flag};
    } else if (auto variable = from_environment(option.name, environment)) {
      found[option.name] = {*variable, Source::environment};
    } else if (const auto entry = file.find(option.name); entry != file.end()) {
      found[option.name] = {entry->second, Source::file};
    }
  }
  return found;
}

ParsedConfig parse_or_throw(int argc, const char* const* argv, const Environment& environment) {
  const std::vector<OptionSpec> options = all_options();
  CommandLine flags(options);
  if (auto instead = flags.parse(argc, argv)) return *std::move(instead);

  Config config;
  config.print_admin_sql = flags.print_admin_sql();
  config.threads = default_threads();
  auto config_file = flags.setting("config");
  if (!config_file) config_file = from_environment("config", environment);
  Settings file;
  if (config_file) {
    config.config_file = config_file->value;
    file = from_file(config.config_file, options);
  }

  auto found = find_all(options, flags, environment, file);
  settle_password(found);
  for (const OptionSpec& option : options) {
    const auto entry = found.find(option.name);
    if (entry == found.end()) continue;
    try {
      option.set(config, entry->second.setting.value);
    } catch (const BadConfig& error) {
      throw BadConfig(entry->second.setting.place + ": " + error.what());
    }
  }
  check_sites(config);
  check_advertise(config);
  if (!found.contains("tls-replication")) config.tls.replication = !config.port && is_shared(config);
  check_tls(config, is_shared(config));
  return {std::move(config), 0, {}};
}

}  // namespace

const char* process_environment(const char* name) {
  // Nothing here changes the environment, so reading it is safe in any thread.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  return std::getenv(name);
}

ParsedConfig parse_config(int argc, const char* const* argv, const Environment& environment) {
  try {
    return parse_or_throw(argc, argv, environment);
  } catch (const BadConfig& error) {
    std::string line = error.what();
    std::replace(line.begin(), line.end(), '\n', ' ');
    return {std::nullopt, 1, "isthmus: " + line + "\n"};
  }
}

}  // namespace isthmus
