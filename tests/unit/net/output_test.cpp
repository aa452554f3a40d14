// What leaves a connection, in which order, and when.
#include "src/net/output.hpp"

#include <algorithm>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

void reply(Output& output, std::string_view text, backend::Seq gate, std::int64_t now_ms = 0) {
  output.replies().append(text);
  output.end_reply(gate, now_ms);
}

// Everything that may leave, taken `step` bytes at a time.
std::string send_all(Output& output, backend::Seq committed, std::size_t step = 1 << 30) {
  std::string sent;
  for (;;) {
    Output::Pieces pieces;
    output.gather(committed, pieces);
    if (pieces.count == 0) return sent;
    std::string all;
    for (std::size_t i = 0; i < pieces.count; ++i) {
      all.append(static_cast<const char*>(pieces.parts[i].iov_base), pieces.parts[i].iov_len);
    }
    EXPECT_EQ(all.size(), pieces.bytes);
    const std::size_t taken = std::min(step, all.size());
    sent.append(all, 0, taken);
    output.consume(taken);
  }
}

// At most so many bytes of what may leave.
std::string send_some(Output& output, backend::Seq committed, std::size_t bytes) {
  Output::Pieces pieces;
  output.gather(committed, pieces);
  std::string sent;
  for (std::size_t i = 0; i < pieces.count; ++i) {
    sent.append(static_cast<const char*>(pieces.parts[i].iov_base), pieces.parts[i].iov_len);
  }
  sent.resize(std::min(bytes, sent.size()));
  output.consume(sent.size());
  return sent;
}

TEST(Output, SendsRepliesInOrder) {
  for (std::size_t step = 1; step < 8; ++step) {
    Output output;
    reply(output, "+a\r\n", 0);
    reply(output, "+b\r\n", 0);
    EXPECT_EQ(send_all(output, 0, step), "+a\r\n+b\r\n");
    EXPECT_TRUE(output.empty());
  }
}

TEST(Output, HoldsAReplyAndAllBehindItUntilItsCommit) {
  Output output;
  reply(output, "+a\r\n", 0);
  reply(output, "+b\r\n", 5);
  reply(output, "+c\r\n", 0);
  EXPECT_EQ(send_all(output, 4), "+a\r\n");
  EXPECT_TRUE(output.gated(4));
  EXPECT_EQ(send_all(output, 5), "+b\r\n+c\r\n");
  EXPECT_TRUE(output.empty());
}

TEST(Output, KeepsMessagesBetweenTheRepliesWhereTheyCame) {
  const MessageRef message = Message::to_channel("ch", std::string(10'000, 'x'));
  for (const std::size_t step : {std::size_t{1000}, std::size_t{1}, std::size_t{1} << 30}) {
    Output output;
    reply(output, "+a\r\n", 0);
    output.push(message, false);
    reply(output, "+b\r\n", 7);
    output.push(message, true);
    EXPECT_EQ(output.pending_messages(), 2u);
    EXPECT_EQ(output.pending_bytes(), 8 + 2 * message->frame.size());
    EXPECT_EQ(send_all(output, 0, step), "+a\r\n" + message->frame);
    EXPECT_EQ(send_all(output, 7, step), "+b\r\n>" + message->frame.substr(1));
    EXPECT_EQ(output.pending_messages(), 0u);
  }
}

TEST(Output, SendsManySmallMessagesWhole) {
  Output output;
  std::string expected;
  for (int i = 0; i < 5000; ++i) {
    const MessageRef message = Message::to_pattern("p*", "ch", std::to_string(i));
    output.push(message, false);
    expected += message->frame;
  }
  EXPECT_EQ(send_all(output, 0, 12'345), expected);
}

TEST(Output, FailsOnlyTheRepliesThatWaitedTooLong) {
  Output output;
  reply(output, "+a\r\n", 5, 1000);
  output.push(Message::to_channel("c", "m"), false);
  reply(output, ":12345\r\n", 6, 1000);
  reply(output, "+late\r\n", 7, 2000);
  EXPECT_EQ(output.fail_gated(5, 1500, "CLUSTERDOWN x"), 1u);
  EXPECT_EQ(send_all(output, 5), "+a\r\n*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n-CLUSTERDOWN x\r\n");
  EXPECT_EQ(send_all(output, 7), "+late\r\n");
  EXPECT_TRUE(output.empty());
}

TEST(Output, DropsAReplyThatIsNotWanted) {
  Output output;
  reply(output, "+a\r\n", 0);
  output.replies().append("+unwanted\r\n");
  output.drop_reply();
  reply(output, "+b\r\n", 0);
  EXPECT_EQ(send_all(output, 0), "+a\r\n+b\r\n");
}

TEST(Output, FailsTheRepliesOfARangeOfGatesAndNoOthers) {
  Output output;
  reply(output, "+a\r\n", 0);
  reply(output, "+before\r\n", 5);
  reply(output, "+lost\r\n", 6);
  output.push(Message::to_channel("ch", "m"), false);
  reply(output, "+lost too\r\n", 8);
  reply(output, "+after\r\n", 9);
  EXPECT_EQ(output.replace_gated(5, 8, "-CLUSTERDOWN gone\r\n"), 2u);
  EXPECT_EQ(send_all(output, 4), "+a\r\n");
  EXPECT_EQ(send_all(output, 5),
            "+before\r\n-CLUSTERDOWN gone\r\n*3\r\n$7\r\nmessage\r\n$2\r\nch\r\n$1\r\nm\r\n"
            "-CLUSTERDOWN gone\r\n");
  EXPECT_EQ(send_all(output, 9), "+after\r\n");
  EXPECT_TRUE(output.empty());
}

// Replies with and without gates, messages between them, a head that is partly sent, and no end yet.
TEST(Output, ReplacesRepliesAndLeavesEverythingElseAsItWas) {
  const MessageRef message = Message::to_channel("ch", "payload");
  const std::string push = ">" + message->frame.substr(1);
  for (const std::size_t step : {std::size_t{1}, std::size_t{5}, std::size_t{1} << 30}) {
    Output output;
    reply(output, "+head\r\n", 0);
    EXPECT_EQ(send_some(output, 0, 3), "+he");
    reply(output, "+longer than the error\r\n", 5, 1000);
    output.push(message, false);
    reply(output, "+free\r\n", 0, 1000);
    reply(output, ":1\r\n", 6, 1000);
    output.push(message, true);
    reply(output, "+late\r\n", 7, 2000);
    reply(output, "+tail\r\n", 0, 2000);
    output.replies().append("+unfini");

    EXPECT_EQ(output.fail_gated(4, 1500, "CLUSTERDOWN x"), 2u);
    const std::string failed =
        "ad\r\n-CLUSTERDOWN x\r\n" + message->frame + "+free\r\n-CLUSTERDOWN x\r\n" + push;
    EXPECT_EQ(output.pending_bytes(), failed.size() + std::string_view("+late\r\n+tail\r\n+unfini").size());
    EXPECT_EQ(output.pending_messages(), 2u);
    EXPECT_EQ(output.unfinished_reply(), "+unfini");
    std::string sent = send_some(output, 4, 9);  // into the middle of the error
    EXPECT_EQ(sent, failed.substr(0, 9));

    EXPECT_EQ(output.replace_gated(6, 7, "-CLUSTERDOWN gone\r\n"), 1u);
    const std::string replaced = failed + "-CLUSTERDOWN gone\r\n+tail\r\n";
    EXPECT_EQ(output.pending_bytes(), replaced.size() - sent.size() + std::string_view("+unfini").size());
    EXPECT_EQ(output.unfinished_reply(), "+unfini");
    sent += send_all(output, 0, step);
    EXPECT_EQ(sent, replaced) << "nothing waits any more, and what is unfinished does not leave";
    reply(output, "shed\r\n", 0);
    EXPECT_EQ(send_all(output, 0, step), "+unfinished\r\n");
    EXPECT_TRUE(output.empty());
  }
}

TEST(Output, LeavesAMessageThatIsPartlySentAsItIsWhenItReplaces) {
  const MessageRef message = Message::to_channel("ch", "payload");
  Output output;
  output.push(message, false);
  reply(output, "+a\r\n", 5, 1000);
  std::string sent = send_some(output, 0, 10);
  EXPECT_EQ(output.replace_gated(4, 5, "-CLUSTERDOWN gone\r\n"), 1u);
  sent += send_all(output, 0);
  EXPECT_EQ(sent, message->frame + "-CLUSTERDOWN gone\r\n");
}

// A connection that writes without reading may have so many; the cost of each must not grow with them.
TEST(Output, FailsHundredsOfThousandsOfReplies) {
  constexpr std::size_t kReplies = 300'000;
  const std::string value = "+" + std::string(97, 'x') + "\r\n";
  Output output;
  std::string expected;
  for (std::size_t i = 1; i <= kReplies; ++i) {
    reply(output, value, i, 1000);
    expected += "-CLUSTERDOWN x\r\n";
  }
  EXPECT_EQ(output.fail_gated(0, 1000, "CLUSTERDOWN x"), kReplies);
  EXPECT_EQ(output.pending_bytes(), expected.size());
  EXPECT_TRUE(send_all(output, 0) == expected);
}

}  // namespace
}  // namespace isthmus
