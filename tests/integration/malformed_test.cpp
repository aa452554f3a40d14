// What a server must bear: half frames, huge counts, garbage, clients that do not read, storms of
// connections.
#include <algorithm>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

constexpr std::uint64_t kMebibyte = std::uint64_t{1} << 20;

class Malformed : public ::testing::Test {
 protected:
  Client connect() { return Client(server_.port()); }
  // The server answers others as ever.
  void expect_alive() {
    ASSERT_TRUE(server_.process().running()) << server_.log();
    auto client = connect();
    ASSERT_EQ(client.call({"SET", "alive", "yes"}).text, "OK");
    ASSERT_EQ(client.call({"GET", "alive"}).text, "yes");
  }
  Server server_;
};

struct ErrorCase {
  const char* name;
  std::string bytes;
  std::string error;
};

TEST_F(Malformed, IsAnsweredWithAnErrorAndClosed) {
  const std::vector<ErrorCase> cases{
      {"a word for a count", "*abc\r\n", "ERR Protocol error: invalid multibulk length"},
      {"no count", "*\r\n", "ERR Protocol error: invalid multibulk length"},
      {"a count above the limit", "*2147483648\r\n", "ERR Protocol error: invalid multibulk length"},
      {"a count beyond 64 bits", "*18446744073709551617\r\n", "ERR Protocol error: invalid multibulk length"},
      {"no bulk string", "*1\r\nPING\r\n", "ERR Protocol error: expected '$', got 'P'"},
      {"no length", "*1\r\n$\r\n", "ERR Protocol error: invalid bulk length"},
      {"a negative length", "*1\r\n$-1\r\n", "ERR Protocol error: invalid bulk length"},
      {"a word for a length", "*1\r\n$3abc\r\n", "ERR Protocol error: invalid bulk length"},
      {"a length above the limit", "*1\r\n$536870913\r\n", "ERR Protocol error: invalid bulk length"},
      {"a length beyond 64 bits", "*1\r\n$18446744073709551615\r\n",
       "ERR Protocol error: invalid bulk length"},
      {"open quotes", "SET a \"b\r\n", "ERR Protocol error: unbalanced quotes in request"},
      {"a long inline command", std::string(70'000, 'a'), "ERR Protocol error: too big inline request"},
      {"a long count", "*" + std::string(70'000, '1'), "ERR Protocol error: too big mbulk count string"},
      {"a long length", "*1\r\n$" + std::string(70'000, '1'),
       "ERR Protocol error: too big bulk count string"},
  };
  for (const auto& one : cases) {
    SCOPED_TRACE(one.name);
    auto client = connect();
    // What came before is answered first.
    client.send_raw(resp::encode_request({"ECHO", "before"}) + one.bytes);
    EXPECT_EQ(client.read().text, "before");
    EXPECT_EQ(client.read().text, one.error);
    EXPECT_TRUE(client.closed_within());
  }
  expect_alive();
}

TEST_F(Malformed, IgnoresEmptyRequests) {
  auto client = connect();
  client.send_raw("\r\n\n*0\r\n*-1\r\n\r\n*-100\r\nPING\r\n");
  EXPECT_EQ(client.read().text, "PONG");
}

TEST_F(Malformed, ForgetsHalfFrames) {
  const std::string request = resp::encode_request({"SET", "half", "done"});
  for (std::size_t cut = 1; cut < request.size(); ++cut) {
    auto client = connect();
    client.send_raw(std::string_view(request).substr(0, cut));
    client.close(cut % 2 == 0);
  }
  expect_alive();
  EXPECT_EQ(connect().call({"EXISTS", "half"}).integer, 0);
}

// Only bytes that came may cost memory, not bytes that were announced.
TEST_F(Malformed, AnnouncedBytesCostNoMemory) {
  expect_alive();
  const auto before = server_.process().resident_bytes();
  std::vector<Client> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(connect());
    clients.back().send_raw(i % 2 == 0 ? "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$536870912\r\nabc"
                                       : "*1000000000\r\n$3\r\nDEL\r\n$1\r\na\r\n");
  }
  // An answer to each connection's neighbour is no proof that the bytes were read; CLIENT LIST counts them.
  auto watcher = connect();
  EXPECT_TRUE(eventually([&] {
    const auto list = watcher.call({"CLIENT", "LIST"}).text;
    return std::count(list.begin(), list.end(), '\n') >= 41;
  }));
  expect_alive();
  EXPECT_LT(server_.process().resident_bytes(), before + (kSanitized ? 512 : 64) * kMebibyte);
  clients.clear();
  expect_alive();
}

TEST_F(Malformed, SurvivesGarbage) {
  std::mt19937 random(20250101);
  for (int round = 0; round < 60; ++round) {
    std::string bytes(1 + random() % 20'000, '\0');
    // Half of it looks a little like the protocol, to get further in.
    const std::string alphabet = round % 2 == 0 ? "" : "*$+-:_#,(%~>|\r\n\r\n0123456789abc \"'\\";
    for (auto& byte : bytes)
      byte = alphabet.empty() ? static_cast<char>(random()) : alphabet[random() % alphabet.size()];
    auto client = connect();
    client.push_raw(bytes, seconds(5));
    client.close(round % 3 == 0);
  }
  expect_alive();
}

// A client that asks for much and reads nothing: the others go on, and what waits for it is bounded.
TEST_F(Malformed, SurvivesAClientThatNeverReads) {
  auto setter = connect();
  const std::string value(kMebibyte, 'v');
  ASSERT_EQ(setter.call({"SET", "big", value}).text, "OK");
  const auto before = server_.process().resident_bytes();
  Client deaf(server_.port(), 2, 4096);
  std::string gets;
  for (int i = 0; i < 2000; ++i) gets += resp::encode_request({"GET", "big"});
  deaf.push_raw(gets, seconds(1));
  for (int i = 0; i < 100; ++i) ASSERT_EQ(setter.call({"PING"}).text, "PONG");
  if (!testing_redis()) {
    EXPECT_LT(server_.process().resident_bytes(), before + 768 * kMebibyte);
  }
  deaf.close(true);
  expect_alive();
}

TEST_F(Malformed, ASlowSenderHoldsUpNobody) {
  auto slow = connect();
  auto quick = connect();
  const std::string request = resp::encode_request({"SET", "slow", std::string(200, 's')});
  for (std::size_t at = 0; at < request.size(); at += 2) {
    slow.send_raw(std::string_view(request).substr(at, 2));
    ASSERT_EQ(quick.call({"SET", "quick", "q"}).text, "OK");
  }
  EXPECT_EQ(slow.read().text, "OK");
}

TEST_F(Malformed, SurvivesAStormOfConnections) {
  in_threads(8, [&](int thread) {
    for (int i = 0; i < 250; ++i) {
      Client client(server_.port());
      if (i % 4 == 1) client.send({"PING"});
      if (i % 4 == 2) client.send_raw("*2\r\n$3\r\nGE");
      if (i % 4 == 3) {
        EXPECT_EQ(client.call({"PING"}).text, "PONG");
      }
      client.close((i + thread) % 2 == 0);
    }
  });
  expect_alive();
  auto client = connect();
  EXPECT_TRUE(eventually([&] { return info_field(client, "clients", "connected_clients") == "1"; }));
}

TEST(MaxClients, RefusesOneTooManyWithRedissText) {
  Server server({.more = {"--maxclients", "10"}});
  std::vector<Client> clients;
  for (int i = 0; i < 10; ++i) {
    clients.emplace_back(server.port());
    ASSERT_EQ(clients.back().call({"PING"}).text, "PONG") << i;
  }
  Client refused(server.port());
  EXPECT_EQ(refused.read().text, "ERR max number of clients reached");
  EXPECT_TRUE(refused.closed_within());
  EXPECT_EQ(clients.front().call({"PING"}).text, "PONG");
  clients.pop_back();
  EXPECT_TRUE(eventually([&] {
    try {
      return Client(server.port()).call({"PING"}).text == "PONG";
    } catch (const Closed&) {
      return false;
    }
  }));
}

}  // namespace
}  // namespace isthmus::test
