// A connection's own state: password, database, name, CLIENT commands.
#include <string>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

class Password : public ::testing::TestWithParam<int> {
 protected:
  Server server_{{.more = {"--requirepass", "s3cret word"}}};
};

INSTANTIATE_TEST_SUITE_P(Resp, Password, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

TEST_P(Password, IsWantedBeforeAnyCommand) {
  Client client(server_.port());
  EXPECT_EQ(client.call({"GET", "k"}).text, "NOAUTH Authentication required.");
  EXPECT_EQ(client.call({"PING"}).text, "NOAUTH Authentication required.");
  EXPECT_EQ(client.call({"SUBSCRIBE", "c"}).text, "NOAUTH Authentication required.");
  EXPECT_EQ(client.call({"AUTH", "wrong"}).text,
            "WRONGPASS invalid username-password pair or user is disabled.");
  EXPECT_EQ(client.call({"GET", "k"}).text, "NOAUTH Authentication required.");
  EXPECT_EQ(client.call({"AUTH", "s3cret word"}).text, "OK");
  EXPECT_EQ(client.call({"SET", "k", "v"}).text, "OK");
  EXPECT_EQ(client.call({"RESET"}).text, "RESET");
  EXPECT_EQ(client.call({"GET", "k"}).text, "NOAUTH Authentication required.");
}

TEST_P(Password, IsTakenByHello) {
  Client client(server_.port());
  const auto version = std::to_string(GetParam());
  EXPECT_TRUE(client.call({"HELLO", version})
                  .text.starts_with("NOAUTH HELLO must be called with the client already"));
  EXPECT_TRUE(client.call({"HELLO", version, "AUTH", "default", "no"}).text.starts_with("WRONGPASS "));
  const auto hello = client.call({"HELLO", version, "AUTH", "default", "s3cret word", "SETNAME", "me"});
  EXPECT_EQ(hello.type, GetParam() == 3 ? Value::Type::map : Value::Type::array);
  EXPECT_EQ(client.call({"CLIENT", "GETNAME"}).text, "me");
}

TEST_P(Password, StrangersMaySendLittle) {
  Client many(server_.port()), large(server_.port());
  many.send_raw("*11\r\n");
  EXPECT_EQ(many.read().text, "ERR Protocol error: unauthenticated multibulk length");
  large.send_raw("*2\r\n$3\r\nGET\r\n$16385\r\n");
  EXPECT_EQ(large.read().text, "ERR Protocol error: unauthenticated bulk length");
  EXPECT_TRUE(many.closed_within());
  EXPECT_TRUE(large.closed_within());
}

TEST_P(Password, StrangersThatReadNothingAreClosed) {
  ISTHMUS_ONLY();
  Client stranger(server_.port(), 2, 4096);
  std::string flood;
  while (flood.size() < (std::size_t{16} << 20)) flood += "a\r\n";
  EXPECT_LT(stranger.push_raw(flood, milliseconds(5000)), flood.size());
  EXPECT_TRUE(
      eventually([&] { return server_.log().find("client-output-buffer-limit") != std::string::npos; }));
}

TEST_P(Password, BindsNobodyWhenItIsTakenAway) {
  Client stranger(server_.port()), client(server_.port());
  EXPECT_TRUE(stranger.call({"GET", "k"}).is_error());
  client.call({"AUTH", "s3cret word"});
  client.call({"CONFIG", "SET", "requirepass", ""});
  EXPECT_EQ(show(stranger.call({"SET", "k", std::string(20'000, 'v')})), "OK");
}

TEST_P(Password, IsNotInTheLog) {
  Client client(server_.port());
  client.call({"AUTH", "s3cret word"});
  client.call({"AUTH", "s3cret word, not quite"});
  ASSERT_TRUE(server_.stop().has_value());
  EXPECT_EQ(server_.log().find("s3cret word"), std::string::npos);
}

class Connection : public ::testing::TestWithParam<int> {
 protected:
  Client connect() { return Client(server_.port(), GetParam()); }
  Server server_;
};

INSTANTIATE_TEST_SUITE_P(Resp, Connection, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

TEST_P(Connection, HasADatabaseOfItsOwn) {
  auto first = connect(), second = connect();
  for (int db = 0; db < 16; ++db) {
    ASSERT_EQ(first.call({"SELECT", std::to_string(db)}).text, "OK");
    ASSERT_EQ(first.call({"SET", "k", std::to_string(db)}).text, "OK");
  }
  EXPECT_EQ(first.call({"SELECT", "16"}).text, "ERR DB index is out of range");
  EXPECT_EQ(first.call({"SELECT", "x"}).text, "ERR value is not an integer or out of range");
  EXPECT_EQ(first.call({"GET", "k"}).text, "15");
  EXPECT_EQ(second.call({"GET", "k"}).text, "0");
  EXPECT_EQ(second.call({"SELECT", "7"}).text, "OK");
  EXPECT_EQ(second.call({"FLUSHDB"}).text, "OK");
  EXPECT_EQ(second.call({"GET", "k"}).type, Value::Type::null);
  EXPECT_EQ(first.call({"GET", "k"}).text, "15");
  EXPECT_EQ(connect().call({"GET", "k"}).text, "0");
}

// SELECT holds from its place in a pipeline on.
TEST_P(Connection, SelectsInsideAPipeline) {
  auto client = connect();
  client.send_raw(resp::encode_request({"SET", "k", "zero"}) + resp::encode_request({"SELECT", "1"}) +
                  resp::encode_request({"SET", "k", "one"}) + resp::encode_request({"SELECT", "0"}) +
                  resp::encode_request({"GET", "k"}));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "zero");
}

TEST_P(Connection, IsFoundAndKilledByOthers) {
  auto victim = connect(), killer = connect();
  ASSERT_EQ(victim.call({"CLIENT", "SETNAME", "victim"}).text, "OK");
  const auto id = std::to_string(victim.call({"CLIENT", "ID"}).integer);
  const auto list = killer.call({"CLIENT", "LIST"}).text;
  EXPECT_NE(list.find("id=" + id + " "), std::string::npos) << list;
  EXPECT_NE(list.find(" name=victim "), std::string::npos) << list;
  EXPECT_EQ(killer.call({"CLIENT", "KILL", "ID", id}).integer, 1);
  EXPECT_TRUE(victim.closed_within());
  EXPECT_EQ(killer.call({"CLIENT", "KILL", "ID", id}).integer, 0);
}

TEST_P(Connection, MayKillItself) {
  auto client = connect();
  const auto id = std::to_string(client.call({"CLIENT", "ID"}).integer);
  EXPECT_EQ(client.call({"CLIENT", "KILL", "ID", id, "SKIPME", "no"}).integer, 1);
  EXPECT_TRUE(client.closed_within());
}

TEST_P(Connection, ClientReplyOffIsSilent) {
  auto client = connect();
  client.send_raw(resp::encode_request({"CLIENT", "REPLY", "OFF"}) + resp::encode_request({"SET", "k", "1"}) +
                  resp::encode_request({"CLIENT", "REPLY", "ON"}) +
                  resp::encode_request({"CLIENT", "REPLY", "SKIP"}) +
                  resp::encode_request({"SET", "k", "2"}) + resp::encode_request({"GET", "k"}));
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "2");
}

// Writes wait while clients are paused, and go on when they are not.
TEST_P(Connection, AHalfClosedClientGetsAllOfItsReply) {
  ISTHMUS_ONLY();
  const std::string value(std::size_t{8} << 20, 'v');
  Client writer(server_.port()), client(server_.port(), 2, 4096);
  writer.call({"SET", "big", value});
  client.send_raw("GET big\r\n");
  client.finish_sending();
  EXPECT_EQ(client.read().text.size(), value.size());
  EXPECT_TRUE(client.closed_within());
}

TEST_P(Connection, PausedWritersGoOnLater) {
  auto admin = connect(), writer = connect(), reader = connect();
  ASSERT_EQ(admin.call({"CLIENT", "PAUSE", "60000", "WRITE"}).text, "OK");
  writer.send({"SET", "k", "v"});
  EXPECT_EQ(reader.call({"GET", "k"}).type, Value::Type::null);
  EXPECT_THROW(writer.read(milliseconds(50)), TimedOut);
  EXPECT_EQ(admin.call({"CLIENT", "UNPAUSE"}).text, "OK");
  EXPECT_EQ(writer.read().text, "OK");
  EXPECT_EQ(reader.call({"GET", "k"}).text, "v");
}

TEST_P(Connection, MonitorSeesCommandsOfOthers) {
  auto monitor = connect(), client = connect();
  ASSERT_EQ(monitor.call({"MONITOR"}).text, "OK");
  ASSERT_EQ(client.call({"SET", "seen", "a\"b"}).text, "OK");
  const auto line = monitor.read();
  EXPECT_EQ(line.type, Value::Type::simple);
  EXPECT_NE(line.text.find("\"SET\" \"seen\" \"a\\\"b\""), std::string::npos) << line.text;
}

TEST(MaxMemory, RefusesWritesAndKeepsReads) {
  Server server;
  Client client(server.port());
  ASSERT_EQ(client.call({"SET", "k", "before"}).text, "OK");
  const auto used = std::stoll(info_field(client, "memory", "used_memory").value_or("0"));
  ASSERT_GT(used, 0);
  ASSERT_EQ(client.call({"CONFIG", "SET", "maxmemory", std::to_string(used + (8 << 20))}).text, "OK");
  const std::string value(100'000, 'v');
  std::string refusal;
  for (int i = 0; i < 1000 && refusal.empty(); ++i) {
    const auto reply = client.call({"SET", "fill:" + std::to_string(i), value});
    if (reply.is_error()) refusal = reply.text;
  }
  EXPECT_EQ(refusal, "OOM command not allowed when used memory > 'maxmemory'.");
  EXPECT_EQ(client.call({"GET", "k"}).text, "before");
  EXPECT_EQ(client.call({"PUBLISH", "c", "m"}).integer, 0);
  EXPECT_EQ(client.call({"HSET", "h", "f", value}).text, refusal);
  EXPECT_EQ(client.call({"MULTI"}).text, "OK");
  EXPECT_EQ(client.call({"SET", "k", value}).text, refusal);
  EXPECT_EQ(client.call({"EXEC"}).text, "EXECABORT Transaction discarded because of previous errors.");
  EXPECT_EQ(client.call({"DEL", "fill:0", "fill:1", "fill:2", "fill:3"}).integer, 4);
  EXPECT_TRUE(eventually([&] { return client.call({"SET", "k", "after"}).text == "OK"; }));
}

TEST(MaxMemory, IsAnOptionToo) {
  Server server({.more = {"--maxmemory", "1mb"}});
  Client client(server.port());
  std::string refusal;
  for (int i = 0; i < 100 && refusal.empty(); ++i) {
    const auto reply = client.call({"SET", "fill:" + std::to_string(i), std::string(100'000, 'v')});
    if (reply.is_error()) refusal = reply.text;
  }
  EXPECT_EQ(refusal, "OOM command not allowed when used memory > 'maxmemory'.");
}

}  // namespace
}  // namespace isthmus::test
