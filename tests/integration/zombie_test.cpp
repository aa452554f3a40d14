// Sessions of which the database does not know that their clients are gone: they keep the lock of the site.
#include <string>

#include <gtest/gtest.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

class Zombie : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  /// The process of PostgreSQL that has the lock of the site; empty if none has.
  std::string holder() const {
    return cluster_.value("SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted");
  }
  static std::string set(Server& server, const std::string& value) {
    Client client(server.port());
    return show(client.call({"SET", "k", value}));
  }

  PostgresCluster cluster_;
  DatabaseProxy proxy_{cluster_.port()};
};

// There is no other server that would take the lease.
TEST_F(Zombie, OfALonelyWriterIsEndedByTheWriterItself) {
  Server& server = add_server(proxy_.url(), {"--commit-timeout", "1500ms"});
  ASSERT_TRUE(eventually([&] { return set(server, "before") == "OK"; }));
  const std::string zombie = holder();
  ASSERT_FALSE(zombie.empty());
  proxy_.orphan();
  EXPECT_TRUE(eventually([&] { return holder() != zombie && set(server, "after") == "OK"; }))
      << "held by " << holder() << ", which was " << zombie << "\n"
      << server.log();
  EXPECT_EQ(role(server), "writer");
  EXPECT_EQ(cluster_.value("SELECT value FROM isthmus.current WHERE key = 'k'"), "after");
}

}  // namespace
}  // namespace isthmus::test
