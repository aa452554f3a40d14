// The HTTP port: probes that tell the truth, and metrics.
#include <regex>
#include <string>

#include <boost/asio/connect.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;
using testing::HasSubstr;

http::response<http::string_body> get(int port, const std::string& path, http::verb verb = http::verb::get) {
  boost::asio::io_context context;
  tcp::socket socket(context);
  socket.connect({boost::asio::ip::make_address("127.0.0.1"), static_cast<std::uint16_t>(port)});
  http::request<http::string_body> request(verb, path, 11);
  request.set(http::field::host, "localhost");
  http::write(socket, request);
  boost::beast::flat_buffer buffer;
  http::response<http::string_body> response;
  http::read(socket, buffer, response);
  return response;
}

/// The port that the server has said in its log.
int http_port(const Server& server) {
  std::smatch found;
  const std::string log = server.log();
  return std::regex_search(log, found, std::regex("http_port=(\\d+)")) ? std::stoi(found[1]) : 0;
}

TEST(Http, AnswersProbesAndShowsMetrics) {
  ISTHMUS_ONLY();
  Server server({.more = {"--http-port", "0"}});
  const int port = http_port(server);
  ASSERT_NE(port, 0) << server.log();
  EXPECT_EQ(get(port, "/healthz").result_int(), 200U);
  EXPECT_EQ(get(port, "/readyz").body(), "ready\n");
  Client client(server.port());
  client.call({"SET", "k", "v"});
  client.call({"INCR", "k"});
  const std::string metrics = get(port, "/metrics").body();
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
  EXPECT_EQ(get(port, "/").result_int(), 404U);
  EXPECT_EQ(get(port, "/metrics?x=1").result_int(), 200U);
  EXPECT_EQ(get(port, "/metrics", http::verb::post).result_int(), 405U);
}

TEST(Http, IsNotReadyWithoutItsDatabase) {
  ISTHMUS_ONLY();
  PostgresCluster cluster;
  Server server({.backend = cluster.url(), .more = {"--http-port", "0"}});
  const int port = http_port(server);
  EXPECT_TRUE(eventually([&] { return get(port, "/readyz").result_int() == 200; }));
  EXPECT_THAT(get(port, "/metrics").body(), HasSubstr("\nisthmus_writer 1\n"));
  cluster.stop("immediate");
  EXPECT_TRUE(eventually([&] { return get(port, "/readyz").result_int() == 503; }));
  EXPECT_EQ(get(port, "/healthz").result_int(), 200U) << "the process lives";
  EXPECT_TRUE(eventually([&] {
    return get(port, "/metrics").body().find("isthmus_backend_available 0\n") != std::string::npos;
  }));
  cluster.start();
  EXPECT_TRUE(eventually([&] { return get(port, "/readyz").result_int() == 200; }));
}

}  // namespace
}  // namespace isthmus::test
