// What was acknowledged survives: a clean end, a kill in the middle of writes, and a look from outside with
// SQLite.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/client.hpp"
#include "tests/support/database.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

class Durability : public ::testing::Test {
 protected:
  Client connect() { return Client(server_.port()); }
  void crash_and_restart() {
    server_.kill_now();
    server_.start();
  }
  Server server_{{.backend = "sqlite:"}};
};

void write_samples(Client& client) {
  const std::string binary("\0\xff\r\n'\"", 6);
  for (const std::vector<std::string_view>& command :
       std::vector<std::vector<std::string_view>>{{"SET", "string", "value"},
                                                  {"SET", binary, binary},
                                                  {"SET", "empty", ""},
                                                  {"SET", "brief", "b", "PX", "1"},
                                                  {"SET", "ttl", "t", "EX", "100000"},
                                                  {"SET", "persisted", "p", "EX", "100"},
                                                  {"PERSIST", "persisted"},
                                                  {"INCRBY", "number", "41"},
                                                  {"INCR", "number"},
                                                  {"INCRBYFLOAT", "float", "1.5"},
                                                  {"APPEND", "string", "+"},
                                                  {"SETRANGE", "range", "3", "x"},
                                                  {"HSET", "hash", "f", "1", "g", "2", binary, binary},
                                                  {"HDEL", "hash", "g"},
                                                  {"HINCRBY", "hash", "n", "7"},
                                                  {"PEXPIRE", "hash", "1000000000"},
                                                  {"HSET", "gone", "f", "v"},
                                                  {"DEL", "gone"},
                                                  {"HSET", "emptied", "f", "v"},
                                                  {"HDEL", "emptied", "f"},
                                                  {"SET", "old name", "moved"},
                                                  {"RENAME", "old name", "new name"},
                                                  {"COPY", "hash", "copied"},
                                                  {"SADD", "set", "a", "b", binary, "7"},
                                                  {"SREM", "set", "b"},
                                                  {"PEXPIRE", "set", "1000000000"},
                                                  {"SADD", "popped", "1", "2"},
                                                  {"SPOP", "popped", "2"},
                                                  {"SMOVE", "set", "moved to", "7"},
                                                  {"SET", "was hash", "x"},
                                                  {"HSET", "was string", "f", "v"},
                                                  {"SELECT", "5"},
                                                  {"SET", "elsewhere", "five"},
                                                  {"SELECT", "6"},
                                                  {"SET", "flushed", "six"},
                                                  {"FLUSHDB"},
                                                  {"SELECT", "0"}}) {
    const auto reply = client.call(command);
    ASSERT_FALSE(reply.is_error()) << command[0] << ": " << reply.text;
  }
}

void check_samples(Client& client) {
  const std::string binary("\0\xff\r\n'\"", 6);
  EXPECT_EQ(client.call({"GET", "string"}).text, "value+");
  EXPECT_EQ(client.call({"GET", binary}).text, binary);
  EXPECT_EQ(show(client.call({"GET", "empty"})), quoted(""));
  EXPECT_TRUE(client.call({"GET", "brief"}).is_null());
  const auto ttl = client.call({"TTL", "ttl"}).integer;
  EXPECT_TRUE(ttl > 99'000 && ttl <= 100'000) << ttl;
  EXPECT_EQ(client.call({"TTL", "persisted"}).integer, -1);
  EXPECT_EQ(client.call({"GET", "number"}).text, "42");
  EXPECT_EQ(client.call({"GET", "float"}).text, "1.5");
  EXPECT_EQ(client.call({"GET", "range"}).text, std::string("\0\0\0x", 4));
  EXPECT_EQ(client.call({"HLEN", "hash"}).integer, 3);
  EXPECT_EQ(client.call({"HGET", "hash", binary}).text, binary);
  EXPECT_EQ(client.call({"HGET", "hash", "n"}).text, "7");
  EXPECT_GT(client.call({"PTTL", "hash"}).integer, 900'000'000);
  EXPECT_EQ(client.call({"HLEN", "copied"}).integer, 3);
  EXPECT_EQ(client.call({"SCARD", "set"}).integer, 2);
  EXPECT_EQ(client.call({"SISMEMBER", "set", binary}).integer, 1);
  EXPECT_EQ(client.call({"SISMEMBER", "moved to", "7"}).integer, 1);
  EXPECT_GT(client.call({"PTTL", "set"}).integer, 900'000'000);
  EXPECT_EQ(client.call({"EXISTS", "gone", "emptied", "popped", "old name", "flushed"}).integer, 0);
  EXPECT_EQ(client.call({"GET", "new name"}).text, "moved");
  EXPECT_EQ(client.call({"TYPE", "was string"}).text, "hash");
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 15);
  client.call({"SELECT", "5"});
  EXPECT_EQ(client.call({"GET", "elsewhere"}).text, "five");
  client.call({"SELECT", "6"});
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 0);
  client.call({"SELECT", "0"});
}

TEST_F(Durability, EveryKindOfStateSurvivesACleanEnd) {
  {
    auto client = connect();
    write_samples(client);
  }
  for (int round = 0; round < 2; ++round) {
    const auto status = server_.stop();
    ASSERT_TRUE(status.has_value());
    ASSERT_EQ(status->code, 0);
    server_.start();
    auto client = connect();
    check_samples(client);
  }
}

TEST_F(Durability, EveryKindOfStateSurvivesAKill) {
  auto client = connect();
  write_samples(client);
  for (int round = 0; round < 3; ++round) {
    crash_and_restart();
    auto again = connect();
    check_samples(again);
  }
}

// ---- kill -9 in the middle of writes ----

// One client's writes: pipelined, each with what must be seen afterwards if it was acknowledged.
struct Writer {
  int number = 0;
  int sent = 0;                               // operations sent to the server
  int acknowledged = 0;                       // operations answered without an error
  int base = 0;                               // operations of earlier rounds
  std::vector<std::pair<int, int>> promised;  // the acknowledged of every round: from, and behind the last

  std::string name(const char* kind) const { return std::string(kind) + ":" + std::to_string(number); }
};

constexpr int kOperationReplies = 8;

// Operation n: a key of its own, a counter, a field, a transaction of two keys that must stay equal, and a
// deletion of what the operation before had set.
std::string operation(const Writer& writer, int n) {
  const auto text = std::to_string(n);
  const auto name = [&](const char* kind) { return writer.name(kind); };
  return resp::encode_request({"SET", name("own") + ":" + text, text}) +
         resp::encode_request({"INCR", name("count")}) +
         resp::encode_request({"HSET", name("hash"), text, text}) + resp::encode_request({"MULTI"}) +
         resp::encode_request({"SET", name("left"), text}) +
         resp::encode_request({"SET", name("right"), text}) + resp::encode_request({"EXEC"}) +
         resp::encode_request({"INCR", "count of all"});
}

// Writes until the server is gone.
void write_until_killed(Writer& writer, int port, std::atomic<bool>& stop) {
  constexpr int kDepth = 8;
  try {
    Client client(port);
    while (!stop) {
      std::string batch;
      for (int i = 0; i < kDepth; ++i) batch += operation(writer, writer.base + writer.sent + i);
      writer.sent += kDepth;
      client.send_raw(batch);
      for (int i = 0; i < kDepth; ++i) {
        for (int replies = 0; replies < kOperationReplies; ++replies) {
          const auto reply = client.read();
          ASSERT_FALSE(reply.is_error()) << reply.text;
        }
        ++writer.acknowledged;
      }
    }
  } catch (const Closed&) {
  } catch (const std::system_error& error) {
    // Gone before this one was there.
    if (error.code() != std::errc::connection_refused) throw;
  }
}

// Every acknowledged operation from `begin` up to `end` left its key and its field.
void check_range(Client& client, const Writer& writer, int begin, int end) {
  std::string batch;
  for (int n = begin; n < end; ++n) {
    const auto text = std::to_string(n);
    batch += resp::encode_request({"GET", writer.name("own") + ":" + text}) +
             resp::encode_request({"HGET", writer.name("hash"), text});
  }
  client.send_raw(batch);
  for (int n = begin; n < end; ++n) {
    ASSERT_EQ(client.read().text, std::to_string(n)) << "lost by writer " << writer.number;
    ASSERT_EQ(client.read().text, std::to_string(n)) << "lost by writer " << writer.number;
  }
}

// Checks one writer's data after the restart.
void check_writer(Client& client, Writer& writer) {
  const int promised = writer.base + writer.acknowledged, possible = writer.base + writer.sent;
  check_range(client, writer, writer.base, promised);
  const int count = std::atoi(client.call({"GET", writer.name("count")}).text.c_str());
  EXPECT_GE(count, promised);
  EXPECT_LE(count, possible);
  const auto both = client.call({"MGET", writer.name("left"), writer.name("right")});
  EXPECT_EQ(both.items[0].text, both.items[1].text) << "half a transaction";
  if (promised > 0) {
    EXPECT_GE(std::atoi(both.items[0].text.c_str()), promised - 1);
  }
}

int crash_rounds() {
  const char* wanted = std::getenv("ISTHMUS_CRASH_ROUNDS");
  return wanted == nullptr ? 5 : std::atoi(wanted);
}

TEST_F(Durability, AKillInTheMiddleOfWritesLosesNothingAcknowledged) {
  constexpr int kWriters = 5;
  std::vector<Writer> writers(kWriters);
  for (int i = 0; i < kWriters; ++i) writers[static_cast<std::size_t>(i)].number = i;
  std::mt19937 random(std::random_device{}());
  std::int64_t acknowledged = 0, sent = 0;
  for (int round = 0; round < crash_rounds(); ++round) {
    SCOPED_TRACE("round " + std::to_string(round));
    std::atomic<bool> stop = false;
    const milliseconds lifetime(50 + random() % 700);
    in_threads(kWriters + 1, [&](int thread) {
      if (thread < kWriters)
        return write_until_killed(writers[static_cast<std::size_t>(thread)], server_.port(), stop);
      std::this_thread::sleep_for(lifetime);
      server_.process().signal(SIGKILL);
    });
    stop = true;
    ASSERT_TRUE(server_.process().wait().has_value());
    server_.start();
    auto client = connect();
    for (auto& writer : writers) {
      check_writer(client, writer);
      acknowledged += writer.acknowledged;
      sent += writer.sent;
    }
    const auto total = std::atoll(client.call({"GET", "count of all"}).text.c_str());
    EXPECT_GE(total, acknowledged);
    EXPECT_LE(total, sent);
    if (HasFailure()) return;
    // The next round counts on from what is there.
    for (auto& writer : writers) {
      writer.promised.emplace_back(writer.base, writer.base + writer.acknowledged);
      writer.base = std::atoi(client.call({"GET", writer.name("count")}).text.c_str());
      writer.sent = writer.acknowledged = 0;
    }
  }
  auto client = connect();
  for (const auto& writer : writers)
    for (const auto& [begin, end] : writer.promised) check_range(client, writer, begin, end);
  std::printf("    %d kills, %lld operations of 6 writes acknowledged, %lld sent\n", crash_rounds(),
              static_cast<long long>(acknowledged), static_cast<long long>(sent));
  EXPECT_GT(acknowledged, 0);
}

// Deletions and expiries are writes too: what was deleted before a kill does not come back.
TEST_F(Durability, DeletedStaysDeletedAfterAKill) {
  auto client = connect();
  for (int i = 0; i < 500; ++i) client.call({"SET", "k" + std::to_string(i), "v"});
  crash_and_restart();
  client = connect();
  for (int i = 0; i < 500; i += 2) ASSERT_EQ(client.call({"DEL", "k" + std::to_string(i)}).integer, 1);
  crash_and_restart();
  client = connect();
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 250);
  ASSERT_EQ(client.call({"FLUSHALL"}).text, "OK");
  crash_and_restart();
  EXPECT_EQ(connect().call({"DBSIZE"}).integer, 0);
}

// ---- from outside ----

TEST_F(Durability, TheViewCurrentShowsTheState) {
  ISTHMUS_ONLY();
  auto client = connect();
  client.call({"SET", "greeting", "hello"});
  client.call({"SET", "greeting", "hello world"});
  client.call({"HSET", "room", "sid", "r1", "uid", "u1"});
  client.call({"HDEL", "room", "uid"});
  client.call({"SADD", "seats", "s1", "s2"});
  client.call({"SREM", "seats", "s1"});
  client.call({"SET", "dropped", "x"});
  client.call({"DEL", "dropped"});
  const auto deadline = "4102444800000";
  client.call({"SET", "later", "l", "PXAT", deadline});
  client.call({"SET", "brief", "b", "PX", "1"});
  ASSERT_TRUE(eventually([&] { return client.call({"EXISTS", "brief"}).integer == 0; }));
  client.call({"SELECT", "9"});
  client.call({"SET", "other", "db"});
  const std::vector<std::vector<std::string>> expected{
      {"0", "greeting", "string", "NULL", "hello world", "NULL"},
      {"0", "later", "string", "NULL", "l", deadline},
      {"0", "room", "hash", "sid", "r1", "NULL"},
      {"0", "seats", "set", "s2", "NULL", "NULL"},
      {"9", "other", "string", "NULL", "db", "NULL"}};
  const std::string query =
      "SELECT db, key, type, field, value, expire_at FROM current ORDER BY db, key, field";
  EXPECT_EQ(Database(server_.database()).rows(query), expected);
  ASSERT_TRUE(server_.stop().has_value());
  EXPECT_EQ(Database(server_.database(), true).rows(query), expected);
}

}  // namespace
}  // namespace isthmus::test
