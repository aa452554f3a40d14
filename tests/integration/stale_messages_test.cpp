// A message that is older than --message-max-age is handed to nobody, wherever it has waited.
#include <string>

#include <gtest/gtest.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

class StaleMessages : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  PostgresCluster cluster_;
};

TEST_F(StaleMessages, OfSqlReachNobody) {
  const auto [writer, follower] =
      writer_and_follower(cluster_.url(), cluster_.url(), {"--message-max-age", "60s"});
  Client at_writer(writer->port()), at_follower(follower->port());
  for (Client* client : {&at_writer, &at_follower}) client->subscribe("SUBSCRIBE", {"news"});
  cluster_.sql(
      "INSERT INTO isthmus.inbox (at, op, key, value) VALUES (now() - interval '1 hour', 'publish', 'news', "
      "'old'); SELECT isthmus.publish('news', 'young')");
  EXPECT_EQ(at_writer.next_message().payload, "young");
  EXPECT_EQ(at_follower.next_message().payload, "young");
  EXPECT_EQ(site_count(*writer, "stale_messages"), 1U);
  EXPECT_TRUE(eventually([&] { return cluster_.value("SELECT count(*) FROM isthmus.inbox") == "0"; }))
      << "it is done with all the same";
  EXPECT_EQ(cluster_.value("SELECT count(*) FROM isthmus.log WHERE kind = 'publish'"), "1");
}

// What else the EXEC does is done however late.
TEST_F(StaleMessages, OfAnExecThatWasCommittedLateReachNobody) {
  DatabaseProxy proxy(cluster_.port());
  Server& server = add_server(proxy.url(), {"--message-max-age", "1s", "--commit-timeout", "500ms"});
  ASSERT_TRUE(eventually([&] { return role(server) == "writer"; }));
  Client subscriber(server.port()), client(server.port()), reader(server.port());
  subscriber.subscribe("SUBSCRIBE", {"news"});
  ASSERT_TRUE(eventually([&] { return show(client.call({"SET", "k", "before"})) == "OK"; }));
  proxy.stall();
  client.call({"MULTI"});
  client.call({"SET", "k", "after"});
  client.call({"PUBLISH", "news", "old"});
  const Value told = client.call({"EXEC"});
  ASSERT_TRUE(told.is_error() && told.text.starts_with("CLUSTERDOWN ")) << show(told);
  EXPECT_EQ(subscriber.message_within(milliseconds(2000)), std::nullopt) << "nothing is committed yet";
  proxy.open();
  EXPECT_TRUE(eventually([&] { return show(reader.call({"GET", "k"})) == "\"after\""; })) << server.log();
  EXPECT_EQ(show(reader.call({"PUBLISH", "news", "young"})), "(integer) 1");
  EXPECT_EQ(subscriber.next_message().payload, "young");
  EXPECT_EQ(site_count(server, "stale_messages"), 1U);
}

}  // namespace
}  // namespace isthmus::test
