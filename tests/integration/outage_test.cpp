// The backend fails under a running server: disk full, file moved, file locked. Reads and pub/sub go on,
// writes get a clear error, and everything works again when the cause is gone.
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>

#include <gtest/gtest.h>
#include <sys/mount.h>
#include <unistd.h>

#include "tests/support/client.hpp"
#include "tests/support/database.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

constexpr milliseconds kCommitTimeout(1000);

bool is_outage(const Value& reply) { return reply.is_error() && reply.text.starts_with("CLUSTERDOWN "); }

// A server with a short commit timeout, and what its clients know to be written.
class Outage : public ::testing::Test {
 protected:
  void SetUp() override {
    ISTHMUS_ONLY();
    start("sqlite:");
  }

  void start(const std::string& backend) {
    server_ = std::make_unique<Server>(ServerOptions{
        .backend = backend, .more = {"--commit-timeout", std::to_string(kCommitTimeout.count())}});
    for (int i = 0; i < 100; ++i) write_surely("before:" + std::to_string(i), "b");
  }

  Client connect(int protocol = 2) { return Client(server_->port(), protocol); }

  // A write; when acknowledged it must be there for ever.
  Value write(const std::string& key, const std::string& value) {
    const auto reply = connect().call({"SET", key, value});
    if (reply.text == "OK" && !reply.is_error()) promised_[key] = value;
    return reply;
  }

  // A write while there is no outage. A machine that stands still for longer than the short commit timeout
  // looks like one, for a moment.
  void write_surely(const std::string& key, const std::string& value) {
    ASSERT_TRUE(eventually([&] { return write(key, value).text == "OK"; })) << key << "\n" << server_->log();
  }

  // Writes fail clearly and soon, everything else goes on.
  void expect_outage() {
    int attempt = 0;
    ASSERT_TRUE(eventually([&] { return is_outage(write("try:" + std::to_string(attempt++), "t")); }))
        << "writes are still acknowledged\n"
        << server_->log();
    expect_fast_refusal();
    auto client = connect();
    EXPECT_EQ(client.call({"GET", "before:7"}).text, "b");
    EXPECT_EQ(client.call({"EXISTS", "before:8"}).integer, 1);
    EXPECT_EQ(client.call({"PING"}).text, "PONG");
    EXPECT_TRUE(is_outage(client.call({"HSET", "in outage", "f", "v"})));
    EXPECT_TRUE(is_outage(client.call({"DEL", "before:9"})));
    auto subscriber = connect(3);
    subscriber.subscribe("SUBSCRIBE", {"c"});
    for (int i = 0; i < 10; ++i) {
      ASSERT_EQ(client.call({"PUBLISH", "c", std::to_string(i)}).integer, 1);
      ASSERT_EQ(subscriber.next_message().payload, std::to_string(i));
    }
  }

  // Once the outage is known nobody waits for the whole timeout again.
  void expect_fast_refusal() {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(is_outage(write("refused:" + std::to_string(i), "r")));
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 10 * kCommitTimeout);
  }

  void expect_recovery() {
    int attempt = 0;
    ASSERT_TRUE(eventually([&] { return write("again:" + std::to_string(attempt++), "a").text == "OK"; }))
        << server_->log();
    for (int i = 0; i < 50; ++i) write_surely("after:" + std::to_string(i), "a");
    expect_promises();
    expect_memory_is_what_is_stored();
  }

  void expect_promises() {
    auto client = connect();
    for (const auto& [key, value] : promised_) ASSERT_EQ(client.call({"GET", key}).text, value) << key;
  }

  // The state that clients see is that of the database, whatever became of the unacknowledged.
  void expect_memory_is_what_is_stored() {
    const auto before = snapshot();
    server_->kill_now();
    server_->start();
    EXPECT_EQ(snapshot(), before);
    expect_promises();
  }

  std::map<std::string, std::string> snapshot() {
    std::map<std::string, std::string> all;
    auto client = connect();
    for (const auto& key : client.call({"KEYS", "*"}).items) {
      const auto value = client.call({"TYPE", key.text}).text == "string"
                             ? client.call({"GET", key.text})
                             : client.call({"HGETALL", key.text});
      all[key.text] = to_text(value);
    }
    return all;
  }

  std::unique_ptr<Server> server_;
  std::map<std::string, std::string> promised_;
};

TEST_F(Outage, OfADiskThatTakesNoMore) {
  server_->process().limit(RLIMIT_FSIZE, 1024);
  expect_outage();
  server_->process().limit(RLIMIT_FSIZE, RLIM_INFINITY);
  expect_recovery();
}

TEST_F(Outage, ComesAndGoesSeveralTimes) {
  for (int round = 0; round < 3; ++round) {
    server_->process().limit(RLIMIT_FSIZE, 1024);
    int attempt = 0;
    ASSERT_TRUE(eventually([&] { return is_outage(write("try:" + std::to_string(attempt++), "t")); }));
    server_->process().limit(RLIMIT_FSIZE, RLIM_INFINITY);
    ASSERT_TRUE(eventually([&] { return write("again:" + std::to_string(attempt++), "a").text == "OK"; }));
  }
  expect_recovery();
}

TEST_F(Outage, OfAMovedFile) {
  const auto path = server_->database(), moved = path + ".elsewhere";
  std::filesystem::rename(path, moved);
  expect_outage();
  std::filesystem::rename(moved, path);
  expect_recovery();
}

// A deleted file is not made anew behind the operator's back.
TEST_F(Outage, OfADeletedFileStays) {
  std::filesystem::remove(server_->database());
  expect_outage();
  EXPECT_FALSE(std::filesystem::exists(server_->database()));
  EXPECT_TRUE(is_outage(write("still", "s")));
}

TEST_F(Outage, OfALockedDatabase) {
  {
    Database holder(server_->database(), true);
    holder.run("BEGIN IMMEDIATE");
    expect_outage();
    holder.run("ROLLBACK");
  }
  expect_recovery();
}

// Counters: an INCR whose outcome was unknown is either in memory and in the database, or in neither.
TEST_F(Outage, LeavesCountersAsTheyAreStored) {
  auto client = connect();
  // As in write_surely: with an unknown one among them they begin again.
  ASSERT_TRUE(eventually([&] {
    client.call({"DEL", "n"});
    std::int64_t last = 0;
    for (int i = 0; i < 10; ++i) last = client.call({"INCR", "n"}).integer;
    return last == 10;
  }));
  server_->process().limit(RLIMIT_FSIZE, 1024);
  int unknown = 0;
  for (; unknown < 5; ++unknown) ASSERT_TRUE(is_outage(client.call({"INCR", "n"})));
  server_->process().limit(RLIMIT_FSIZE, RLIM_INFINITY);
  ASSERT_TRUE(eventually([&] {
    const auto reply = client.call({"INCR", "n"});
    if (reply.text.starts_with("CLUSTERDOWN The write is not in the log yet")) ++unknown;
    return reply.type == Value::Type::integer;
  }));
  const auto seen = client.call({"GET", "n"}).text;
  EXPECT_GE(std::stoi(seen), 11);
  EXPECT_LE(std::stoi(seen), 11 + unknown);
  server_->kill_now();
  server_->start();
  EXPECT_EQ(connect().call({"GET", "n"}).text, seen);
}

// A read of a key whose write is not committed may not show it: either it is known, or it is an error.
TEST_F(Outage, ShowsNothingUncommitted) {
  write_surely("shown", "old");
  server_->process().limit(RLIMIT_FSIZE, 1024);
  auto writer = connect();
  auto reader = connect();
  writer.send({"SET", "shown", "new"});
  for (int i = 0; i < 50; ++i) {
    const auto reply = reader.call({"GET", "shown"});
    ASSERT_TRUE(is_outage(reply) || reply.text == "old") << to_text(reply);
    if (is_outage(reply)) break;
  }
  EXPECT_TRUE(is_outage(writer.read()));
  server_->process().limit(RLIMIT_FSIZE, RLIM_INFINITY);
  promised_.erase("shown");
  expect_recovery();
}

// A real full disk: a file system of 8 MiB that fills up. Needs the right to mount.
TEST_F(Outage, OfAFullFileSystem) {
  TempFolder folder;
  if (::mount("isthmus-test", folder.path().c_str(), "tmpfs", 0, "size=8m") != 0)
    GTEST_SKIP() << "may not mount";
  const std::function<void(void*)> unmount = [&](void*) {
    server_.reset();
    ::umount2(folder.path().c_str(), MNT_DETACH);
  };
  const std::unique_ptr<void, std::function<void(void*)>> unmounting(&folder, unmount);
  start("sqlite:" + folder.file("isthmus.db"));
  const auto filler = folder.file("filler");
  {
    std::ofstream out(filler, std::ios::binary);
    const std::string block(4096, 'f');
    while (out.write(block.data(), 4096).flush()) {
    }
  }
  expect_outage();
  std::filesystem::remove(filler);
  expect_recovery();
}

// SIGTERM during an outage still ends in time: what cannot be committed is told so.
TEST_F(Outage, DoesNotKeepTheServerFromEnding) {
  server_->process().limit(RLIMIT_FSIZE, 1024);
  auto client = connect();
  client.send({"SET", "open", "o"});
  const auto status = server_->stop();
  ASSERT_TRUE(status.has_value()) << "still running\n" << server_->log();
  EXPECT_EQ(status->signal, 0);
  // Either the error came, or nothing at all; never an OK.
  try {
    EXPECT_TRUE(is_outage(client.read()));
  } catch (const Closed&) {
  }
}

}  // namespace
}  // namespace isthmus::test
