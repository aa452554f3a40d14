// Commands that go to the writer of the site, and those that come from other servers, without sockets.
#include "src/command/forwarded.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "resp/reply_reader.hpp"
#include "src/site/forwarder.hpp"
#include "src/site/site.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

// A shared log of which only the secret matters.
class FakeSharedLog final : public backend::SharedLog {
 public:
  std::string secret() const override { return "secret"; }
  std::string site_name() const override { return {}; }
  bool connect(std::string&) override { return true; }
  bool connected() const override { return true; }
  void disconnect() override {}
  bool try_lock() override { return false; }
  void end_holder() override {}
  backend::LeaseRow newest_lease() override { return {}; }
  backend::Seq last_seq(backend::OriginId) override { return 0; }
  void beat(backend::OriginId) override {}
  void append(const backend::RowBatch&, const std::vector<std::int64_t>&) override {}
  void append(const backend::RowBatch&) override {}
  backend::UpkeepReport upkeep(const backend::ServerRow&, backend::OriginId) override { return {}; }
  void guard_checkpoint(backend::OriginId) override {}
  void read_uncovered(backend::LoadSink&) override {}
  void sign_off(backend::OriginId) override {}
  std::unique_ptr<backend::Feed> open_feed() override { return nullptr; }
  std::unique_ptr<backend::Links> open_links() override { return nullptr; }
  bool durable() const override { return true; }
  backend::SiteId site() const override { return 1; }
  void load(backend::LoadSink&) override {}
  void write_checkpoint(const backend::CheckpointChunk&) override {}
  bool forget_flushed(std::uint8_t, backend::Version, backend::SiteId) override { return false; }
  void put_mark(const backend::CheckpointMark&) override {}
  bool cut() override { return false; }
  std::uint64_t disk_bytes() const override { return 0; }
  std::string description() const override { return "fake"; }
};

// A server of a site. Its keyspace and journal are those of CommandRunner, in memory.
struct Member {
  explicit Member(Role role) {
    site.set_role(role);
    runner.services().site = &site;
    runner.services().forwarder = &forwarder;
  }
  Outcome dispatch(Client& client, const std::vector<std::string_view>& args, std::string& reply) {
    resp::Writer writer(reply, client.protocol);
    return isthmus::dispatch(runner.services(), client, args, writer, runner.now_ms());
  }

  CommandRunner runner;
  FakeSharedLog log;
  Site site{log, "host:1", "test"};
  Forwarder forwarder{site, runner.settings().commit_timeout_ms, nullptr};
};

class ForwardedTest : public testing::Test {
 protected:
  ForwardedTest() { EXPECT_THAT(say({"ISTHMUS", "HELLO", "secret", "77", "1"}), StartsWith("*2\r\n:")); }

  // The writer's reply on the connection between the servers.
  std::string say(const std::vector<std::string_view>& args) {
    std::string reply;
    outcome_ = writer_.dispatch(connection_, args, reply);
    return reply;
  }

  // A client of the follower sends a command: the reply, wherever it comes from.
  std::string run(const std::vector<std::string_view>& args) {
    std::string reply;
    const Outcome outcome = follower_.dispatch(client_, args, reply);
    if (!outcome.forward) return reply;
    EXPECT_EQ(reply, "");
    ++forwarded_;
    const ForwardRequest request = forward_request(follower_.runner.services(), client_, args);
    if (client_.in_multi) end_transaction(follower_.runner.services(), client_);
    return carry(request);
  }
  std::string run(std::string_view line) {
    std::vector<std::string_view> args;
    for (std::size_t begin = 0; begin <= line.size();) {
      const std::size_t end = std::min(line.find(' ', begin), line.size());
      args.push_back(line.substr(begin, end - begin));
      begin = end + 1;
    }
    return run(args);
  }

  std::string carry(const ForwardRequest& request) {
    std::string bytes = "*" + std::to_string(request.argc) + "\r\n" + request.args;
    resp::ReplyReader words;
    words.feed(bytes);
    resp::Value value;
    EXPECT_EQ(words.next(value), resp::ReplyReader::Status::value);
    const std::string number = std::to_string(++number_), db = std::to_string(request.db),
                      protocol = std::to_string(request.protocol),
                      position = std::to_string(request.position);
    std::vector<std::string_view> args{"ISTHMUS", "FORWARD", number, db, protocol, position};
    for (const resp::Value& word : value.items) args.push_back(word.text);
    const std::string reply = say(args);
    resp::ReplyReader reader;
    reader.feed(reply);
    if (reader.next(value) != resp::ReplyReader::Status::value) return {};
    if (value.items.size() != 4) return reply;
    client_.db = static_cast<std::uint8_t>(value.items[2].integer);
    return value.items[3].text;
  }

  Member writer_{Role::writer}, follower_{Role::follower};
  FakeClient connection_, client_;
  Outcome outcome_;
  std::uint64_t number_ = 0;
  int forwarded_ = 0;
};

TEST_F(ForwardedTest, EvaluatesWritesOnTheWriterAndReadsHere) {
  EXPECT_EQ(run("SET k 5"), "+OK\r\n");
  EXPECT_EQ(run("INCR k"), ":6\r\n");
  EXPECT_EQ(forwarded_, 2);
  EXPECT_EQ(run("GET k"), "$-1\r\n");  // no feed in this test
  EXPECT_EQ(writer_.runner("GET k"), "$1\r\n6\r\n");
}

TEST_F(ForwardedTest, RefusesHereWhatNeedsNoWriter) {
  EXPECT_THAT(run("SET k"), StartsWith("-ERR wrong number of arguments"));
  EXPECT_THAT(run("NONESUCH k"), StartsWith("-ERR unknown command"));
  EXPECT_EQ(forwarded_, 0);
}

TEST_F(ForwardedTest, AnswersInTheProtocolAndDatabaseOfTheClient) {
  run("SELECT 3");
  run("HELLO 3");
  EXPECT_EQ(run("SET k v GET"), "_\r\n");
  EXPECT_EQ(writer_.runner("EXISTS k"), ":0\r\n");
  writer_.runner("SELECT 3");
  EXPECT_EQ(writer_.runner("EXISTS k"), ":1\r\n");
}

TEST_F(ForwardedTest, EvaluatesATransactionAsOne) {
  EXPECT_EQ(run("MULTI"), "+OK\r\n");
  EXPECT_EQ(run("SET a 1"), "+QUEUED\r\n");
  EXPECT_EQ(run("SELECT 2"), "+QUEUED\r\n");
  EXPECT_EQ(run("INCR b"), "+QUEUED\r\n");
  EXPECT_EQ(run("GET b"), "+QUEUED\r\n");
  EXPECT_EQ(run("EXEC"), "*4\r\n+OK\r\n+OK\r\n:1\r\n$1\r\n1\r\n");
  EXPECT_EQ(client_.db, 2);
  EXPECT_FALSE(client_.in_multi);
  EXPECT_EQ(forwarded_, 1);
}

TEST_F(ForwardedTest, EvaluatesATransactionThatOnlyReadsHere) {
  run("MULTI");
  run("GET a");
  EXPECT_EQ(run("EXEC"), "*1\r\n$-1\r\n");
  EXPECT_EQ(forwarded_, 0);
}

TEST_F(ForwardedTest, AbortsATransactionThatNeedsTheConnectionItself) {
  run("MULTI");
  run("SET a 1");
  run("CLIENT ID");
  EXPECT_EQ(run("EXEC"),
            "-EXECABORT Transaction discarded because of: 'client|id' cannot be part of a transaction that "
            "another server evaluates\r\n");
  EXPECT_FALSE(client_.in_multi);
  EXPECT_EQ(forwarded_, 0);
}

TEST_F(ForwardedTest, FailsATransactionWhoseWatchedKeysTheWriterSeesDifferently) {
  run("WATCH k");
  run("MULTI");
  run("SET k 1");
  EXPECT_EQ(run("EXEC"), "*1\r\n+OK\r\n");  // absent here and there
  run("WATCH k");
  run("MULTI");
  run("SET k 2");
  EXPECT_EQ(run("EXEC"), "*-1\r\n");  // still absent here: the feed has not brought it
  EXPECT_EQ(forwarded_, 2);
  EXPECT_EQ(writer_.runner("GET k"), "$1\r\n1\r\n");
  EXPECT_EQ(run("SET k 3"), "+OK\r\n");  // the connection goes on
}

TEST_F(ForwardedTest, FailsATransactionHereIfAWatchedKeyChangedHere) {
  run("WATCH k");
  run("MULTI");
  run("SET k 1");
  client_.watch_flag->touched = true;
  EXPECT_EQ(run("EXEC"), "*-1\r\n");
  EXPECT_EQ(forwarded_, 0);
}

TEST_F(ForwardedTest, LetsOnlyCommandsForTheWriterPassWhileSomeAreOut) {
  client_.awaits_forwarded = true;
  std::string reply;
  EXPECT_TRUE(follower_.dispatch(client_, {"GET", "k"}, reply).postponed);
  EXPECT_TRUE(follower_.dispatch(client_, {"MULTI"}, reply).postponed);
  EXPECT_TRUE(follower_.dispatch(client_, {"PUBLISH", "c", "m"}, reply).postponed);
  EXPECT_TRUE(follower_.dispatch(client_, {"SET", "k", "v"}, reply).forward);
  EXPECT_EQ(reply, "");
  follower_.site.set_role(Role::writer);
  EXPECT_TRUE(follower_.dispatch(client_, {"SET", "k", "v"}, reply).postponed);
}

TEST_F(ForwardedTest, ForwardsAnExecWhoseServerLostItsRoleBeforeTheLocks) {
  follower_.site.set_role(Role::writer);
  run("WATCH k");
  run("MULTI");
  run("INCR k");
  follower_.site.set_role(Role::follower);
  EXPECT_EQ(run("EXEC"), "*1\r\n:1\r\n");
  EXPECT_EQ(forwarded_, 1);
}

TEST_F(ForwardedTest, WaitsForTheFeedOfTheWriterForASecond) {
  follower_.site.set_foreign_position(50);
  EXPECT_EQ(run("SET k 1"), "");
  EXPECT_TRUE(outcome_.postponed);
  writer_.site.set_feed_position(50);
  EXPECT_EQ(run("SET k 1"), "+OK\r\n");
  follower_.site.set_foreign_position(60);
  EXPECT_EQ(run("SET k 2"), "");
  writer_.runner.pass(999);
  EXPECT_EQ(run("SET k 2"), "");
  writer_.runner.pass(1);
  EXPECT_EQ(run("SET k 2"), "+OK\r\n");
}

TEST_F(ForwardedTest, DoesNotEvaluateAsAnybodyButTheWriter) {
  writer_.site.set_role(Role::follower);
  EXPECT_THAT(run("SET k 1"), StartsWith("-NOTWRITER"));
  EXPECT_TRUE(connection_.close_after_reply);
  FakeClient late;
  std::string reply;
  writer_.dispatch(late, {"ISTHMUS", "HELLO", "secret", "77", "2"}, reply);
  EXPECT_THAT(reply, StartsWith("-NOTWRITER"));
  EXPECT_EQ(late.peer, nullptr);
}

TEST_F(ForwardedTest, NeverEvaluatesForAnOlderConnectionAgain) {
  FakeClient newer, older;
  std::string reply;
  writer_.dispatch(newer, {"ISTHMUS", "HELLO", "secret", "77", "3"}, reply);
  EXPECT_THAT(reply, StartsWith("*2\r\n"));
  EXPECT_THAT(run("SET k 1"), HasSubstr("A newer connection of this server is known"));
  EXPECT_TRUE(connection_.close_after_reply);
  EXPECT_EQ(writer_.runner("EXISTS k"), ":0\r\n");
  reply.clear();
  writer_.dispatch(older, {"ISTHMUS", "HELLO", "secret", "77", "2"}, reply);
  EXPECT_THAT(reply, StartsWith("-ERR"));
}

TEST_F(ForwardedTest, ForwardsNothingForWhoDoesNotKnowTheSecret) {
  FakeClient stranger;
  stranger.authenticated = false;
  std::string reply;
  writer_.dispatch(stranger, {"ISTHMUS", "FORWARD", "1", "0", "2", "0", "SET", "k", "v"}, reply);
  EXPECT_THAT(reply, StartsWith("-NOAUTH"));
  reply.clear();
  writer_.dispatch(stranger, {"ISTHMUS", "HELLO", "secreT", "5", "1"}, reply);
  EXPECT_THAT(reply, StartsWith("-WRONGPASS"));
  EXPECT_TRUE(stranger.close_after_reply);
  EXPECT_EQ(writer_.runner.services().stats.auth_failures, 1u);
  FakeClient client;
  reply.clear();
  writer_.dispatch(client, {"ISTHMUS", "FORWARD", "1", "0", "2", "0", "SET", "k", "v"}, reply);
  EXPECT_THAT(reply, StartsWith("-NOAUTH"));
  EXPECT_EQ(writer_.runner("EXISTS k"), ":0\r\n");
}

TEST_F(ForwardedTest, IsAskedForNothingWithoutASharedLog) {
  CommandRunner alone;
  EXPECT_THAT(alone("ISTHMUS HELLO secret 5 1"), StartsWith("-ERR This server shares its log with nobody"));
  EXPECT_EQ(alone("SET k v"), "+OK\r\n");
}

TEST_F(ForwardedTest, AnswersRequestsThatItDoesNotUnderstand) {
  const auto forward = [&](std::vector<std::string_view> command) {
    std::vector<std::string_view> args{"ISTHMUS", "FORWARD", "1", "0", "2", "0"};
    args.insert(args.end(), command.begin(), command.end());
    return say(args);
  };
  EXPECT_THAT(forward({"LPUSH", "k", "v"}), HasSubstr("is it of another version?"));
  EXPECT_THAT(forward({"SUBSCRIBE", "c"}), HasSubstr("is it of another version?"));
  EXPECT_THAT(forward({"ISTHMUS", "FORWARD", "1", "0", "2", "0", "SET", "k", "v"}),
              HasSubstr("another version"));
  EXPECT_THAT(forward({"EXEC", "0", "1", "2", "CLIENT", "ID"}), HasSubstr("is it of another version?"));
  EXPECT_FALSE(connection_.close_after_reply);
  for (const std::vector<std::string_view>& broken :
       std::vector<std::vector<std::string_view>>{{"EXEC"},
                                                  {"EXEC", "0", "1", "9", "SET"},
                                                  {"EXEC", "1", "0", "k", "1"},
                                                  {"EXEC", "0", "0", "x"},
                                                  {"EXEC", "-1", "0"},
                                                  {"EXEC", "0", "18446744073709551615"}}) {
    connection_.close_after_reply = false;
    EXPECT_THAT(forward(broken), StartsWith("-ERR Malformed")) << broken.size();
    EXPECT_TRUE(connection_.close_after_reply);
  }
  EXPECT_EQ(writer_.runner("DBSIZE"), ":0\r\n");
}

TEST_F(ForwardedTest, FailsAtOnceWhenNoWriterCanBeReached) {
  follower_.runner.services().forwarder = nullptr;
  EXPECT_EQ(run("SET k v"), "-CLUSTERDOWN The writer of this site cannot be reached\r\n");
  run("MULTI");
  run("SET k v");
  EXPECT_EQ(run("EXEC"), "-CLUSTERDOWN The writer of this site cannot be reached\r\n");
  EXPECT_FALSE(client_.in_multi);
}

}  // namespace
}  // namespace isthmus
