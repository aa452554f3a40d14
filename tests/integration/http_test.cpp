// The HTTP port: probes that tell the truth, and metrics.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/http_client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

using testing::HasSubstr;

TEST(Http, AnswersProbesAndShowsMetrics) {
  ISTHMUS_ONLY();
  Server server({.more = {"--http-port", "0"}});
  const int port = http_port(server);
  ASSERT_NE(port, 0) << server.log();
  EXPECT_EQ(http_get(port, "/healthz").status, 200U);
  EXPECT_EQ(http_get(port, "/readyz").body, "ready\n");
  Client client(server.port());
  client.call({"SET", "k", "v"});
  client.call({"INCR", "k"});
  const std::string metrics = http_get(port, "/metrics").body;
  EXPECT_THAT(metrics, HasSubstr("\nredis_up 1\n"));
  EXPECT_THAT(metrics, HasSubstr("redis_commands_total{cmd=\"set\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("redis_commands_failed_calls_total{cmd=\"incr\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("redis_errors_total{err=\"ERR\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("redis_db_keys{db=\"db0\"} 1\n"));
  EXPECT_THAT(metrics, HasSubstr("redis_connected_clients 1\n"));
}

TEST(Http, RefusesWhatItDoesNotKnow) {
  ISTHMUS_ONLY();
  Server server({.more = {"--http-port", "0"}});
  const int port = http_port(server);
  EXPECT_EQ(http_get(port, "/").status, 404U);
  EXPECT_EQ(http_get(port, "/metrics?x=1").status, 200U);
  EXPECT_EQ(http_get(port, "/metrics", "POST").status, 405U);
}

TEST(Http, IsNotReadyWithoutItsDatabase) {
  ISTHMUS_ONLY();
  PostgresCluster cluster;
  Server server({.backend = cluster.url(), .more = {"--http-port", "0"}});
  const int port = http_port(server);
  EXPECT_TRUE(eventually([&] { return http_get(port, "/readyz").status == 200; }));
  EXPECT_THAT(http_get(port, "/metrics").body, HasSubstr("\nisthmus_writer 1\n"));
  cluster.stop("immediate");
  EXPECT_TRUE(eventually([&] { return http_get(port, "/readyz").status == 503; }));
  EXPECT_EQ(http_get(port, "/healthz").status, 200U) << "the process lives";
  EXPECT_TRUE(eventually([&] {
    return http_get(port, "/metrics").body.find("isthmus_backend_available 0\n") != std::string::npos;
  }));
  cluster.start();
  EXPECT_TRUE(eventually([&] { return http_get(port, "/readyz").status == 200; }));
}

}  // namespace
}  // namespace isthmus::test
