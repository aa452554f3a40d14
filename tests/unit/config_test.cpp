// Options from flags, environment and file: names, precedence, and the one line that each mistake gets.
#include "src/config.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

class ConfigTest : public testing::Test {
 protected:
  ConfigTest() {
    std::string name = (std::filesystem::temp_directory_path() / "isthmus-config-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
  }
  ~ConfigTest() override { std::filesystem::remove_all(folder_); }

  std::string write_file(const std::string& name, const std::string& content) const {
    const std::string path = folder_ / name;
    std::ofstream(path, std::ios::binary) << content;
    return path;
  }

  ParsedConfig parse(std::vector<std::string> words) const {
    words.insert(words.begin(), "isthmus");
    std::vector<const char*> argv;
    for (const std::string& word : words) argv.push_back(word.c_str());
    const auto environment = [this](const char* name) -> const char* {
      const auto found = environment_.find(name);
      return found == environment_.end() ? nullptr : found->second.c_str();
    };
    return parse_config(static_cast<int>(argv.size()), argv.data(), environment);
  }

  Config accepted(const std::vector<std::string>& words) const {
    ParsedConfig parsed = parse(words);
    EXPECT_EQ(parsed.message, "");
    return parsed.config.value_or(Config{});
  }

  // The error line; checks that it is exactly one, with exit code 1.
  std::string refused(const std::vector<std::string>& words) const {
    const ParsedConfig parsed = parse(words);
    EXPECT_FALSE(parsed.config.has_value());
    EXPECT_EQ(parsed.exit_code, 1);
    EXPECT_EQ(parsed.message.find('\n'), parsed.message.size() - 1) << parsed.message;
    EXPECT_EQ(parsed.message.rfind("isthmus: ", 0), 0U) << parsed.message;
    return parsed.message;
  }

  std::filesystem::path folder_;
  std::map<std::string, std::string> environment_;
};

TEST_F(ConfigTest, HasRedisDefaults) {
  const Config config = accepted({});
  EXPECT_EQ(config.port, 6379);
  EXPECT_THAT(config.bind, ElementsAre("127.0.0.1"));
  EXPECT_EQ(config.backend, "sqlite:isthmus.db");
  EXPECT_EQ(config.requirepass, "");
  EXPECT_GE(config.threads, 1U);
  EXPECT_LE(config.threads, 8U);
  EXPECT_EQ(config.maxclients, 10'000U);
  EXPECT_EQ(config.maxmemory_bytes, 0U);
  EXPECT_EQ(config.commit_timeout_ms, 5000);
  EXPECT_EQ(config.proto_max_bulk_bytes, 536'870'912U);
  EXPECT_EQ(config.timeout_s, 0U);
  EXPECT_EQ(config.tcp_backlog, 511U);
  EXPECT_EQ(config.tcp_keepalive_s, 300U);
  EXPECT_EQ(config.notify_keyspace_events, "");
  EXPECT_EQ(config.client_output_buffer_limits, OutputBufferLimits{});
  EXPECT_EQ(config.slowlog_log_slower_than_us, 10'000);
  EXPECT_EQ(config.slowlog_max_len, 128U);
  EXPECT_EQ(config.advertise, "");
  EXPECT_EQ(config.message_max_age_ms, 10'000);
  EXPECT_FALSE(config.publish_ack_accept);
  EXPECT_EQ(config.log_retention_s, 600U);
  EXPECT_EQ(config.log.level, LogLevel::info);
  EXPECT_EQ(config.log.format, LogFormat::text);
  EXPECT_EQ(config.log.file, "");
}

TEST_F(ConfigTest, ReadsEveryFlag) {
  const Config config = accepted({"--port",
                                  "0",
                                  "--bind",
                                  "127.0.0.1,::1",
                                  "--backend=memory:",
                                  "--requirepass",
                                  "-pass word",
                                  "--threads",
                                  "64",
                                  "--maxclients",
                                  "7",
                                  "--maxmemory",
                                  "100mb",
                                  "--commit-timeout",
                                  "500ms",
                                  "--databases",
                                  "16",
                                  "--proto-max-bulk-len",
                                  "1mb",
                                  "--timeout",
                                  "5m",
                                  "--tcp-backlog",
                                  "9",
                                  "--tcp-keepalive",
                                  "0",
                                  "--notify-keyspace-events",
                                  "AKE",
                                  "--client-output-buffer-limit",
                                  "pubsub",
                                  "1mb",
                                  "512kb",
                                  "5",
                                  "--slowlog-log-slower-than",
                                  "-1",
                                  "--slowlog-max-len",
                                  "0",
                                  "--log-level",
                                  "trace",
                                  "--log-format",
                                  "json",
                                  "--log-file",
                                  "a b.log"});
  EXPECT_EQ(config.port, 0);
  EXPECT_THAT(config.bind, ElementsAre("127.0.0.1", "::1"));
  EXPECT_EQ(config.backend, "memory:");
  EXPECT_EQ(config.requirepass, "-pass word");
  EXPECT_EQ(config.threads, 64U);
  EXPECT_EQ(config.maxclients, 7U);
  EXPECT_EQ(config.maxmemory_bytes, 104'857'600U);
  EXPECT_EQ(config.commit_timeout_ms, 500);
  EXPECT_EQ(config.proto_max_bulk_bytes, 1'048'576U);
  EXPECT_EQ(config.timeout_s, 300U);
  EXPECT_EQ(config.tcp_backlog, 9U);
  EXPECT_EQ(config.tcp_keepalive_s, 0U);
  EXPECT_EQ(config.notify_keyspace_events, "AKE");
  EXPECT_EQ(config.client_output_buffer_limits.pubsub, (OutputBufferLimit{1 << 20, 1 << 19, 5}));
  EXPECT_EQ(config.slowlog_log_slower_than_us, -1);
  EXPECT_EQ(config.slowlog_max_len, 0U);
  EXPECT_EQ(config.log.level, LogLevel::trace);
  EXPECT_EQ(config.log.format, LogFormat::json);
  EXPECT_EQ(config.log.file, "a b.log");
}

TEST_F(ConfigTest, ReadsWhatSeveralServersNeed) {
  const Config config = accepted({"--advertise", "[fd00::7]:6380", "--message-max-age", "500ms",
                                  "--publish-ack", "accept", "--log-retention", "10m"});
  EXPECT_EQ(config.advertise, "[fd00::7]:6380");
  EXPECT_EQ(config.message_max_age_ms, 500);
  EXPECT_TRUE(config.publish_ack_accept);
  EXPECT_EQ(config.log_retention_s, 600U);
  EXPECT_FALSE(accepted({"--publish-ack", "commit"}).publish_ack_accept);
  EXPECT_EQ(accepted({"--log-retention", "10"}).log_retention_s, 10U);
  environment_ = {{"ISTHMUS_ADVERTISE", "db.example.org:6379"}};
  EXPECT_EQ(accepted({}).advertise, "db.example.org:6379");
}

// Other servers of the site would connect to themselves.
TEST_F(ConfigTest, AdvertisesNoAddressThatMeansEverywhere) {
  const std::vector<std::string> shared = {"--backend", "postgresql:///x"};
  const auto with = [&](std::vector<std::string> words) {
    words.insert(words.end(), shared.begin(), shared.end());
    return words;
  };
  for (const char* bind : {"0.0.0.0", "*", "::", "::*", "0", "0:0::0", "0.0.0.0,10.0.0.7"}) {
    EXPECT_THAT(refused(with({"--bind", bind})), HasSubstr("--advertise HOST:PORT")) << bind;
    EXPECT_EQ(accepted(with({"--bind", bind, "--advertise", "10.0.0.7:6379"})).advertise, "10.0.0.7:6379");
    accepted({"--bind", bind, "--backend", "memory:"});
    accepted({"--bind", bind});
  }
  for (const char* bind : {"127.0.0.1", "10.0.0.7,0.0.0.0", "fd00::7", "db.example.org"}) {
    EXPECT_EQ(accepted(with({"--bind", bind})).advertise, "") << bind;
  }
  environment_ = {{"ISTHMUS_BIND", "0.0.0.0"}};
  EXPECT_THAT(refused(shared), HasSubstr("--advertise HOST:PORT"));
  for (const char* address :
       {"0.0.0.0:6379", "[::]:6379", ":::6379", "*:6379", "0:6379", "[::ffff:0.0.0.0]:6379", "[::0]:1"}) {
    EXPECT_THAT(refused({"--advertise", address}), HasSubstr("say where this server is reached")) << address;
  }
}

TEST_F(ConfigTest, NamesTheSiteAndItsPeers) {
  const Config config = accepted({"--backend", "postgresql:///x", "--site", "eu-1", "--peer",
                                  "us=postgresql://u:secret@db.us/isthmus", "--peer", "ap=postgres://db.ap/x",
                                  "--max-clock-skew", "250ms"});
  EXPECT_EQ(config.site, "eu-1");
  ASSERT_EQ(config.peers.size(), 2U);
  EXPECT_EQ(config.peers[0].name, "us");
  EXPECT_EQ(config.peers[0].url, "postgresql://u:secret@db.us/isthmus");
  EXPECT_EQ(config.peers[1].name, "ap");
  EXPECT_EQ(config.max_clock_skew_ms, 250);
  environment_["ISTHMUS_PEER"] = "a=postgresql://a/x  b=postgresql://b/x";
  EXPECT_EQ(accepted({"--backend", "postgresql:///x", "--site", "c"}).peers.size(), 2U);
}

TEST_F(ConfigTest, RefusesPeersThatCannotBe) {
  const std::string peer = "us=postgresql://u:secret@db/x";
  EXPECT_THAT(refused({"--backend", "postgresql:///x", "--peer", peer}), HasSubstr("--site"));
  EXPECT_THAT(refused({"--site", "eu", "--peer", peer}), HasSubstr("PostgreSQL"));
  EXPECT_THAT(refused({"--backend", "postgresql:///x", "--site", "us", "--peer", peer}),
              HasSubstr("is this site itself"));
  EXPECT_THAT(refused({"--backend", "postgresql:///x", "--site", "eu", "--peer", peer, "--peer", peer}),
              HasSubstr("given twice"));
  for (const char* wrong :
       {"us", "us=host=x password=secret", "=postgresql://secret/x", "u s=postgresql://x"}) {
    const std::string line = refused({"--backend", "postgresql:///x", "--site", "eu", "--peer", wrong});
    EXPECT_THAT(line, HasSubstr("--peer")) << wrong;
    EXPECT_THAT(line, Not(HasSubstr("secret")));
  }
  EXPECT_THAT(refused({"--site", "e u"}), HasSubstr("letters"));
}

TEST_F(ConfigTest, TakesEveryFormOfAPostgresqlConnectionString) {
  for (const char* const url :
       {"postgresql://isthmus@db.example.org/app",
        "postgres://isthmus:hush@a:5432,b:5433/app?sslmode=require", "postgresql:///app?host=/run/postgresql",
        "host=db.example.org dbname=app password=hush", "service=isthmus"}) {
    EXPECT_EQ(accepted({"--backend", url}).backend, url);
  }
}

TEST_F(ConfigTest, SaysHowLongTheLogIsKeptAtLeast) {
  EXPECT_THAT(
      refused({"--log-retention", "9s"}),
      HasSubstr("--log-retention: '9s' is not a duration such as 600 or 600s or 10m, from 10000 to "));
}

TEST_F(ConfigTest, OutputBufferLimitIsAlsoOneQuotedWord) {
  const Config config =
      accepted({"--client-output-buffer-limit", "pubsub 33554432 8388608 60", "--port", "1"});
  EXPECT_EQ(config.client_output_buffer_limits, OutputBufferLimits{});
  EXPECT_EQ(config.port, 1);
}

TEST_F(ConfigTest, StarBindsEverywhereAsInRedis) {
  EXPECT_THAT(accepted({"--bind", "* ::*"}).bind, ElementsAre("0.0.0.0", "::"));
}

TEST_F(ConfigTest, ALaterFlagHolds) { EXPECT_EQ(accepted({"--port", "1", "--port", "2"}).port, 2); }

TEST_F(ConfigTest, FlagBeatsEnvironmentBeatsFileBeatsDefault) {
  const std::string file =
      write_file("isthmus.conf", "port = 3\nmaxclients = 3\nthreads = 3\nlog-level = error\n");
  environment_ = {{"ISTHMUS_PORT", "2"}, {"ISTHMUS_MAXCLIENTS", "2"}, {"ISTHMUS_LOG_FORMAT", ""}};
  const Config config = accepted({"--config", file, "--port", "1"});
  EXPECT_EQ(config.port, 1);
  EXPECT_EQ(config.maxclients, 2U);
  EXPECT_EQ(config.threads, 3U);
  EXPECT_EQ(config.log.level, LogLevel::error);
  EXPECT_EQ(config.log.format, LogFormat::text);
  EXPECT_EQ(config.config_file, file);
}

TEST_F(ConfigTest, ReadsTheWholeFileFormat) {
  const std::string file =
      write_file("isthmus.conf",
                 "# comment\n\nbind = [\"127.0.0.1\", \"::1\"]\nrequirepass = \"a#b c\" # secret\n"
                 "client-output-buffer-limit = pubsub 1mb 2mb 3\nbackend = 'sqlite:/a b.db'\n");
  environment_ = {{"ISTHMUS_CONFIG", file}};
  const Config config = accepted({});
  EXPECT_THAT(config.bind, ElementsAre("127.0.0.1", "::1"));
  EXPECT_EQ(config.requirepass, "a#b c");
  EXPECT_EQ(config.client_output_buffer_limits.pubsub, (OutputBufferLimit{1 << 20, 2 << 20, 3}));
  EXPECT_EQ(config.backend, "sqlite:/a b.db");
}

TEST_F(ConfigTest, NamesTheSourceOfABadValue) {
  EXPECT_THAT(refused({"--port", "70000"}),
              HasSubstr("--port: '70000' is neither a whole number from 0 to 65535 nor off"));
  EXPECT_THAT(refused({"--config", write_file("c", "\nport = x\n")}), HasSubstr("c:2: port: 'x' is neither"));
  environment_ = {{"ISTHMUS_LOG_LEVEL", "loud"}};
  EXPECT_THAT(refused({}), HasSubstr("ISTHMUS_LOG_LEVEL: 'loud' is none of"));
}

TEST_F(ConfigTest, ReadsTheOptionsOfTls) {
  const Config config = accepted({"--port",
                                  "off",
                                  "--tls-port",
                                  "6380",
                                  "--tls-cert-file",
                                  "c",
                                  "--tls-key-file",
                                  "k",
                                  "--tls-key-file-pass",
                                  "p",
                                  "--tls-ca-cert-file",
                                  "a",
                                  "--tls-ca-cert-dir",
                                  "d",
                                  "--tls-auth-clients",
                                  "optional",
                                  "--tls-protocols",
                                  "TLSv1.3",
                                  "--tls-ciphers",
                                  "HIGH",
                                  "--tls-ciphersuites",
                                  "TLS_AES_128_GCM_SHA256",
                                  "--tls-replication",
                                  "yes"});
  EXPECT_FALSE(config.port.has_value());
  EXPECT_EQ(config.tls.port, 6380);
  EXPECT_EQ(config.tls.cert_file, "c");
  EXPECT_EQ(config.tls.key_file, "k");
  EXPECT_EQ(config.tls.key_file_pass, "p");
  EXPECT_EQ(config.tls.ca_cert_file, "a");
  EXPECT_EQ(config.tls.ca_cert_dir, "d");
  EXPECT_EQ(config.tls.auth_clients, TlsClientAuth::optional);
  EXPECT_FALSE(config.tls.tls12);
  EXPECT_TRUE(config.tls.tls13);
  EXPECT_EQ(config.tls.ciphers, "HIGH");
  EXPECT_EQ(config.tls.ciphersuites, "TLS_AES_128_GCM_SHA256");
  EXPECT_TRUE(config.tls.replication);
}

TEST_F(ConfigTest, HasRedisDefaultsOfTls) {
  const Config config = accepted({});
  EXPECT_FALSE(config.tls.port.has_value());
  EXPECT_EQ(config.tls.auth_clients, TlsClientAuth::yes);
  EXPECT_TRUE(config.tls.tls12 && config.tls.tls13);
  EXPECT_FALSE(config.tls.replication);
  EXPECT_FALSE(config.tls.wanted());
  EXPECT_TRUE(config.protected_mode);
}

// Without a port of another kind, TLS is how other servers get through.
TEST_F(ConfigTest, ForwardsByTlsIfThePlainPortIsOff) {
  const std::vector<std::string> base = {"--tls-port",     "6380", "--tls-cert-file",    "c",
                                         "--tls-key-file", "k",    "--tls-ca-cert-file", "a",
                                         "--port",         "off"};
  const auto with = [&](const std::vector<std::string>& more) {
    std::vector<std::string> all = base;
    all.insert(all.end(), more.begin(), more.end());
    return all;
  };
  EXPECT_TRUE(accepted(with({"--backend", "postgresql://db/x"})).tls.replication);
  EXPECT_FALSE(accepted(with({"--backend", "memory:"})).tls.replication);
  EXPECT_THAT(refused(with({"--backend", "postgresql://db/x", "--tls-replication", "no"})),
              HasSubstr("--tls-replication: with --port off"));
}

TEST_F(ConfigTest, RefusesOptionsOfTlsThatDoNotGoTogether) {
  struct Case {
    std::vector<std::string> options;
    const char* line;
  };
  const std::vector<Case> cases = {
      {{"--port", "off"}, "--port: off, and without --tls-port nobody could connect"},
      {{"--tls-port", "6380"}, "--tls-port: give a certificate"},
      {{"--tls-cert-file", "c"}, "--tls-cert-file and --tls-key-file: give both or neither"},
      {{"--tls-port", "6379", "--tls-cert-file", "c", "--tls-key-file", "k"},
       "6379 is the port without TLS already"},
      {{"--tls-port", "6380", "--tls-cert-file", "c", "--tls-key-file", "k"}, "--tls-auth-clients: give"},
      {{"--tls-replication", "yes"}, "--tls-replication: give a port"},
      {{"--tls-port", "6380", "--tls-cert-file", "c", "--tls-key-file", "k", "--tls-auth-clients", "no",
        "--tls-replication", "yes"},
       "--tls-replication: give --tls-ca-cert-file"},
      {{"--tls-protocols", "TLSv1.1"}, "'TLSv1.1' is neither TLSv1.2 nor TLSv1.3"},
      {{"--tls-auth-clients", "maybe"}, "'maybe' is none of yes, no, optional"},
      {{"--protected-mode", "maybe"}, "'maybe' is neither yes nor no"},
  };
  for (const auto& [options, line] : cases) EXPECT_THAT(refused(options), HasSubstr(line));
}

TEST_F(ConfigTest, RefusesBadValues) {
  const std::vector<std::vector<std::string>> cases = {{"--port", "-1"},
                                                       {"--port", ""},
                                                       {"--port", "6379x"},
                                                       {"--port"},
                                                       {"--bind", " , "},
                                                       {"--threads", "0"},
                                                       {"--threads", "65"},
                                                       {"--maxclients", "0"},
                                                       {"--maxmemory", "1tb"},
                                                       {"--databases", "8"},
                                                       {"--commit-timeout", "0"},
                                                       {"--commit-timeout", "2h"},
                                                       {"--timeout", "500ms"},
                                                       {"--timeout", "-1"},
                                                       {"--tcp-backlog", "0"},
                                                       {"--proto-max-bulk-len", "1kb"},
                                                       {"--log-level", "Info"},
                                                       {"--log-format", "xml"},
                                                       {"--slowlog-max-len", "-1"},
                                                       {"--slowlog-log-slower-than", "-2"},
                                                       {"--backend", "sqlite:"},
                                                       {"--backend", "sqlite"},
                                                       {"--backend", "memory:x"},
                                                       {"--backend", "redis://host/0?db=1"},
                                                       {"--advertise", "6379"},
                                                       {"--advertise", ":6379"},
                                                       {"--advertise", "host:0"},
                                                       {"--advertise", "host:x"},
                                                       {"--advertise", ""},
                                                       {"--message-max-age", "0"},
                                                       {"--message-max-age", "1x"},
                                                       {"--publish-ack", "now"},
                                                       {"--publish-ack", ""},
                                                       {"--log-retention", "0"},
                                                       {"--log-retention", "9s"},
                                                       {"--log-retention", "9999ms"},
                                                       {"--log-retention", "x"},
                                                       {"--notify-keyspace-events", "AKQ"},
                                                       {"--requirepass", ""},
                                                       {"--client-output-buffer-limit", "pubsub", "1", "2"}};
  for (const auto& words : cases)
    EXPECT_THAT(refused(words), HasSubstr(words[0] + ": ")) << testing::PrintToString(words);
}

TEST_F(ConfigTest, RefusesUnknownOptions) {
  EXPECT_THAT(refused({"--prot", "1"}), HasSubstr("--prot: no such option"));
  EXPECT_THAT(refused({"--prot=1"}), HasSubstr("--prot: no such option"));
  EXPECT_THAT(refused({"-p", "1"}), HasSubstr("-p: no such option"));
  EXPECT_THAT(refused({"serve"}), HasSubstr("belongs to no option"));
  EXPECT_THAT(refused({"--port", "1", "2"}), HasSubstr("belongs to no option"));
  EXPECT_THAT(refused({"--config", write_file("c", "port = 1\nprot = 2\n")}),
              HasSubstr("c:2: prot: no such option"));
  EXPECT_THAT(refused({"--config", write_file("c", "config = other\n")}),
              HasSubstr("c:1: config: no such option"));
  EXPECT_THAT(refused({"--config", write_file("c", "port = 1\n\nport = 2\n")}),
              HasSubstr("c:3: port: given twice"));
  EXPECT_THAT(refused({"--config", write_file("c", "[main]\n")}), HasSubstr("c:1: sections are not used"));
}

TEST_F(ConfigTest, RefusesAFileThatItCannotRead) {
  EXPECT_THAT(refused({"--config", folder_ / "absent"}), HasSubstr("cannot read the config file"));
  EXPECT_THAT(refused({"--config", folder_}), HasSubstr("cannot read the config file"));
  EXPECT_EQ(accepted({"--config", write_file("empty", "")}).port, 6379);
}

TEST_F(ConfigTest, ReadsThePasswordFromAFile) {
  const std::string file = write_file("password", "from file\r\nsecond line\n");
  EXPECT_EQ(accepted({"--requirepass-file", file}).requirepass, "from file");
  EXPECT_EQ(accepted({"--requirepass-file", write_file("bare", "no newline")}).requirepass, "no newline");
  EXPECT_THAT(refused({"--requirepass-file", write_file("empty", "\n")}),
              HasSubstr("--requirepass-file: the first line"));
  EXPECT_THAT(refused({"--requirepass-file", write_file("void", "")}),
              HasSubstr("--requirepass-file: the first line"));
  EXPECT_THAT(refused({"--requirepass-file", folder_}), HasSubstr("cannot read"));
  EXPECT_THAT(refused({"--requirepass-file", folder_ / "absent"}), HasSubstr("cannot read"));
}

TEST_F(ConfigTest, PasswordAndPasswordFileCompeteBySource) {
  const std::string file = write_file("password", "from file\n");
  EXPECT_THAT(refused({"--requirepass", "x", "--requirepass-file", file}),
              HasSubstr("either this or requirepass"));
  environment_ = {{"ISTHMUS_REQUIREPASS", "from environment"}};
  EXPECT_EQ(accepted({"--requirepass-file", file}).requirepass, "from file");
  const std::string config = write_file("c", "requirepass-file = " + file + "\n");
  EXPECT_EQ(accepted({"--config", config}).requirepass, "from environment");
}

TEST_F(ConfigTest, NeverPrintsASecret) {
  EXPECT_THAT(refused({"--requirepass", "hush", "hush"}), Not(HasSubstr("hush")));
  EXPECT_THAT(refused({"--requirepas=hush"}), Not(HasSubstr("hush")));
  EXPECT_THAT(refused({"--requirepass", "hush", "--port", "x"}), Not(HasSubstr("hush")));
  for (const char* const url : {"postgresql://user:hush@host/db", "host=host user=user password=hush"}) {
    EXPECT_THAT(refused({"--backend", url, "--port", "x"}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--backend", url, url}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--backen", url}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({std::string("--backen=") + url}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--advertise", url}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--publish-ack", url}), Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--config", write_file("c", std::string("backend = ") + url + "\nport = x\n")}),
                Not(HasSubstr("hush")));
    EXPECT_THAT(refused({"--config", write_file("c", std::string("backend = \"") + url + "\" hush\n")}),
                Not(HasSubstr("hush")));
  }
  EXPECT_THAT(refused({"--backend", "postgresq://user:hush@host/db"}), Not(HasSubstr("hush")));
  EXPECT_THAT(refused({"--backend", "redis://user:hush@host/db?a=b"}), Not(HasSubstr("hush")));
  // Without quotes the shell makes a word of each.
  EXPECT_THAT(refused({"--backend", "host=host", "password=hush"}), Not(HasSubstr("hush")));
  EXPECT_THAT(refused({"--config", write_file("c", "requirepass = \"hush\" hush\n")}),
              Not(HasSubstr("hush")));
}

TEST_F(ConfigTest, IgnoresThePortThatKubernetesSetsForAService) {
  environment_ = {{"ISTHMUS_PORT", "tcp://10.0.0.1:6379"}};
  EXPECT_EQ(accepted({}).port, 6379);
}

TEST_F(ConfigTest, HelpAndVersionAreNoErrors) {
  environment_ = {{"ISTHMUS_PORT", "x"}};
  const ParsedConfig help = parse({"--help"});
  EXPECT_FALSE(help.config.has_value());
  EXPECT_EQ(help.exit_code, 0);
  for (const char* part :
       {"--port", "--backend", "--commit-timeout", "Network:", "ISTHMUS_PORT", "Examples:"}) {
    EXPECT_THAT(help.message, HasSubstr(part));
  }
  const ParsedConfig version = parse({"--version"});
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.message, "isthmus " ISTHMUS_VERSION "\n");
}

}  // namespace
}  // namespace isthmus
