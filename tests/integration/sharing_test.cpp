// Connections that move from a busy I/O thread to another lose nothing and get nothing twice.
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"
#include "tests/support/tls_server.hpp"
#include "tests/support/tls_tunnel.hpp"

namespace isthmus::test {
namespace {

// KEYS over so many keys keeps the thread of its connection busy for milliseconds.
void fill(Client& client) {
  std::string batch;
  constexpr int kKeys = 20'000;
  for (int i = 0; i < kKeys; ++i) batch += resp::encode_request({"SET", "key:" + std::to_string(i), "v"});
  client.send_raw(batch);
  for (int i = 0; i < kKeys; ++i) ASSERT_EQ(client.read().text, "OK");
}

std::int64_t moved(Client& client) { return std::stoll(*info_field(client, "isthmus", "moved_connections")); }

/// Busy connections beside subscribers, which `connect` makes, for a protocol version.
void expect_every_message_once(Server& server, const std::function<Client(int)>& connect) {
  Client control(server.port());
  fill(control);
  std::vector<Client> subscribers;
  for (int i = 0; i < 12; ++i) {
    subscribers.push_back(connect(2 + i % 2));
    subscribers.back().subscribe(i % 3 == 0 ? "PSUBSCRIBE" : "SUBSCRIBE", {i % 3 == 0 ? "chan*" : "channel"});
  }
  std::atomic<bool> over{false};
  std::atomic<int> published{0};
  in_threads(4, [&](int thread) {
    Client client(server.port());
    if (thread < 3) {
      while (!over) client.call({"KEYS", "nothing*"});
      return;
    }
    const auto end = std::chrono::steady_clock::now() + seconds(8);
    while (moved(control) == 0 && std::chrono::steady_clock::now() < end) {
      for (int i = 0; i < 20; ++i) client.call({"PUBLISH", "channel", std::to_string(published++)});
    }
    for (int i = 0; i < 200; ++i) client.call({"PUBLISH", "channel", std::to_string(published++)});
    over = true;
  });
  for (Client& subscriber : subscribers) {
    for (int i = 0; i < published; ++i) ASSERT_EQ(subscriber.next_message().payload, std::to_string(i));
  }
  EXPECT_EQ(control.call({"PUBLISH", "channel", "last"}).integer, 12);
  for (Client& subscriber : subscribers) EXPECT_EQ(subscriber.next_message().payload, "last");
  // Where the cores are busy with something else no thread ever fills one, and nothing moves.
  if (moved(control) == 0) GTEST_SKIP() << "no thread was busy enough to give connections away";
}

TEST(Sharing, SubscribersThatMoveGetEveryMessageOnceAndInOrder) {
  Server server{{.more = {"--threads", "2"}}};
  expect_every_message_once(server, [&](int protocol) { return Client(server.port(), protocol); });
}

// With what is encrypted and not sent yet, or received and not decrypted.
TEST(Sharing, TlsConnectionsThatMoveGetEveryMessageOnceAndInOrder) {
  ISTHMUS_ONLY();
  const Authority authority;
  std::vector<std::string> options = tls_options(authority, authority.issue("server"));
  options.insert(options.end(), {"--tls-auth-clients", "no", "--threads", "2"});
  Server server{{.more = options}};
  std::vector<std::unique_ptr<TlsTunnel>> tunnels;
  expect_every_message_once(server, [&](int protocol) {
    tunnels.push_back(
        std::make_unique<TlsTunnel>(tls_port(server), TlsTunnel::Options{authority.file(), {}, 0}));
    return Client(Client::Connected{tunnels.back()->take_socket()}, protocol);
  });
}

}  // namespace
}  // namespace isthmus::test
