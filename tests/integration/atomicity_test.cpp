// Commands and transactions are atomic whatever other connections do at the same time.
#include <atomic>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

constexpr int kThreads = 8;

class Atomicity : public ::testing::TestWithParam<int> {
 protected:
  Client connect() { return Client(server_.port(), GetParam()); }
  Server server_{{.more = {"--threads", "4"}}};
};

INSTANTIATE_TEST_SUITE_P(Resp, Atomicity, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

TEST_P(Atomicity, IncrementsAddUpExactly) {
  constexpr int kBatches = 50, kBatch = 40;
  in_threads(kThreads, [&](int) {
    auto client = connect();
    std::string batch;
    for (int i = 0; i < kBatch; ++i)
      batch += resp::encode_request({"INCR", "count"}) + resp::encode_request({"INCRBY", "by", "3"}) +
               resp::encode_request({"HINCRBY", "hash", "field", "2"}) +
               resp::encode_request({"APPEND", "text", "x"});
    for (int n = 0; n < kBatches; ++n) {
      std::int64_t last = 0;
      client.send_raw(batch);
      for (int i = 0; i < kBatch; ++i) {
        const auto now = client.read().integer;
        ASSERT_GT(now, last);
        last = now;
        for (int rest = 0; rest < 3; ++rest) ASSERT_EQ(client.read().type, Value::Type::integer);
      }
    }
  });
  auto client = connect();
  constexpr int kTotal = kThreads * kBatches * kBatch;
  EXPECT_EQ(client.call({"GET", "count"}).text, std::to_string(kTotal));
  EXPECT_EQ(client.call({"GET", "by"}).text, std::to_string(3 * kTotal));
  EXPECT_EQ(client.call({"HGET", "hash", "field"}).text, std::to_string(2 * kTotal));
  EXPECT_EQ(client.call({"STRLEN", "text"}).integer, kTotal);
}

TEST_P(Atomicity, SetNxIsWonOnce) {
  constexpr int kLocks = 300;
  std::vector<std::atomic<int>> winners(kLocks);
  in_threads(kThreads, [&](int thread) {
    auto client = connect();
    for (int i = 0; i < kLocks; ++i) {
      const auto reply =
          client.call({"set", "lock:" + std::to_string(i), std::to_string(thread), "ex", "100", "nx"});
      if (reply.text == "OK") ++winners[static_cast<std::size_t>(i)];
    }
  });
  for (int i = 0; i < kLocks; ++i) EXPECT_EQ(winners[static_cast<std::size_t>(i)], 1) << i;
}

// A lock as ion takes it: SET NX, work, DEL. The protected work is a read and a later write of the same
// counter.
TEST_P(Atomicity, ALockExcludes) {
  constexpr int kEach = 60;
  connect().call({"SET", "balance", "0"});
  in_threads(4, [&](int) {
    auto client = connect();
    for (int i = 0; i < kEach; ++i) {
      ASSERT_TRUE(eventually([&] {
        return client.call({"set", "lock", "1", "ex", "60", "nx"}).text == "OK";
      }));
      const auto balance = std::stoi(client.call({"GET", "balance"}).text);
      client.call({"SET", "balance", std::to_string(balance + 1)});
      client.call({"DEL", "lock"});
    }
  });
  EXPECT_EQ(connect().call({"GET", "balance"}).text, std::to_string(4 * kEach));
}

// Transfers between accounts by MULTI: readers in a transaction or by MGET always see the same sum.
TEST_P(Atomicity, TransactionsAreSeenWholeOrNotAtAll) {
  constexpr int kAccounts = 8, kTransfers = 400;
  std::vector<std::string> all{"MGET"};
  auto setup = connect();
  for (int i = 0; i < kAccounts; ++i) {
    all.push_back("account:" + std::to_string(i));
    setup.call({"SET", all.back(), "1000"});
  }
  const std::vector<std::string_view> mget(all.begin(), all.end());
  std::atomic<int> writers{4};
  const auto transfer = [&](int thread) {
    auto client = connect();
    for (int i = 0; i < kTransfers; ++i) {
      const auto from = "account:" + std::to_string((thread + i) % kAccounts);
      const auto to = "account:" + std::to_string((thread * 3 + i * 5 + 1) % kAccounts);
      client.send_raw(resp::encode_request({"MULTI"}) + resp::encode_request({"DECRBY", from, "7"}) +
                      resp::encode_request({"INCRBY", to, "7"}) + resp::encode_request({"EXEC"}));
      for (int replies = 0; replies < 3; ++replies) client.read();
      ASSERT_EQ(client.read().items.size(), 2u);
    }
    --writers;
  };
  const auto watch_sum = [&] {
    auto client = connect();
    while (writers > 0) {
      int sum = 0;
      for (const auto& item : client.call(mget).items) sum += std::stoi(item.text);
      ASSERT_EQ(sum, 1000 * kAccounts);
      std::string exec = resp::encode_request({"MULTI"});
      for (std::size_t i = 1; i < all.size(); ++i) exec += resp::encode_request({"GET", all[i]});
      client.send_raw(exec + resp::encode_request({"EXEC"}));
      for (int replies = 0; replies < kAccounts + 1; ++replies) client.read();
      sum = 0;
      for (const auto& item : client.read().items) sum += std::stoi(item.text);
      ASSERT_EQ(sum, 1000 * kAccounts);
    }
  };
  in_threads(6, [&](int thread) { thread < 4 ? transfer(thread) : watch_sum(); });
}

// MSETNX, RENAME and COPY touch several keys; they must not be seen half done either.
TEST_P(Atomicity, CommandsOfSeveralKeysAreWhole) {
  std::atomic<bool> done = false;
  connect().call({"MSET", "a", "0", "b", "0"});
  in_threads(3, [&](int thread) {
    auto client = connect();
    if (thread == 2) {
      while (!done) {
        const auto both = client.call({"MGET", "a", "b"});
        ASSERT_EQ(both.items[0].text, both.items[1].text);
        const auto moved = client.call({"EXISTS", "here", "there"});
        ASSERT_LE(moved.integer, 1);
      }
      return;
    }
    for (int i = 0; i < 1500; ++i) {
      const auto n = std::to_string(i);
      if (thread == 0) client.call({"MSET", "a", n, "b", n});
      if (thread == 0) client.call({"MSET", "b", n, "a", n});
      if (thread == 1 && i == 0) client.call({"SET", "here", "x"});
      const auto from = i % 2 == 0 ? "here" : "there", to = i % 2 == 0 ? "there" : "here";
      if (thread == 1) {
        ASSERT_EQ(client.call({"RENAME", from, to}).text, "OK");
      }
    }
    if (thread == 0) done = true;
  });
}

// Optimistic increments: read under WATCH, write in a transaction, again when somebody was faster.
TEST_P(Atomicity, WatchLosesNoUpdate) {
  constexpr int kEach = 50;
  std::atomic<int> lost_races = 0;
  connect().call({"SET", "watched", "0"});
  in_threads(6, [&](int) {
    auto client = connect();
    for (int done = 0; done < kEach;) {
      ASSERT_EQ(client.call({"WATCH", "watched"}).text, "OK");
      const auto next = std::to_string(std::stoi(client.call({"GET", "watched"}).text) + 1);
      client.call({"MULTI"});
      client.call({"SET", "watched", next});
      const auto exec = client.call({"EXEC"});
      exec.is_null() ? ++lost_races : ++done;
    }
  });
  EXPECT_EQ(connect().call({"GET", "watched"}).text, std::to_string(6 * kEach));
  std::printf("    WATCH: %d races lost\n", lost_races.load());
}

TEST_P(Atomicity, WatchSeesEveryKindOfChange) {
  auto watcher = connect(), other = connect();
  const std::vector<std::vector<std::string_view>> changes{{"SET", "k", "2"},
                                                           {"APPEND", "k", "x"},
                                                           {"DEL", "k"},
                                                           {"PEXPIRE", "k", "100000"},
                                                           {"RENAME", "k", "moved"},
                                                           {"FLUSHDB"},
                                                           {"FLUSHALL"},
                                                           {"COPY", "source", "k", "REPLACE"},
                                                           {"GETSET", "k", "1"},
                                                           {"SETRANGE", "k", "0", "1"}};
  for (const auto& change : changes) {
    SCOPED_TRACE(change[0]);
    other.call({"MSET", "k", "1", "source", "s"});
    ASSERT_EQ(watcher.call({"WATCH", "k"}).text, "OK");
    ASSERT_FALSE(other.call(change).is_error());
    watcher.call({"MULTI"});
    watcher.call({"PING"});
    EXPECT_TRUE(watcher.call({"EXEC"}).is_null());
  }
}

TEST_P(Atomicity, WatchSeesExpiry) {
  auto watcher = connect();
  // On a slow machine the key may be gone before it is watched.
  bool watched = false;
  for (int ttl_ms = 50; !watched && ttl_ms <= 12'800; ttl_ms *= 2) {
    watcher.call({"UNWATCH"});
    watcher.call({"SET", "brief", "1", "PX", std::to_string(ttl_ms)});
    ASSERT_EQ(watcher.call({"WATCH", "brief"}).text, "OK");
    watched = watcher.call({"EXISTS", "brief"}).integer == 1;
  }
  ASSERT_TRUE(watched);
  ASSERT_TRUE(eventually([&] { return connect().call({"EXISTS", "brief"}).integer == 0; }));
  watcher.call({"MULTI"});
  watcher.call({"PING"});
  EXPECT_TRUE(watcher.call({"EXEC"}).is_null());
}

TEST_P(Atomicity, ErrorsInATransactionAreThoseOfRedis) {
  auto client = connect();
  client.call({"MULTI"});
  EXPECT_EQ(client.call({"SET", "k", "text"}).text, "QUEUED");
  EXPECT_EQ(client.call({"INCR", "k"}).text, "QUEUED");
  EXPECT_EQ(client.call({"SET", "other", "done"}).text, "QUEUED");
  const auto exec = client.call({"EXEC"});
  ASSERT_EQ(exec.items.size(), 3u);
  EXPECT_EQ(exec.items[1].text, "ERR value is not an integer or out of range");
  EXPECT_EQ(client.call({"GET", "other"}).text, "done");
  client.call({"MULTI"});
  EXPECT_EQ(client.call({"MULTI"}).text, "ERR MULTI calls can not be nested");
  EXPECT_EQ(client.call({"WATCH", "k"}).text, "ERR WATCH inside MULTI is not allowed");
  EXPECT_EQ(client.call({"SET", "k"}).text, "ERR wrong number of arguments for 'set' command");
  EXPECT_EQ(client.call({"EXEC"}).text, "EXECABORT Transaction discarded because of previous errors.");
  EXPECT_EQ(client.call({"EXEC"}).text, "ERR EXEC without MULTI");
  EXPECT_EQ(client.call({"DISCARD"}).text, "ERR DISCARD without MULTI");
}

}  // namespace
}  // namespace isthmus::test
