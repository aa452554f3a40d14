// Connections that move from a busy I/O thread to another lose nothing and get nothing twice.
#include <array>
#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
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

using Clock = std::chrono::steady_clock;
using Counts = std::array<int, 4>;  // by publisher
constexpr int kPublishers = static_cast<int>(Counts{}.size());
constexpr int kChannels = 100, kListeners = 4;
// KEYS within a burst.
constexpr int kSlowCommands = 6;

std::string channel_name(int channel) { return "channel:" + std::to_string(channel); }

std::string payload(std::size_t publisher, int burst) {
  return std::to_string(publisher) + ":" + std::to_string(burst);
}

// Keeps a thread busy. Two commands are on their way at each moment: a connection that is never at rest stays
// where it is.
void keep_busy(Client& client, Clock::time_point until) {
  const std::string request = resp::encode_request({"KEYS", "nothing*"});
  client.send_raw(request + request);
  while (Clock::now() < until) {
    client.send_raw(request);
    client.read();
  }
  client.read();
  client.read();
}

// A message to each channel; between two halves of them its thread is busy for several rounds of the other
// one. A connection that arrives meanwhile has had the first half over there, and is to get the second here.
std::string encode_burst(std::size_t publisher, int burst) {
  const std::string text = payload(publisher, burst);
  std::string slow;
  for (int i = 0; i < kSlowCommands; ++i) slow += resp::encode_request({"KEYS", "nothing*"});
  std::string batch;
  for (int i = 0; i < kChannels; ++i) {
    if (i == kChannels / 2) batch += slow;
    const int channel = (i + burst % 2 * kChannels / 2) % kChannels;  // the halves change places
    batch += resp::encode_request({"PUBLISH", channel_name(channel), text});
  }
  return batch;
}

// Returns how many bursts there were. A new connection each time: it goes to the thread that is less busy,
// which is where the others are moved to. Every other publisher is a subscriber too, so its thread hands out
// messages before each of its commands and not only at the end of a round. The pauses leave that thread cool
// enough to be given connections.
int publish_bursts(Server& server, std::size_t publisher, Clock::time_point until) {
  constexpr int kPauseFactor = 9;
  int bursts = 0;
  while (Clock::now() < until) {
    Client client(server.port(), publisher % 2 == 0 ? 2 : 3);
    if (publisher % 2 != 0) client.subscribe("SUBSCRIBE", {"silent"});
    const auto begin = Clock::now();
    client.send_raw(encode_burst(publisher, bursts++));
    for (int i = 0; i < kChannels + kSlowCommands; ++i) EXPECT_FALSE(client.read().is_error());
    std::this_thread::sleep_for(kPauseFactor * (Clock::now() - begin));
  }
  return bursts;
}

void expect_every_burst_once(Client& subscriber, const Counts& bursts) {
  Counts next{};
  while (true) {
    const std::string text = subscriber.next_message().payload;
    if (text == "end") break;
    const auto publisher = static_cast<std::size_t>(text.front() - '0');
    ASSERT_EQ(text, payload(publisher, next.at(publisher)++));
  }
  ASSERT_EQ(next, bursts);
}

// Messages are under way to both threads while hundreds of subscribers move, first from the one to the other
// and then back. A channel has subscribers on both.
TEST(Sharing, MessagesOnTheirWayDuringAMoveReachEachSubscriberOnceAndInOrder) {
  ISTHMUS_ONLY();
  Server server{{.more = {"--threads", "2"}}};
  Client control(server.port());
  fill(control);
  std::vector<Client> subscribers;
  for (int i = 0; i < kChannels * kListeners; ++i) {
    subscribers.emplace_back(server.port(), 2 + i / kChannels % 2);
    subscribers.back().subscribe("SUBSCRIBE", {channel_name(i % kChannels)});
  }
  Counts bursts{};
  const auto begin = Clock::now();
  constexpr milliseconds kStep(1100);  // a busy thread gives connections away every 400 ms
  in_threads(kPublishers + 1, [&](int thread) {
    if (thread < kPublishers) {
      const auto publisher = static_cast<std::size_t>(thread);
      bursts[publisher] = publish_bursts(server, publisher, begin + 4 * kStep);
      return;
    }
    Client busy(server.port());
    keep_busy(busy, begin + kStep);
    Client other(server.port());  // on the other thread, as this one is busy
    keep_busy(busy, begin + 2 * kStep);
    keep_busy(other, begin + 4 * kStep);
  });
  for (int i = 0; i < kChannels; ++i) {
    EXPECT_EQ(control.call({"PUBLISH", channel_name(i), "end"}).integer, kListeners);
  }
  for (Client& subscriber : subscribers) {
    expect_every_burst_once(subscriber, bursts);
    if (HasFatalFailure()) return;
  }
  if (moved(control) == 0) GTEST_SKIP() << "no thread was busy enough to give connections away";
}

}  // namespace
}  // namespace isthmus::test
