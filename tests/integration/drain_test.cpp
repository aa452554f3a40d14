// How a server of a site ends while it has clients: readiness goes off first, what is open is answered, the
// lease goes to another server at once, and subscribers are closed last.
#include <string>

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/http_client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

class Drain : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  static void expect_orderly_end(Server& server) {
    const auto status = server.process().wait();
    ASSERT_TRUE(status.has_value()) << "still running:\n" << server.log();
    EXPECT_EQ(status->code, 0) << server.log();
  }
  static bool takes_connections(Server& server) {
    try {
      const Client late(server.port());
      return true;
    } catch (const std::exception&) {
      return false;
    }
  }
};

// The database answers only when the test has seen what the server does meanwhile.
TEST_F(Drain, IsNotReadyFromTheFirstMomentAndAnswersWhatIsOpen) {
  PostgresCluster cluster;
  DatabaseProxy proxy(cluster.port());
  Server& server = add_server(proxy.url(), {"--http-port", "0", "--commit-timeout", "60s"});
  ASSERT_TRUE(eventually([&] { return role(server) == "writer"; }));
  const int http = http_port(server);
  Client client(server.port()), subscriber(server.port());
  subscriber.subscribe("SUBSCRIBE", {"c"});
  EXPECT_EQ(http_get(http, "/readyz").status, 200U);
  proxy.stall();
  client.send({"SET", "open", "answered"});
  const std::string nothing_waits = "isthmus_log_backlog_bytes 0\n";
  ASSERT_TRUE(
      eventually([&] { return http_get(http, "/metrics").body.find(nothing_waits) == std::string::npos; }));
  server.process().signal(SIGTERM);
  EXPECT_TRUE(eventually([&] { return http_get(http, "/readyz").body == "the server is ending\n"; }));
  EXPECT_EQ(http_get(http, "/readyz").status, 503U);
  EXPECT_EQ(http_get(http, "/healthz").status, 200U) << "it lives until it has ended";
  EXPECT_TRUE(eventually([&] { return !takes_connections(server); }));
  EXPECT_FALSE(subscriber.closed_within(milliseconds(0)));
  proxy.open();
  EXPECT_EQ(show(client.read()), "OK");
  EXPECT_TRUE(subscriber.closed_within());
  EXPECT_TRUE(client.closed_within(milliseconds(0))) << "a subscriber was closed before another client";
  expect_orderly_end(server);
  EXPECT_EQ(cluster.value("SELECT value FROM isthmus.current WHERE key = 'open'"), "answered");
}

// A client that does not read what it has asked for keeps the writer from its end for a moment. In that
// moment the other server is the writer already, and what is published there reaches a subscriber here. On a
// machine that is slower than the moment is long another try shows it.
TEST_F(Drain, HandsTheLeaseOverBeforeItClosesSubscribers) {
  constexpr int kTries = 5;
  PostgresCluster cluster;
  bool shown = false;
  for (int i = 0; i < kTries && !shown; ++i) {
    const std::string url = cluster.url(cluster.create_database());
    const auto [leaving, other] = writer_and_follower(url, url);
    Client subscriber(leaving->port()), deaf(leaving->port(), 2, 4096);
    subscriber.subscribe("SUBSCRIBE", {"c"});
    ASSERT_EQ(show(deaf.call({"SET", "large", std::string(1 << 20, 'l')})), "OK");
    std::string gets;
    for (int get = 0; get < 50; ++get) gets += resp::encode_request({"GET", "large"});
    deaf.push_raw(gets, seconds(1));
    leaving->process().signal(SIGTERM);
    Client client(other->port());
    EXPECT_EQ(show(client.call({"SET", "k", "after"})), "OK");
    client.call({"PUBLISH", "c", "of the next writer"});
    try {
      shown = subscriber.next_message().payload == "of the next writer";
    } catch (const Closed&) {
    }
    expect_orderly_end(*leaving);
    servers_.clear();
  }
  EXPECT_TRUE(shown);
}

}  // namespace
}  // namespace isthmus::test
