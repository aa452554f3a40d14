// PING to SELECT: replies, errors, and what they change about the connection.
#include "src/command/connection.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class Connection : public testing::Test {
 protected:
  CommandRunner run_;
};

TEST_F(Connection, PingAnswersPongOrItsMessage) {
  EXPECT_EQ(run_("PING"), "+PONG\r\n");
  EXPECT_EQ(run_("ping hello"), "$5\r\nhello\r\n");
  EXPECT_EQ(run_("PING a b"), "-ERR wrong number of arguments for 'ping' command\r\n");
}

TEST_F(Connection, PingAnswersAnArrayToAnOldProtocolSubscriber) {
  run_.client().subscribe(ChannelKind::shard, "c");
  EXPECT_EQ(run_("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
  EXPECT_EQ(run_("PING x"), "*2\r\n$4\r\npong\r\n$1\r\nx\r\n");
  run_.client().protocol = 3;
  EXPECT_EQ(run_("PING"), "+PONG\r\n");
}

TEST_F(Connection, QuitRepliesAndThenCloses) {
  EXPECT_EQ(run_("QUIT now"), "+OK\r\n");
  EXPECT_TRUE(run_.client().close_after_reply);
}

TEST_F(Connection, SelectTakesTheSixteenDatabases) {
  EXPECT_EQ(run_("SELECT 15"), "+OK\r\n");
  EXPECT_EQ(run_.client().db.load(), 15);
  EXPECT_EQ(run_("SELECT 16"), "-ERR DB index is out of range\r\n");
  EXPECT_EQ(run_("SELECT -1"), "-ERR DB index is out of range\r\n");
  EXPECT_EQ(run_("SELECT x"), "-ERR value is not an integer or out of range\r\n");
  EXPECT_EQ(run_("SELECT 01"), "-ERR value is not an integer or out of range\r\n");
  EXPECT_EQ(run_.client().db.load(), 15);
}

TEST_F(Connection, ResetMakesTheConnectionNew) {
  Client& client = run_.client();
  run_("HELLO 3 SETNAME me");
  run_("SELECT 7");
  run_("CLIENT REPLY OFF");
  for (const ChannelKind kind : {ChannelKind::channel, ChannelKind::pattern, ChannelKind::shard}) {
    client.subscribe(kind, "a");
    client.subscribe(kind, "b");
  }
  run_("MONITOR");
  run_("WATCH k");
  run_("MULTI");
  run_("SET k v");
  EXPECT_EQ(run_("RESET"), "+RESET\r\n");
  EXPECT_EQ(client.protocol, 2);
  EXPECT_EQ(client.db.load(), 0);
  EXPECT_EQ(client.name, "");
  EXPECT_EQ(client.reply_mode, ReplyMode::on);
  EXPECT_FALSE(client.in_multi);
  EXPECT_TRUE(client.queue.empty());
  EXPECT_TRUE(client.watched.empty());
  EXPECT_FALSE(client.monitors.load());
  EXPECT_FALSE(client.in_subscribed_mode());
  EXPECT_EQ(run_("EXEC"), "-ERR EXEC without MULTI\r\n");
}

TEST_F(Connection, ResetAsksForThePasswordAgain) {
  run_.settings().set_password("sesame");
  EXPECT_EQ(run_("RESET"), "+RESET\r\n");
  EXPECT_EQ(run_("PING"), "-NOAUTH Authentication required.\r\n");
}

TEST_F(Connection, AuthWithoutAPasswordSet) {
  EXPECT_THAT(
      run_("AUTH x"),
      StartsWith("-ERR AUTH <password> called without any password configured for the default user."));
  EXPECT_EQ(run_("AUTH default anything"), "+OK\r\n");
  EXPECT_EQ(run_("AUTH other anything"),
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
  EXPECT_EQ(run_("AUTH a b c"), "-ERR syntax error\r\n");
}

TEST_F(Connection, AuthWithAPasswordSet) {
  constexpr std::string_view kWrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
  run_.settings().set_password("sesame");
  run_.client().authenticated = false;
  EXPECT_EQ(run_("AUTH sesam"), kWrong);
  EXPECT_EQ(run_("AUTH sesamE"), kWrong);
  EXPECT_EQ(run_("AUTH Default sesame"), kWrong);
  EXPECT_FALSE(run_.client().authenticated);
  EXPECT_EQ(run_("AUTH default sesame"), "+OK\r\n");
  EXPECT_TRUE(run_.client().authenticated);
  EXPECT_EQ(run_("AUTH wrong"), kWrong);
  EXPECT_TRUE(run_.client().authenticated) << "a failed AUTH leaves the connection as it was";
  EXPECT_EQ(run_.services().stats.auth_failures.load(), 4u);
}

TEST_F(Connection, HelloDescribesTheServerInEitherProtocol) {
  run_.client().id = 9;
  EXPECT_EQ(run_("HELLO"),
            "*14\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:2\r\n"
            "$2\r\nid\r\n:9\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
            "$7\r\nmodules\r\n*0\r\n");
  EXPECT_THAT(run_("HELLO 3"), StartsWith("%7\r\n$6\r\nserver\r\n"));
  EXPECT_EQ(run_.client().protocol, 3);
  EXPECT_THAT(run_("HELLO"), HasSubstr("$5\r\nproto\r\n:3\r\n"));
  EXPECT_THAT(run_("HELLO 2"), StartsWith("*14\r\n"));
}

TEST_F(Connection, HelloRefusesWhatItDoesNotKnow) {
  EXPECT_EQ(run_("HELLO 4"), "-NOPROTO unsupported protocol version\r\n");
  EXPECT_EQ(run_("HELLO 1"), "-NOPROTO unsupported protocol version\r\n");
  EXPECT_EQ(run_("HELLO three"), "-ERR Protocol version is not an integer or out of range\r\n");
  EXPECT_EQ(run_("HELLO 3 AUTH default"), "-ERR Syntax error in HELLO option 'AUTH'\r\n");
  EXPECT_EQ(run_("HELLO 3 what"), "-ERR Syntax error in HELLO option 'what'\r\n");
  EXPECT_EQ(run_.client().protocol, 2);
}

TEST_F(Connection, HelloNeedsAuthenticationUnlessItBringsIt) {
  run_.settings().set_password("sesame");
  run_.client().authenticated = false;
  EXPECT_THAT(run_("HELLO 3"), StartsWith("-NOAUTH HELLO must be called with the client already"));
  EXPECT_EQ(run_.client().protocol, 2);
  EXPECT_EQ(run_("HELLO 3 AUTH default wrong"),
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n");
  EXPECT_THAT(run_("HELLO 3 AUTH default sesame SETNAME me"), StartsWith("%7\r\n"));
  EXPECT_EQ(run_.client().name, "me");
}

TEST_F(Connection, HelloDoesItsOptionsOneAfterTheOther) {
  EXPECT_EQ(run_("HELLO 3 SETNAME early what"), "-ERR Syntax error in HELLO option 'what'\r\n");
  EXPECT_EQ(run_.client().name, "early");
  EXPECT_EQ(run_.client().protocol, 2);
}

TEST(EqualSecrets, ComparesContentAndLength) {
  EXPECT_TRUE(equal_secrets("", ""));
  EXPECT_TRUE(equal_secrets("abc", "abc"));
  EXPECT_FALSE(equal_secrets("abc", "abd"));
  EXPECT_FALSE(equal_secrets("abc", "ab"));
  EXPECT_FALSE(equal_secrets("", "a"));
  EXPECT_FALSE(equal_secrets(std::string_view("a\0b", 3), std::string_view("a\0c", 3)));
}

}  // namespace
}  // namespace isthmus
