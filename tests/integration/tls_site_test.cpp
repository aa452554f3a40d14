// TLS between the servers of a site, to PostgreSQL, and between the databases of linked sites.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"
#include "tests/support/tls_server.hpp"
#include "tests/support/tls_tunnel.hpp"

namespace isthmus::test {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class TlsSite : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  /// The options of a server that is reached by TLS only and shows this certificate to the others.
  Options secured(const Identity& identity, const Options& more = {"--port", "off"}) const {
    Options options = tls_options(authority_, identity);
    options.insert(options.end(), more.begin(), more.end());
    return options;
  }
  Client connect(Server& server) {
    tunnels_.push_back(
        std::make_unique<TlsTunnel>(tls_port(server), TlsTunnel::Options{authority_.file(), client_, 0}));
    return Client(Client::Connected{tunnels_.back()->take_socket()});
  }
  bool has_role(Server& server, const std::string& role) {
    return eventually([&] {
      Client client = connect(server);
      return info_field(client, "site", "site_role") == role;
    });
  }

  Authority authority_;
  Identity client_ = authority_.issue("client");
  std::vector<std::unique_ptr<TlsTunnel>> tunnels_;
};

TEST_F(TlsSite, ForwardsToTheWriterWithCertificatesOnBothSides) {
  PostgresCluster cluster;
  Server& writer = add_server(cluster.url(), secured(authority_.issue("one")));
  ASSERT_TRUE(has_role(writer, "writer"));
  Server& follower = add_server(cluster.url(), secured(authority_.issue("two")));
  Client there = connect(follower), here = connect(writer);
  EXPECT_EQ(there.call({"SET", "k", "v"}).text, "OK");
  EXPECT_EQ(here.call({"GET", "k"}).text, "v");
  const std::string large(3 << 20, 'x');
  EXPECT_EQ(there.call({"SET", "large", large}).text, "OK");
  EXPECT_EQ(there.call({"GETSET", "large", "small"}).text, large);
  std::string pipeline;
  for (int i = 0; i < 2000; ++i) pipeline += resp::encode_request({"INCR", "n"});
  there.send_raw(pipeline);
  for (int i = 1; i <= 2000; ++i) ASSERT_EQ(there.read().integer, i);
  EXPECT_THAT(info_field(there, "site", "site_writer_address").value_or(""),
              StartsWith("tls://127.0.0.1:" + std::to_string(tls_port(writer))));
  // The other way round, when the writer has gone.
  writer.stop();
  ASSERT_TRUE(has_role(follower, "writer"));
  EXPECT_EQ(there.call({"INCR", "n"}).integer, 2001);
}

TEST_F(TlsSite, ForwardsToTheNamesOfOnesOwnCertificate) {
  PostgresCluster cluster;
  const auto named = [&](const std::string& name) {
    return authority_.issue({name, {"site.example.org"}, {}, -60, 3600});
  };
  Server& writer = add_server(cluster.url(), secured(named("one"), {"--tls-replication", "yes"}));
  ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
  Server& follower = add_server(cluster.url(), secured(named("two"), {"--tls-replication", "yes"}));
  Client client(follower.port());
  EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
}

TEST_F(TlsSite, ServersWithoutATlsPortReachThoseThatHaveOne) {
  PostgresCluster cluster;
  Server& writer =
      add_server(cluster.url(),
                 secured(authority_.issue("one"), {"--tls-replication", "yes", "--tls-auth-clients", "no"}));
  ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
  Server& follower = add_server(cluster.url(), {"--tls-ca-cert-file", authority_.file()});
  Client client(follower.port());
  EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
}

TEST_F(TlsSite, RefusesAWriterWhoseCertificateIsWrong) {
  PostgresCluster cluster;
  const Authority stranger("stranger");
  struct Case {
    Identity writer;
    std::string authority, cause;
  };
  const std::vector<Case> cases = {
      {authority_.issue("trusted"), stranger.file(),
       "self-signed certificate in certificate chain (CN=authority, of CN=trusted)"},
      {authority_.issue_expired("late"), authority_.file(), "certificate has expired (CN=late)"},
      {authority_.issue({"another", {"db.example.org"}, {}, -60, 3600}), authority_.file(),
       "the certificate is another's: it names neither 127.0.0.1 nor what ours names (CN=another)"},
  };
  for (const Case& wrong : cases) {
    Server& writer = add_server(
        cluster.url(), secured(wrong.writer, {"--tls-replication", "yes", "--tls-auth-clients", "no"}));
    ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
    Server& follower =
        add_server(cluster.url(), {"--tls-ca-cert-file", wrong.authority, "--commit-timeout", "500ms"});
    EXPECT_TRUE(follower.process().await_output("No TLS connection to the writer of the site"));
    EXPECT_TRUE(follower.process().await_output(wrong.cause)) << follower.log();
    Client client(follower.port());
    EXPECT_THAT(client.call({"SET", "k", "v"}).text, StartsWith("CLUSTERDOWN "));
    follower.stop();
    writer.stop();
  }
}

TEST_F(TlsSite, RefusesAFollowerWhoseCertificateIsWrong) {
  PostgresCluster cluster;
  Server& writer = add_server(cluster.url(), secured(authority_.issue("one"), {"--tls-replication", "yes"}));
  ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
  const Identity late = authority_.issue_expired("late");
  Server& follower = add_server(cluster.url(), secured(late, {"--tls-replication", "yes"}));
  EXPECT_TRUE(writer.process().await_output("certificate has expired (CN=late)"));
  EXPECT_TRUE(follower.process().await_output("No TLS connection to the writer of the site"));
  EXPECT_TRUE(follower.process().await_output("alert certificate expired"));
}

TEST_F(TlsSite, SaysWhatAServerLacksToReachATlsWriter) {
  PostgresCluster cluster;
  Server& writer = add_server(cluster.url(), secured(authority_.issue("one"), {"--tls-replication", "yes"}));
  ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
  Server& follower = add_server(cluster.url());
  EXPECT_TRUE(follower.process().await_output("it is reached by TLS"));
}

/// PostgreSQL clusters that let nobody in without TLS.
class TlsPostgresql : public TlsSite {
 protected:
  std::unique_ptr<PostgresCluster> start_cluster(const Identity& identity) {
    auto cluster = std::make_unique<PostgresCluster>(
        PostgresCluster::Settings{{"max_replication_slots", "20"},
                                  {"max_wal_senders", "20"},
                                  {"max_logical_replication_workers", "20"},
                                  {"max_worker_processes", "30"},
                                  {"wal_retrieve_retry_interval", "'200ms'"}});
    cluster->require_tls(identity.cert_file, identity.key_file);
    cluster->restart();
    return cluster;
  }
  static std::string verified(const PostgresCluster& cluster, const Authority& authority) {
    return cluster.url() + "?sslmode=verify-full&sslrootcert=" + authority.file();
  }
};

TEST_F(TlsPostgresql, IsReachedWithVerifyFull) {
  const auto cluster = start_cluster(authority_.issue("postgres"));
  const std::string url = verified(*cluster, authority_);
  const auto [writer, follower] = writer_and_follower(url, url);
  Client client(follower->port());
  EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
  EXPECT_EQ(cluster->value("SELECT count(*) > 3 AND bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity "
                           "USING (pid) WHERE client_addr IS NOT NULL"),
            "t");
}

TEST_F(TlsPostgresql, IsRefusedWithoutTlsOrByAnotherAuthority) {
  const auto cluster = start_cluster(authority_.issue("postgres"));
  const Authority stranger("stranger");
  const std::vector<std::pair<std::string, std::string>> cases = {
      {cluster->url() + "?sslmode=disable", "no encryption"},
      {verified(*cluster, stranger), "certificate verify failed"},
  };
  for (const auto& [url, cause] : cases) {
    Process failing({server_binary(), "--port", "0", "--backend", url});
    const auto ended = failing.wait();
    ASSERT_TRUE(ended.has_value());
    EXPECT_EQ(ended->code, 1);
    EXPECT_THAT(failing.output(), HasSubstr(cause));
  }
}

TEST_F(TlsPostgresql, IsRefusedWithAnExpiredCertificateOrAnotherName) {
  for (const Identity& identity : {authority_.issue_expired("late"),
                                   authority_.issue({"elsewhere", {"db.example.org"}, {}, -60, 3600})}) {
    const auto cluster = start_cluster(identity);
    Process failing({server_binary(), "--port", "0", "--backend", verified(*cluster, authority_)});
    ASSERT_TRUE(failing.wait().has_value());
    EXPECT_THAT(failing.output(), testing::AnyOf(HasSubstr("certificate verify failed"),
                                                 HasSubstr("does not match host name")));
  }
}

TEST_F(TlsPostgresql, LinksSitesOverTls) {
  const auto first = start_cluster(authority_.issue("first")),
             second = start_cluster(authority_.issue("second"));
  const std::string first_url = verified(*first, authority_), second_url = verified(*second, authority_);
  Server& a = add_server(first_url, {"--site", "a", "--peer", "b=" + second_url});
  Server& b = add_server(second_url, {"--site", "b", "--peer", "a=" + first_url});
  Client at_a(a.port()), at_b(b.port());
  EXPECT_TRUE(eventually([&] { return at_a.call({"SET", "from a", "1"}).text == "OK"; }));
  EXPECT_TRUE(eventually([&] { return at_b.call({"GET", "from a"}).text == "1"; }));
  EXPECT_TRUE(eventually([&] { return at_b.call({"SET", "from b", "2"}).text == "OK"; }));
  EXPECT_TRUE(eventually([&] { return at_a.call({"GET", "from b"}).text == "2"; }));
}

}  // namespace
}  // namespace isthmus::test
