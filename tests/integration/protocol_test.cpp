// RESP2 and RESP3 through a real socket: pipelining, frames cut anywhere, big frames, order of replies,
// pushes.
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/hiredis_client.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

constexpr std::size_t kMebibyte = std::size_t{1} << 20;

class Protocol : public ::testing::TestWithParam<int> {
 protected:
  Client connect() { return Client(server_.port(), GetParam()); }
  Server server_;
};

INSTANTIATE_TEST_SUITE_P(Resp, Protocol, ::testing::Values(2, 3),
                         [](const auto& suite) { return std::to_string(suite.param); });

TEST_P(Protocol, AnswersEachTypeInItsForm) {
  auto client = connect();
  EXPECT_EQ(show(client.call({"SET", "s", "v"})), "OK");
  EXPECT_EQ(show(client.call({"GET", "s"})), quoted("v"));
  EXPECT_EQ(show(client.call({"INCR", "n"})), "(integer) 1");
  EXPECT_EQ(client.call({"GET", "missing"}).mark, GetParam() == 3 ? '_' : '$');
  EXPECT_EQ(client.call({"HSET", "h", "f", "v"}).integer, 1);
  const auto hash = client.call({"HGETALL", "h"});
  EXPECT_EQ(hash.type, GetParam() == 3 ? Value::Type::map : Value::Type::array);
  ASSERT_EQ(hash.items.size(), 2u);
  EXPECT_EQ(hash.items[1].text, "v");
  EXPECT_EQ(client.call({"HGETALL", "missing"}).items.size(), 0u);
  EXPECT_EQ(client.call({"GET", "h"}).text,
            "WRONGTYPE Operation against a key holding the wrong kind of value");
}

TEST_P(Protocol, AnswersAPipelineInRequestOrder) {
  auto client = connect();
  constexpr int kCount = 20'000;
  std::string pipeline;
  for (int i = 0; i < kCount; ++i)
    pipeline += resp::encode_request({"SET", "key:" + std::to_string(i % 100), std::to_string(i)}) +
                resp::encode_request({"GET", "key:" + std::to_string(i % 100)}) +
                resp::encode_request({"ECHO", std::to_string(i)});
  client.send_raw(pipeline);
  for (int i = 0; i < kCount; ++i) {
    ASSERT_EQ(client.read().text, "OK") << i;
    ASSERT_EQ(client.read().text, std::to_string(i));
    ASSERT_EQ(client.read().text, std::to_string(i));
  }
}

// Errors in the middle of a pipeline stand where they belong, and what follows is done.
TEST_P(Protocol, GoesOnBehindAnErrorInAPipeline) {
  auto client = connect();
  client.send_raw(resp::encode_request({"SET", "a", "x"}) + resp::encode_request({"INCR", "a"}) +
                  resp::encode_request({"NOSUCH", "b"}) + resp::encode_request({"GET"}) +
                  resp::encode_request({"GET", "a"}));
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "ERR value is not an integer or out of range");
  EXPECT_EQ(client.read().text, "ERR unknown command 'NOSUCH', with args beginning with: 'b' ");
  EXPECT_EQ(client.read().text, "ERR wrong number of arguments for 'get' command");
  EXPECT_EQ(client.read().text, "x");
}

// The same requests, cut in two at every byte: TCP may deliver the parts apart, and what they say must not
// depend on it.
TEST_P(Protocol, TakesRequestsCutAtEveryByte) {
  auto client = connect();
  auto other = connect();
  const std::string binary("\0\r\n$3\xff*", 7);
  const std::string requests = resp::encode_request({"SET", "key", binary}) +
                               resp::encode_request({"GET", "key"}) + "PING inline\r\n" +
                               resp::encode_request({"HSET", "hash", "", ""});
  for (std::size_t cut = 1; cut < requests.size(); ++cut) {
    client.send_raw(std::string_view(requests).substr(0, cut));
    // During the round trip of a second connection the server reads the first part alone.
    ASSERT_EQ(other.call({"PING"}).text, "PONG");
    client.send_raw(std::string_view(requests).substr(cut));
    ASSERT_EQ(client.read().text, "OK") << "cut at " << cut;
    ASSERT_EQ(client.read().text, binary) << "cut at " << cut;
    ASSERT_EQ(client.read().text, "inline") << "cut at " << cut;
    ASSERT_EQ(client.read().type, Value::Type::integer) << "cut at " << cut;
  }
}

TEST_P(Protocol, TakesRequestsByteByByte) {
  auto client = connect();
  auto other = connect();
  const std::string requests =
      resp::encode_request({"SET", "key", "value"}) + resp::encode_request({"GET", "key"});
  for (const char byte : requests) {
    client.send_raw(std::string_view(&byte, 1));
    ASSERT_EQ(other.call({"PING"}).text, "PONG");
  }
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "value");
}

TEST_P(Protocol, CarriesBinaryKeysFieldsAndValues) {
  auto client = connect();
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(client.call({"SET", all, all}).text, "OK");
  EXPECT_EQ(client.call({"GET", all}).text, all);
  EXPECT_EQ(client.call({"HSET", "h" + all, all, all}).integer, 1);
  EXPECT_EQ(client.call({"HGET", "h" + all, all}).text, all);
  EXPECT_EQ(client.call({"SET", "", ""}).text, "OK");
  EXPECT_EQ(client.call({"GET", ""}).text, "");
}

TEST_P(Protocol, CarriesValuesOfOneMebibyte) {
  auto client = connect();
  for (int i = 0; i < 4; ++i) {
    const std::string value(kMebibyte + static_cast<std::size_t>(i), static_cast<char>('a' + i));
    ASSERT_EQ(client.call({"SET", "big", value}).text, "OK");
    ASSERT_EQ(client.call({"GET", "big"}).text, value);
  }
  // Several replies that are each larger than a socket buffer, asked for at once.
  std::string gets;
  for (int i = 0; i < 16; ++i)
    gets += resp::encode_request({"GET", "big"}) + resp::encode_request({"STRLEN", "big"});
  client.send_raw(gets);
  for (int i = 0; i < 16; ++i) {
    ASSERT_EQ(client.read().text.size(), kMebibyte + 3);
    ASSERT_EQ(client.read().integer, static_cast<std::int64_t>(kMebibyte + 3));
  }
}

TEST_P(Protocol, CarriesAValueOf64Mebibytes) {
  auto client = connect();
  std::string value(64 * kMebibyte, 'x');
  for (std::size_t i = 0; i < value.size(); i += 4096) value[i] = static_cast<char>(i >> 12);
  ASSERT_EQ(client.call({"SET", "huge", value}).text, "OK");
  ASSERT_TRUE(client.call({"GET", "huge"}).text == value);
  EXPECT_EQ(client.call({"GETRANGE", "huge", "4096", "4096"}).text, std::string(1, '\1'));
  EXPECT_EQ(client.call({"DEL", "huge"}).integer, 1);
}

TEST_P(Protocol, TakesACommandOfAHundredThousandWords) {
  auto client = connect();
  std::vector<std::string> words{"MSET"};
  for (int i = 0; i < 50'000; ++i)
    words.insert(words.end(), {"k" + std::to_string(i), "v" + std::to_string(i)});
  EXPECT_EQ(client.call(std::vector<std::string_view>(words.begin(), words.end())).text, "OK");
  EXPECT_EQ(client.call({"DBSIZE"}).integer, 50'000);
  EXPECT_EQ(client.call({"GET", "k49999"}).text, "v49999");
}

TEST_P(Protocol, TakesInlineCommands) {
  auto client = connect();
  client.send_raw("SET quoted \"a b\\x00\\n\"\r\nGET quoted\nset 'sin gle' v\r\n\r\nEXISTS 'sin gle'\r\n");
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, std::string("a b\0\n", 5));
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().integer, 1);
}

// A push of RESP3 may stand between replies, never inside one. Here a connection subscribes to a channel that
// others publish to while it asks for big arrays; the strict reader would see a push in the middle of one as
// a value too many.
TEST_P(Protocol, NeverMixesPushesIntoReplies) {
  if (GetParam() == 2) GTEST_SKIP() << "a subscriber cannot ask for arrays in RESP2";
  auto client = connect();
  for (int i = 0; i < 500; ++i)
    ASSERT_EQ(client.call({"HSET", "hash", "field" + std::to_string(i), std::string(100, 'v')}).integer, 1);
  client.subscribe("SUBSCRIBE", {"noise"});
  constexpr int kMessages = 2000;
  std::thread publisher([&] {
    Client noisy(server_.port(), 3);
    for (int i = 0; i < kMessages; ++i) noisy.call({"PUBLISH", "noise", std::to_string(i)});
  });
  for (int i = 0; i < 200; ++i) {
    client.send_raw(resp::encode_request({"HGETALL", "hash"}) +
                    resp::encode_request({"ECHO", std::to_string(i)}));
    const auto hash = client.read();
    EXPECT_EQ(hash.type, Value::Type::map);
    EXPECT_EQ(hash.items.size(), 1000u);
    EXPECT_EQ(client.read().text, std::to_string(i));
  }
  publisher.join();
  for (int i = 0; i < kMessages; ++i) ASSERT_EQ(client.next_message().payload, std::to_string(i));
}

TEST_P(Protocol, ChangesTheProtocolByHello) {
  auto client = connect();
  const auto other = GetParam() == 2 ? "3" : "2";
  const auto hello = client.call({"HELLO", other});
  EXPECT_EQ(hello.type, GetParam() == 2 ? Value::Type::map : Value::Type::array);
  EXPECT_EQ(client.call({"GET", "missing"}).mark, GetParam() == 2 ? '_' : '$');
  EXPECT_EQ(client.call({"HELLO", "4"}).text, "NOPROTO unsupported protocol version");
  EXPECT_EQ(client.call({"RESET"}).text, "RESET");
  EXPECT_EQ(client.call({"GET", "missing"}).mark, '$');
}

TEST_P(Protocol, QuitAnswersAndCloses) {
  auto client = connect();
  client.send_raw(resp::encode_request({"SET", "k", "v"}) + resp::encode_request({"QUIT"}) +
                  resp::encode_request({"SET", "k", "after"}));
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_TRUE(client.closed_within());
  EXPECT_EQ(connect().call({"GET", "k"}).text, "v");
}

TEST_P(Protocol, ClosesWhenTheClientHasFinishedSending) {
  auto client = connect();
  client.send_raw(resp::encode_request({"SET", "k", "v"}) + resp::encode_request({"GET", "k"}));
  EXPECT_EQ(client.read().text, "OK");
  EXPECT_EQ(client.read().text, "v");
  client.finish_sending();
  EXPECT_TRUE(client.closed_within());
}

TEST(Hiredis, SpeaksToTheServer) {
  Server server;
  HiredisClient client(server.port());
  EXPECT_EQ(text_of(*client.call({"SET", "k", std::string("a\0b", 3)})), "OK");
  EXPECT_EQ(text_of(*client.call({"GET", "k"})), std::string("a\0b", 3));
  EXPECT_EQ(client.call({"GET", "none"})->type, REDIS_REPLY_NIL);
  EXPECT_EQ(client.call({"INCR", "n"})->integer, 1);
  EXPECT_EQ(client.call({"INCR", "k"})->type, REDIS_REPLY_ERROR);
  client.call({"HSET", "h", "f", "1", "g", "2"});
  EXPECT_EQ(client.call({"HGETALL", "h"})->elements, 4u);
}

TEST(Hiredis, PipelinesAndSubscribes) {
  Server server;
  HiredisClient client(server.port()), publisher(server.port());
  for (int i = 0; i < 1000; ++i) client.append({"INCR", "n"});
  for (int i = 1; i <= 1000; ++i) ASSERT_EQ(client.next()->integer, i);
  const auto acknowledged = client.call({"SUBSCRIBE", "channel"});
  ASSERT_EQ(acknowledged->elements, 3u);
  EXPECT_EQ(publisher.call({"PUBLISH", "channel", "hello"})->integer, 1);
  const auto message = client.next();
  ASSERT_EQ(message->elements, 3u);
  EXPECT_EQ(text_of(*message->element[2]), "hello");
}

}  // namespace
}  // namespace isthmus::test
