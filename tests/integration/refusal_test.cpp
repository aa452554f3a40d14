// What the log cannot take is refused in time, and holds up nobody else.
#include <chrono>
#include <string>

#include <gtest/gtest.h>
#include <sys/resource.h>

#include "tests/support/database_proxy.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/site_fixture.hpp"

namespace isthmus::test {
namespace {

using Clock = std::chrono::steady_clock;

bool is_outage(const Value& reply) { return reply.is_error() && reply.text.starts_with("CLUSTERDOWN "); }

std::size_t backlog(Client& client) {
  return std::stoull(info_field(client, "isthmus", "log_backlog_bytes").value_or("0"));
}

class TimelyRefusal : public SiteFixture {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }

  static constexpr milliseconds kCommitTimeout{2000};
  const Options options_ = {"--commit-timeout", std::to_string(kCommitTimeout.count())};
};

// More waits for its commit than what makes connections wait while the log takes writes.
TEST_F(TimelyRefusal, OfALargeWriteOnAFullDiskHoldsUpNobody) {
  constexpr std::size_t kLarge = std::size_t{70} << 20U, kBacklogLimit = std::size_t{64} << 20U;
  constexpr milliseconds kPrompt = kPatience / 3;
  Server& server = add_server("sqlite:", options_);
  Client writer(server.port()), reader(server.port());
  ASSERT_EQ(show(reader.call({"SET", "small", "s"})), "OK");
  server.process().limit(RLIMIT_FSIZE, 1024);
  writer.send({"SET", "large", std::string(kLarge, 'v')});
  EXPECT_TRUE(is_outage(writer.read()));
  Client newcomer(server.port());
  for (Client* client : {&reader, &newcomer, &writer}) {
    client->send({"PING"});
    EXPECT_EQ(show(client->read(kPrompt)), "PONG");
    client->send({"GET", "small"});
    EXPECT_EQ(show(client->read(kPrompt)), "\"s\"");
  }
  EXPECT_GT(backlog(reader), kBacklogLimit);
  server.process().limit(RLIMIT_FSIZE, RLIM_INFINITY);
  EXPECT_TRUE(eventually([&] { return show(reader.call({"SET", "small", "t"})) == "OK"; })) << server.log();
  EXPECT_EQ(reader.call({"STRLEN", "large"}).integer, static_cast<std::int64_t>(kLarge));
}

// The message is to be in the log before the writer hears of what came behind it.
TEST_F(TimelyRefusal, OfACommandBehindAMessageThatCannotBeCommittedComesInTime) {
  PostgresCluster cluster;
  DatabaseProxy proxy(cluster.port());
  const auto [writer, follower] = writer_and_follower(cluster.url(), proxy.url(), options_);
  Client client(follower->port()), observer(follower->port());
  ASSERT_TRUE(eventually([&] { return show(client.call({"SET", "k", "before"})) == "OK"; }));
  proxy.stall();
  const auto begin = Clock::now();
  client.send({"PUBLISH", "news", "m"});
  client.send({"SET", "k", "after"});
  ASSERT_TRUE(eventually([&] { return backlog(observer) > 0; }));
  proxy.cut();
  for (const char* what : {"PUBLISH", "SET"}) {
    const Value reply = client.read(2 * kCommitTimeout);
    EXPECT_TRUE(is_outage(reply)) << what << ": " << show(reply);
  }
  EXPECT_LT(Clock::now() - begin, 2 * kCommitTimeout);
  EXPECT_EQ(show(client.call({"PING"})), "PONG");
  proxy.open();
  EXPECT_TRUE(eventually([&] {
    return show(client.call({"SET", "k", "again"})) == "OK";
  })) << follower->log();
}

}  // namespace
}  // namespace isthmus::test
