// Protected mode: without a password, only clients of this machine are served.
#include <string>

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "tests/support/client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::StartsWith;

/// A connection from 127.0.0.2, which Redis does not take for this machine either.
Client stranger(int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in from{};
  from.sin_family = AF_INET;
  from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1);
  sockaddr_in to = from;
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  to.sin_port = htons(static_cast<std::uint16_t>(port));
  EXPECT_EQ(::bind(fd, reinterpret_cast<const sockaddr*>(&from), sizeof from), 0);
  EXPECT_EQ(::connect(fd, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0);
  return Client(Client::Connected{fd});
}

TEST(ProtectedMode, RefusesStrangersAtOnce) {
  Server server;
  Client refused = stranger(server.port());
  const std::string said = refused.read().text;
  EXPECT_THAT(said,
              StartsWith("DENIED Redis is running in protected mode because protected mode is enabled"));
  EXPECT_THAT(said, EndsWith("for the server to start accepting connections from the outside."));
  EXPECT_TRUE(refused.closed_within());
  Client here(server.port());
  EXPECT_EQ(info_field(here, "stats", "rejected_connections"), "1");
}

TEST(ProtectedMode, IsSwitchedByConfigSet) {
  Server server;
  Client here(server.port());
  EXPECT_EQ(here.call({"CONFIG", "GET", "protected-mode"}).items.at(1).text, "yes");
  EXPECT_EQ(here.call({"CONFIG", "SET", "protected-mode", "no"}).text, "OK");
  Client welcome = stranger(server.port());
  EXPECT_EQ(welcome.call({"PING"}).text, "PONG");
  EXPECT_EQ(here.call({"CONFIG", "SET", "protected-mode", "maybe"}).text,
            "ERR CONFIG SET failed (possibly related to argument 'protected-mode') - argument must be 'yes' "
            "or 'no'");
  EXPECT_EQ(here.call({"CONFIG", "SET", "protected-mode", "yes"}).text, "OK");
  EXPECT_EQ(welcome.call({"PING"}).text, "PONG") << "who is in stays in";
  EXPECT_THAT(stranger(server.port()).read().text, StartsWith("DENIED "));
}

TEST(ProtectedMode, HasNoSayWhereAPasswordIsSet) {
  Server server({.more = {"--requirepass", "secret"}});
  Client welcome = stranger(server.port());
  EXPECT_EQ(welcome.call({"PING"}).text, "NOAUTH Authentication required.");
  EXPECT_EQ(welcome.call({"AUTH", "secret"}).text, "OK");
  EXPECT_EQ(welcome.call({"CONFIG", "SET", "requirepass", ""}).text, "OK");
  EXPECT_THAT(stranger(server.port()).read().text, StartsWith("DENIED "));
}

TEST(ProtectedMode, CanBeOffFromTheStart) {
  ISTHMUS_ONLY();
  Server server({.more = {"--protected-mode", "no"}});
  EXPECT_EQ(stranger(server.port()).call({"PING"}).text, "PONG");
}

// Other servers of the site come from elsewhere and prove themselves by the site's secret.
TEST(ProtectedMode, LetsServersOfTheSiteShowThemselves) {
  ISTHMUS_ONLY();
  PostgresCluster cluster;
  Server server({.backend = cluster.url()});
  EXPECT_THAT(stranger(server.port()).call({"PING"}).text, StartsWith("DENIED "));
  EXPECT_THAT(stranger(server.port()).call({"ISTHMUS", "SITES"}).text, StartsWith("DENIED "));
  Client impostor = stranger(server.port());
  EXPECT_THAT(impostor.call({"ISTHMUS", "HELLO", "guess", "1", "1"}).text, StartsWith("WRONGPASS "));
  EXPECT_TRUE(impostor.closed_within());
  const std::string secret = cluster.value("SELECT secret FROM isthmus.site");
  // Until it is the writer it says so.
  Value welcome;
  EXPECT_TRUE(eventually([&] {
    welcome = stranger(server.port()).call({"ISTHMUS", "HELLO", secret, "1", "1"});
    return welcome.type == Value::Type::array;
  })) << to_text(welcome);
}

}  // namespace
}  // namespace isthmus::test
