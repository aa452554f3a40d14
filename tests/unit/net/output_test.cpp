// What leaves a connection, in which order, and when.
#include "src/net/output.hpp"

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

}  // namespace
}  // namespace isthmus
