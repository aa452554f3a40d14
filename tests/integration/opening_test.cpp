// Signals that come while the server opens its database.
#include <csignal>
#include <string>

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/support/process.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

/// A port of the loopback that takes connections and never says anything: opening a database there lasts.
class SilentPort {
 public:
  SilentPort() : listener_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(::listen(listener_, 4), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    url_ = "postgresql://isthmus@127.0.0.1:" + std::to_string(ntohs(address.sin_port)) + "/isthmus";
  }
  ~SilentPort() {
    ::close(connection_);
    ::close(listener_);
  }
  SilentPort(const SilentPort&) = delete;
  SilentPort& operator=(const SilentPort&) = delete;

  const std::string& url() const { return url_; }
  void await_connection() { connection_ = ::accept(listener_, nullptr, nullptr); }

 private:
  int listener_, connection_ = -1;
  std::string url_;
};

class Opening : public testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Signals, Opening, testing::Values(SIGTERM, SIGINT),
                         [](const auto& suite) { return suite.param == SIGTERM ? "Term" : "Int"; });

TEST_P(Opening, EndsAtOnceAndSaysSo) {
  ISTHMUS_ONLY();
  SilentPort database;
  Process server({server_binary(), "--port", "0", "--backend", database.url()});
  database.await_connection();
  server.signal(GetParam());
  const auto status = server.wait();
  ASSERT_TRUE(status.has_value()) << server.output();
  EXPECT_EQ(status->code, 0) << "signal " << status->signal << "\n" << server.output();
  EXPECT_NE(server.output().find("Ended before the server was ready"), std::string::npos) << server.output();
}

TEST(OpeningHangup, IsNoReasonToEnd) {
  ISTHMUS_ONLY();
  SilentPort database;
  Process server({server_binary(), "--port", "0", "--backend", database.url()});
  database.await_connection();
  server.signal(SIGHUP);
  server.signal(SIGTERM);
  const auto status = server.wait();
  ASSERT_TRUE(status.has_value()) << server.output();
  EXPECT_EQ(status->code, 0) << "signal " << status->signal;
}

}  // namespace
}  // namespace isthmus::test
