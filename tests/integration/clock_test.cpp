// The wall clock steps back under a running server, by more than clocks may differ: what came later stays
// later.
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

/// The clock of the servers that are started while this object lives; see tests/chaos/clock_offset.cpp.
class WallClock {
 public:
  WallClock() {
    step(seconds(0));
    set("ISTHMUS_TEST_CLOCK", file_);
    set("LD_PRELOAD", ISTHMUS_TEST_CLOCK_LIBRARY);
    // AddressSanitizer wants to be the first library, and does as well as the second.
    const char* options = std::getenv("ASAN_OPTIONS");
    set("ASAN_OPTIONS", "verify_asan_link_order=0" + (options == nullptr ? "" : ":" + std::string(options)));
  }
  ~WallClock() {
    for (const auto& [name, value] : before_) {
      if (value) {
        ::setenv(name.c_str(), value->c_str(), 1);
      } else {
        ::unsetenv(name.c_str());
      }
    }
  }
  WallClock(const WallClock&) = delete;
  WallClock& operator=(const WallClock&) = delete;

  /// From now on the clock is so far from the true one.
  void step(std::chrono::nanoseconds offset) {
    const std::int64_t value = offset.count();
    // Servers map the file, so it is never shorter than this.
    const int file = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    ASSERT_EQ(::pwrite(file, &value, sizeof value, 0), static_cast<ssize_t>(sizeof value));
    ::close(file);
  }

 private:
  void set(const std::string& name, const std::string& value) {
    const char* old = std::getenv(name.c_str());
    before_[name] = old == nullptr ? std::nullopt : std::optional<std::string>(old);
    ::setenv(name.c_str(), value.c_str(), 1);
  }

  const TempFolder folder_;
  const std::string file_ = folder_.file("offset");
  std::map<std::string, std::optional<std::string>> before_;
};

class ClockThatStepsBack : public ::testing::Test {
 protected:
  void SetUp() override {
    ISTHMUS_ONLY();
    server_.emplace(ServerOptions{.backend = "sqlite:", .more = {"--max-clock-skew", "5s"}});
  }

  Client connect() { return Client(server_->port()); }
  /// The clock steps back; returns when the server has seen it.
  void step_back() {
    Client client = connect();
    const auto now = [&] { return std::stoll(client.call({"TIME"}).items.at(0).text); };
    const std::int64_t before = now();
    clock_.step(seconds(-30));
    ASSERT_TRUE(eventually([&] { return now() < before - 20; }));
  }
  std::int64_t isthmus_field(const std::string& name) {
    Client client = connect();
    return std::stoll(info_field(client, "isthmus", name).value());
  }
  /// Does the writes, and waits until a checkpoint has them.
  void checkpoint(const std::function<void(Client&)>& writes) {
    const std::int64_t before = isthmus_field("checkpoints");
    Client client = connect();
    writes(client);
    ASSERT_TRUE(eventually(
        [&] { return isthmus_field("dirty_entries") == 0 && isthmus_field("checkpoints") > before; }));
  }
  void crash_and_restart() {
    server_->kill_now();
    server_->start();
  }

  WallClock clock_;
  std::optional<Server> server_;
};

// A checkpoint does not take what is older than what it has.
TEST_F(ClockThatStepsBack, DoesNotBringADeletedValueBackFromACheckpoint) {
  connect().call({"SET", "lock", "first"});
  step_back();
  checkpoint([](Client& client) {
    for (int i = 0; i < 8; ++i) client.call({"SET", "lock", "owner-old"});
  });
  checkpoint([](Client& client) {
    EXPECT_EQ(show(client.call({"DEL", "lock"})), "(integer) 1");
    EXPECT_EQ(show(client.call({"SET", "lock", "owner-new"})), "OK");
  });
  EXPECT_EQ(show(connect().call({"GET", "lock"})), "\"owner-new\"");
  crash_and_restart();
  EXPECT_EQ(show(connect().call({"GET", "lock"})), "\"owner-new\"");
}

TEST_F(ClockThatStepsBack, LeavesNothingBehindAFlush) {
  connect().call({"SET", "counter", "0"});
  step_back();
  Client client = connect();
  for (int i = 1; i <= 8; ++i) EXPECT_EQ(client.call({"INCR", "counter"}).integer, i);
  client.call({"HSET", "h", "a", "1", "b", "2", "c", "3", "d", "4"});
  EXPECT_EQ(show(client.call({"FLUSHALL"})), "OK");
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 0);
  crash_and_restart();
  EXPECT_EQ(connect().call({"DBSIZE"}).integer, 0);
}

}  // namespace
}  // namespace isthmus::test
