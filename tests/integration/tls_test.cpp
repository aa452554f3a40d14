// Clients over TLS: what a plain connection can do, who is let in, and how certificates are replaced.
#include <csignal>
#include <filesystem>
#include <memory>
#include <regex>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ssl.h>

#include "tests/support/client.hpp"
#include "tests/support/http_client.hpp"
#include "tests/support/server.hpp"
#include "tests/support/tls_server.hpp"
#include "tests/support/tls_tunnel.hpp"

namespace isthmus::test {
namespace {

using testing::HasSubstr;

/// A server with a TLS port, beside the plain one, whose certificate an authority of this test has signed.
class Tls : public testing::Test {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  Server& start(std::vector<std::string> more = {"--tls-auth-clients", "no"}) {
    const std::vector<std::string> options = tls_options(authority_, identity_);
    more.insert(more.begin(), options.begin(), options.end());
    server_ = std::make_unique<Server>(ServerOptions{.more = std::move(more)});
    return *server_;
  }
  /// A connection over TLS; the tunnel lives as long as the test.
  Client connect(const Identity& identity = {}, int version = 0, int protocol = 2) {
    tunnels_.push_back(std::make_unique<TlsTunnel>(tls_port(*server_),
                                                   TlsTunnel::Options{authority_.file(), identity, version}));
    return Client(Client::Connected{tunnels_.back()->take_socket()}, protocol);
  }
  /// Whether somebody with this certificate is let in.
  bool lets_in(const Identity& identity, int version = 0) {
    try {
      return connect(identity, version).call({"PING"}).text == "PONG";
    } catch (const std::exception&) {
      return false;
    }
  }
  /// The name in the certificate that new connections see.
  std::string server_name() {
    return TlsTunnel(tls_port(*server_), {authority_.file(), {}, 0}).server_name();
  }
  std::string info(const std::string& field) {
    Client client(server_->port());
    return info_field(client, "tls", field).value_or("");
  }
  bool logs(const std::string& text) { return server_->process().await_output(text).has_value(); }

  Authority authority_;
  Identity identity_ = authority_.issue("server");
  std::unique_ptr<Server> server_;
  std::vector<std::unique_ptr<TlsTunnel>> tunnels_;
};

TEST_F(Tls, ServesWhatAPlainConnectionHas) {
  start();
  std::vector<Client> clients;
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    clients.push_back(connect({}, version, 3));
    Client& client = clients.back();
    EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
    const std::string large(5 << 20, 'x');
    EXPECT_EQ(client.call({"SET", "large", large}).text, "OK");
    EXPECT_EQ(client.call({"GET", "large"}).text, large);
    std::string pipeline;
    constexpr int kRequests = 20'000;
    for (int i = 0; i < kRequests; ++i) pipeline += resp::encode_request({"ECHO", std::to_string(i)});
    client.send_raw(pipeline);
    for (int i = 0; i < kRequests; ++i) ASSERT_EQ(client.read().text, std::to_string(i));
  }
  EXPECT_EQ(info("tls_connected_clients"), "2");
  EXPECT_EQ(info("tls_handshakes"), "2");
}

TEST_F(Tls, CarriesMessagesBetweenBothPorts) {
  Server& server = start();
  Client plain(server.port()), secured = connect(), watcher = connect();
  plain.subscribe("SUBSCRIBE", {"news"});
  secured.subscribe("PSUBSCRIBE", {"n*"});
  EXPECT_EQ(watcher.call({"MONITOR"}).text, "OK");
  Client publisher = connect();
  const std::string payload(100'000, 'm');
  EXPECT_EQ(publisher.call({"PUBLISH", "news", payload}).integer, 2);
  EXPECT_EQ(plain.next_message().payload, payload);
  EXPECT_EQ(secured.next_message().payload, payload);
  EXPECT_THAT(watcher.read().text, HasSubstr("\"PUBLISH\" \"news\""));
}

TEST_F(Tls, AnswersWhoSaysFarewellAfterItsRequests) {
  start();
  Client client = connect();
  std::string pipeline;
  for (int i = 0; i < 1000; ++i) pipeline += resp::encode_request({"INCR", "n"});
  client.send_raw(pipeline);
  client.finish_sending();
  for (int i = 1; i <= 1000; ++i) ASSERT_EQ(client.read().integer, i);
  EXPECT_TRUE(client.closed_within());
}

TEST_F(Tls, ClosesASubscriberThatDoesNotRead) {
  Server& server = start({"--tls-auth-clients", "no", "--client-output-buffer-limit", "pubsub 4mb 0 0"});
  Client slow = connect(), publisher(server.port());
  slow.subscribe("SUBSCRIBE", {"c"});
  const std::string payload(1 << 20, 'p');
  EXPECT_TRUE(eventually([&] { return publisher.call({"PUBLISH", "c", payload}).integer == 0; }));
  EXPECT_TRUE(logs("client-output-buffer-limit"));
  EXPECT_TRUE(slow.closed_within());
}

TEST_F(Tls, WantsACertificateOfClients) {
  const Authority stranger("stranger");
  for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    start({});  // with a log of its own, of which no more than five of these lines come in a second
    EXPECT_TRUE(lets_in(authority_.issue("client"), version));
    EXPECT_FALSE(lets_in({}, version));
    EXPECT_TRUE(logs("peer did not return a certificate"));
    EXPECT_FALSE(lets_in(stranger.issue("nobody"), version));
    EXPECT_TRUE(logs("unable to get local issuer certificate (CN=nobody)"));
    EXPECT_FALSE(lets_in(authority_.issue_expired("late"), version));
    EXPECT_TRUE(logs("certificate has expired (CN=late)"));
    EXPECT_TRUE(eventually([&] { return info("tls_failed_handshakes") == "3"; }));
  }
}

TEST_F(Tls, TakesClientsWithoutACertificateIfThatIsOptional) {
  start({"--tls-auth-clients", "optional"});
  EXPECT_TRUE(lets_in({}));
  EXPECT_TRUE(lets_in(authority_.issue("client")));
  EXPECT_FALSE(lets_in(Authority("stranger").issue("nobody")));
}

TEST_F(Tls, TakesAFolderOfAuthorities) {
  // The name of the file is the hash of the subject, as openssl rehash makes it.
  const std::string folder = authority_.path("trusted");
  std::filesystem::create_directory(folder);
  std::filesystem::copy_file(authority_.file(), folder + "/" + authority_.subject_hash() + ".0");
  server_ = std::make_unique<Server>(
      ServerOptions{.more = {"--tls-port", "0", "--tls-cert-file", identity_.cert_file, "--tls-key-file",
                             identity_.key_file, "--tls-ca-cert-dir", folder}});
  EXPECT_TRUE(lets_in(authority_.issue("client")));
  EXPECT_FALSE(lets_in({}));
}

TEST_F(Tls, SpeaksTheProtocolsOfTlsProtocols) {
  start({"--tls-auth-clients", "no", "--tls-protocols", "TLSv1.3"});
  EXPECT_TRUE(lets_in({}, TLS1_3_VERSION));
  EXPECT_FALSE(lets_in({}, TLS1_2_VERSION));
  EXPECT_TRUE(logs("unsupported protocol"));
}

TEST_F(Tls, AgreesOnTheCiphersThatTheOptionsName) {
  Server& server = start({"--tls-auth-clients", "no", "--tls-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384",
                          "--tls-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256"});
  const auto cipher = [&](int version) {
    return TlsTunnel(tls_port(server), {authority_.file(), {}, version}).cipher();
  };
  EXPECT_EQ(cipher(TLS1_2_VERSION), "ECDHE-ECDSA-AES256-GCM-SHA384");
  EXPECT_EQ(cipher(TLS1_3_VERSION), "TLS_CHACHA20_POLY1305_SHA256");
}

TEST_F(Tls, TakesAKeyWithAPassword) {
  identity_ = authority_.issue({"locked", {"localhost"}, {"127.0.0.1"}, -60, 86'400, "open sesame"});
  start({"--tls-auth-clients", "no", "--tls-key-file-pass", "open sesame"});
  EXPECT_EQ(server_name(), "locked");
  EXPECT_THAT(server_->log(), testing::Not(HasSubstr("sesame")));
}

TEST_F(Tls, ShowsItsMetrics) {
  Server& server = start({"--tls-auth-clients", "no", "--http-port", "0"});
  Client one = connect(), two = connect();
  // With its answer the handshake is done and counted at the other end, too.
  for (Client* client : {&one, &two}) EXPECT_EQ(client->call({"PING"}).text, "PONG");
  EXPECT_FALSE(lets_in({}, TLS1_1_VERSION));
  EXPECT_TRUE(logs("unsupported protocol"));
  const std::string metrics = http_get(http_port(server), "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("\nisthmus_tls_connections 2\n"));
  EXPECT_THAT(metrics, HasSubstr("\nisthmus_tls_handshakes_total 2\n"));
  EXPECT_THAT(metrics, HasSubstr("\nisthmus_tls_handshake_failures_total 1\n"));
  EXPECT_THAT(metrics, HasSubstr("\nisthmus_tls_files_stale 0\n"));
  EXPECT_THAT(metrics, HasSubstr("\nisthmus_tls_certificate_expiry_timestamp_seconds " +
                                 info("tls_certificate_not_after") + "\n"));
}

TEST_F(Tls, RefusesOldProtocolsAndPlainRequests) {
  Server& server = start();
  EXPECT_FALSE(lets_in({}, TLS1_1_VERSION));
  EXPECT_TRUE(logs("unsupported protocol"));
  Client plain(tls_port(server));
  plain.send({"PING"});
  EXPECT_TRUE(plain.closed_within());
  EXPECT_TRUE(logs("wrong version number"));
}

TEST_F(Tls, DoesNotRenegotiate) {
  Server& server = start();
  TlsTunnel tunnel(tls_port(server), {authority_.file(), {}, TLS1_2_VERSION});
  EXPECT_FALSE(tunnel.renegotiates());
}

TEST_F(Tls, DropsWhoDoesNotFinishItsHandshake) {
  Server& server = start();
  Client silent(tls_port(server)), half(tls_port(server));
  half.send_raw(std::string("\x16\x03\x01\x02\x00\x01", 6));  // the beginning of a ClientHello
  EXPECT_TRUE(half.closed_within());
  EXPECT_TRUE(silent.closed_within());
  EXPECT_TRUE(logs("the TLS handshake took too long"));
  EXPECT_EQ(info("tls_failed_handshakes"), "1") << "who says nothing has not begun one";
}

TEST_F(Tls, TakesNewCertificatesOnSighup) {
  Server& server = start();
  Client before = connect();
  EXPECT_EQ(server_name(), "server");
  const Identity fresh = authority_.issue("fresh");
  std::filesystem::rename(fresh.key_file, identity_.key_file);
  std::filesystem::rename(fresh.cert_file, identity_.cert_file);
  server.process().signal(SIGHUP);
  EXPECT_TRUE(logs("TLS files loaded"));
  EXPECT_EQ(server_name(), "fresh");
  EXPECT_EQ(before.call({"PING"}).text, "PONG") << "connections are kept";
}

TEST_F(Tls, TakesNewCertificatesWhenTheFilesChange) {
  start();
  const Identity fresh = authority_.issue("fresh");
  std::filesystem::rename(fresh.key_file, identity_.key_file);
  std::filesystem::rename(fresh.cert_file, identity_.cert_file);
  EXPECT_TRUE(eventually([&] { return server_name() == "fresh"; }));
  EXPECT_EQ(info("tls_reload_error"), "");
}

TEST_F(Tls, KeepsItsCertificateIfTheNewOneCannotBeUsed) {
  Server& server = start();
  struct Case {
    Identity files;
    std::string cause;
  };
  const Identity other = authority_.issue("other"), expired = authority_.issue_expired("expired");
  write_file(authority_.path("rubbish"), "rubbish");
  const std::vector<Case> cases = {
      {{authority_.path("rubbish"), identity_.key_file}, "no certificate can be read"},
      {{identity_.cert_file, other.key_file}, "this is not the key of the certificate"},
      {expired, "expired at"},
  };
  const std::string certificate = read_file(identity_.cert_file), key = read_file(identity_.key_file);
  for (const Case& broken : cases) {
    write_file(identity_.cert_file, broken.files.cert_file == identity_.cert_file
                                        ? certificate
                                        : read_file(broken.files.cert_file));
    write_file(identity_.key_file,
               broken.files.key_file == identity_.key_file ? key : read_file(broken.files.key_file));
    server.process().signal(SIGHUP);
    EXPECT_TRUE(logs(broken.cause));
    EXPECT_THAT(info("tls_reload_error"), HasSubstr(broken.cause));
    EXPECT_EQ(server_name(), "server");
  }
  write_file(identity_.cert_file, certificate);
  write_file(identity_.key_file, key);
  server.process().signal(SIGHUP);
  EXPECT_TRUE(eventually([&] { return info("tls_reload_error").empty(); }));
}

TEST_F(Tls, TellsWhenTheCertificateRunsOut) {
  identity_ = authority_.issue({"server", {"localhost"}, {"127.0.0.1"}, -60, 10 * 86'400 + 3600});
  start();
  EXPECT_EQ(info("tls_certificate_days_left"), "10");
  const auto now = std::chrono::duration_cast<seconds>(std::chrono::system_clock::now().time_since_epoch());
  EXPECT_NEAR(static_cast<double>(std::stoll(info("tls_certificate_not_after"))),
              static_cast<double>(now.count() + 10 * 86'400 + 3600), 600);
}

TEST_F(Tls, StandsAloneIfThePlainPortIsOff) {
  Server& server = start({"--tls-auth-clients", "no", "--port", "off"});
  EXPECT_THROW(Client(server.port()), std::exception);
  Client client = connect();
  EXPECT_EQ(client.call({"CONFIG", "GET", "port"}).items.at(1).text, "0");
  EXPECT_EQ(client.call({"CONFIG", "GET", "tls-port"}).items.at(1).text, std::to_string(tls_port(server)));
}

TEST_F(Tls, DoesNotStartWithFilesThatItCannotUse) {
  write_file(authority_.path("rubbish"), "rubbish");
  const Identity other = authority_.issue("other");
  const std::vector<std::pair<Identity, std::string>> cases = {
      {{authority_.path("absent"), identity_.key_file},
       "--tls-cert-file: .*absent: No such file or directory"},
      {{authority_.path("rubbish"), identity_.key_file},
       "--tls-cert-file: .*rubbish: no certificate can be read"},
      {{identity_.cert_file, other.key_file},
       "--tls-key-file: .*other.key: this is not the key of the certificate"},
  };
  for (const auto& [files, line] : cases) {
    Process failing({server_binary(), "--port", "0", "--backend", "memory:", "--tls-port", "0",
                     "--tls-auth-clients", "no", "--tls-cert-file", files.cert_file, "--tls-key-file",
                     files.key_file});
    const auto ended = failing.wait();
    ASSERT_TRUE(ended.has_value());
    EXPECT_EQ(ended->code, 1);
    EXPECT_TRUE(std::regex_search(failing.output(), std::regex(line))) << failing.output();
  }
}

TEST_F(Tls, DoesNotStartWithOptionsThatOpensslCannotUse) {
  const Identity locked =
      authority_.issue({"locked", {"localhost"}, {"127.0.0.1"}, -60, 86'400, "open sesame"});
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases = {
      {{"--tls-ciphers", "NO-SUCH-CIPHER"}, "--tls-ciphers: NO-SUCH-CIPHER: no cipher match"},
      {{"--tls-ciphersuites", "NO_SUCH_SUITE"}, "--tls-ciphersuites: NO_SUCH_SUITE: no cipher match"},
      {{"--tls-cert-file", locked.cert_file, "--tls-key-file", locked.key_file, "--tls-key-file-pass",
        "shut"},
       "--tls-key-file: .*locked.key: no key can be read"},
  };
  for (const auto& [options, line] : cases) {
    std::vector<std::string> words = {
        server_binary(),      "--port", "0", "--backend", "memory:", "--tls-port", "0",
        "--tls-auth-clients", "no"};
    if (options.front() != "--tls-cert-file")
      words.insert(words.end(),
                   {"--tls-cert-file", identity_.cert_file, "--tls-key-file", identity_.key_file});
    words.insert(words.end(), options.begin(), options.end());
    Process failing(words);
    const auto ended = failing.wait();
    ASSERT_TRUE(ended.has_value());
    EXPECT_EQ(ended->code, 1);
    EXPECT_TRUE(std::regex_search(failing.output(), std::regex(line))) << failing.output();
    EXPECT_THAT(failing.output(), testing::Not(HasSubstr("shut")));
  }
}

TEST_F(Tls, ServesRedisCli) {
  Server& server = start({});
  const Identity client = authority_.issue("client");
  const auto run = [&](const Identity& identity, const std::string& authority) {
    std::vector<std::string> line = {"redis-cli",
                                     "-p",
                                     std::to_string(tls_port(server)),
                                     "--tls",
                                     "--cacert",
                                     authority,
                                     "--cert",
                                     identity.cert_file,
                                     "--key",
                                     identity.key_file,
                                     "SET",
                                     "k",
                                     "v"};
    Process cli(line);
    cli.wait();
    return cli.output();
  };
  EXPECT_EQ(run(client, authority_.file()), "OK\n");
  const Authority stranger("stranger");
  EXPECT_THAT(run(client, stranger.file()), HasSubstr("certificate verify failed"));
  EXPECT_TRUE(logs("unknown ca"));
  EXPECT_EQ(run(stranger.issue("nobody"), authority_.file()).find("OK"), std::string::npos);
}

}  // namespace
}  // namespace isthmus::test
