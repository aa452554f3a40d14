// A follower that does not reach the writer says so, with the cause, and shows it in its metrics.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/http_client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

using testing::StartsWith;

constexpr const char* kNoConnection = "No connection to the writer of the site";

class UnreachableWriter : public SiteFixture {
 protected:
  /// A server that is the writer, and tells the others a wrong address.
  Server& add_writer_at(const std::string& address) {
    Server& writer = add_server(cluster_.url(), {"--advertise", address, "--http-port", "0"});
    EXPECT_TRUE(eventually([&] { return role(writer) == "writer"; }));
    return writer;
  }
  Server& add_follower() {
    return add_server(cluster_.url(), {"--http-port", "0", "--commit-timeout", "300ms"});
  }
  static testing::AssertionResult shows(Server& server, const std::string& line) {
    if (eventually([&] {
          return http_get(http_port(server), "/metrics").body.find("\n" + line + "\n") != std::string::npos;
        }))
      return testing::AssertionSuccess();
    return testing::AssertionFailure() << "no line " << line;
  }
  static std::size_t count(const std::string& text, const std::string& part) {
    std::size_t found = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
    return found;
  }
  /// The follower names the cause once, and that it is over.
  void expect_complaint(const std::string& address, const std::string& cause) {
    SCOPED_TRACE(address);
    Server& writer = add_writer_at(address);
    Server& first = add_follower();
    Server& second = add_follower();
    for (Server* follower : {&first, &second}) {
      EXPECT_TRUE(follower->process().await_output(cause)) << follower->log();
      EXPECT_TRUE(shows(*follower, "isthmus_writer_reachable 0"));
    }
    EXPECT_TRUE(shows(writer, "isthmus_writer_reachable 1"));
    EXPECT_THAT(Client(first.port()).call({"SET", "k", "v"}).text, StartsWith("CLUSTERDOWN "));
    // One of the two takes over, and the other reaches it.
    writer.stop();
    EXPECT_TRUE(shows(first, "isthmus_writer_reachable 1"));
    EXPECT_TRUE(shows(second, "isthmus_writer_reachable 1"));
    EXPECT_EQ(count(first.log() + second.log(), "Connected to the writer of the site"), 1U);
    for (Server* follower : {&first, &second}) {
      EXPECT_EQ(count(follower->log(), kNoConnection), 1U) << follower->log();
      follower->stop();
    }
  }

  PostgresCluster cluster_;
};

TEST_F(UnreachableWriter, WhereNobodyListensIsReported) {
  expect_complaint("127.0.0.1:" + std::to_string(free_port()), "Connection refused");
}

TEST_F(UnreachableWriter, WhoseNameCannotBeResolvedIsReported) {
  // Longer than a name can be: no name server is asked.
  expect_complaint(std::string(70, 'x') + ":6379", "its host cannot be resolved");
}

TEST_F(UnreachableWriter, InWhosePlaceSomebodyElseAnswersIsReported) {
  const Server stranger;
  expect_complaint("127.0.0.1:" + std::to_string(stranger.port()), "This server shares its log with nobody");
}

}  // namespace
}  // namespace isthmus::test
