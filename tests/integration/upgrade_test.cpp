// Two versions at one site: a newer server brings the schema forward while older ones serve, and these go on
// until they are ended.
#include <string>

#include <gtest/gtest.h>

#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

class Upgrade : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  // What the migration of a later version may do, in its one transaction: it leaves what this one uses.
  static void migrate(PostgresCluster& cluster) {
    cluster.sql(
        "BEGIN; ALTER TABLE isthmus.log ADD COLUMN later bigint; ALTER TABLE isthmus.entry ADD COLUMN later "
        "bigint;"
        "CREATE TABLE isthmus.later (id bigint PRIMARY KEY);"
        "INSERT INTO isthmus.schema_version (version) VALUES (1000000); COMMIT");
  }
  static void expect_service(Server& one, Server& other, const std::string& value) {
    Client writer(one.port()), reader(other.port()), subscriber(other.port());
    subscriber.subscribe("SUBSCRIBE", {"c"});
    EXPECT_EQ(show(writer.call({"SET", "k", value})), "OK");
    EXPECT_TRUE(eventually([&] { return show(reader.call({"GET", "k"})) == test::quoted(value); }));
    EXPECT_FALSE(writer.call({"PUBLISH", "c", value}).is_error());
    EXPECT_EQ(subscriber.next_message().payload, value);
  }
};

TEST_F(Upgrade, ServersGoOnWhenANewerOneHasMovedTheSchema) {
  PostgresCluster cluster;
  const auto [writer, follower] = writer_and_follower(cluster.url(), cluster.url());
  expect_service(*writer, *follower, "before");
  migrate(cluster);
  expect_service(*writer, *follower, "after, by the writer");
  expect_service(*follower, *writer, "after, by another server");
  // Their sessions may break meanwhile, and the lease may go round.
  const auto count = site_count(*writer, "leases_taken");
  cluster.sql(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'isthmus%' AND "
      "pid <> pg_backend_pid()");
  EXPECT_TRUE(eventually(
      [&] { return site_count(*writer, "leases_taken") + site_count(*follower, "leases_taken") > count; }));
  EXPECT_TRUE(eventually(
      [&] { return site_info(*writer, "feed_up") == "1" && site_info(*follower, "feed_up") == "1"; }));
  expect_service(*follower, *writer, "after a break");
  ASSERT_TRUE(writer->stop().has_value());
  EXPECT_TRUE(eventually([&] { return role(*follower) == "writer"; }));
  expect_service(*follower, *follower, "as the writer");
}

TEST_F(Upgrade, AnOlderServerDoesNotBeginOnANewerSchema) {
  PostgresCluster cluster;
  Server& server = add_server(cluster.url());
  migrate(cluster);
  Process late(server.command_line(free_port()));
  const auto status = late.wait();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 1);
  EXPECT_NE(late.output().find("newer Isthmus"), std::string::npos) << late.output();
}

}  // namespace
}  // namespace isthmus::test
