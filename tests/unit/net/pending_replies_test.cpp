// Replies from the writer leave in the order of the requests.
#include "src/net/pending_replies.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "src/command/command.hpp"

namespace isthmus {
namespace {

std::string take(PendingReplies& pending) {
  std::string taken;
  pending.take([&](std::string_view reply) { taken.append(reply); });
  return taken;
}

TEST(PendingReplies, HoldsAReplyUntilThoseBeforeItAreThere) {
  PendingReplies pending;
  pending.expect(1, false);
  pending.expect(2, false);
  pending.add("-refused\r\n", false);
  pending.expect(4, false);
  EXPECT_EQ(take(pending), "");
  pending.fill(2, "+b\r\n");
  EXPECT_EQ(take(pending), "");
  pending.fill(1, "+a\r\n");
  EXPECT_EQ(take(pending), "+a\r\n+b\r\n-refused\r\n");
  EXPECT_FALSE(pending.empty());
  pending.fill(4, "+d\r\n");
  EXPECT_EQ(take(pending), "+d\r\n");
  EXPECT_TRUE(pending.empty());
}

TEST(PendingReplies, KnowsTheCommandOfAReplyThatIsNotThere) {
  PendingReplies pending;
  const Command* const some = find_command("set");
  pending.expect(1, false, some);
  pending.add("-refused\r\n", false);
  EXPECT_EQ(pending.command(1), some);
  EXPECT_EQ(pending.command(2), nullptr);
  pending.fill(1, "+a\r\n");
  EXPECT_EQ(pending.command(1), nullptr);
}

TEST(PendingReplies, LeavesOutWhatIsNotToBeReplied) {
  PendingReplies pending;
  pending.expect(1, true);
  pending.add("-refused\r\n", true);
  pending.expect(3, false);
  pending.fill(3, "+c\r\n");
  pending.fill(1, "+a\r\n");
  EXPECT_EQ(take(pending), "+c\r\n");
}

TEST(PendingReplies, NamesTheRequestsThatAreNotAnswered) {
  PendingReplies pending;
  pending.expect(5, false);
  pending.add("-refused\r\n", false);
  pending.expect(6, false);
  pending.fill(5, "+a\r\n");
  std::vector<std::uint64_t> numbers;
  pending.for_each_expected([&](std::uint64_t number) { numbers.push_back(number); });
  EXPECT_EQ(numbers, std::vector<std::uint64_t>{6});
}

}  // namespace
}  // namespace isthmus
