// Counts of other servers' subscribers.
#include "src/pubsub/remote_subscribers.hpp"

#include <set>
#include <string>

#include <gtest/gtest.h>

#include "src/pubsub/pubsub.hpp"

namespace isthmus {
namespace {

constexpr auto kChannel = ChannelKind::channel;
constexpr auto kPattern = ChannelKind::pattern;
constexpr auto kShard = ChannelKind::shard;

std::set<std::string> names_of(const RemoteSubscribers& table, ChannelKind kind) {
  std::set<std::string> names;
  table.for_each_name(kind, [&](std::string_view name) { names.emplace(name); });
  return names;
}

TEST(RemoteSubscribers, AddsUpServersAndPatterns) {
  RemoteSubscribers table;
  EXPECT_TRUE(table.empty());
  EXPECT_EQ(table.receivers(false, "news"), 0U);
  table.set(1, {kChannel, "news", 2});
  table.set(2, {kChannel, "news", 3});
  table.set(2, {kPattern, "n*", 4});
  table.set(2, {kPattern, "x*", 7});
  table.set(2, {kShard, "news", 1});
  EXPECT_EQ(table.subscribers(kChannel, "news"), 5U);
  EXPECT_EQ(table.receivers(false, "news"), 9U);
  EXPECT_EQ(table.receivers(true, "news"), 1U);
  EXPECT_EQ(table.names(), 4U);
  table.set(2, {kChannel, "news", 1});
  EXPECT_EQ(table.subscribers(kChannel, "news"), 3U) << "a count replaces the one before";
  table.set(1, {kChannel, "news", 0});
  EXPECT_EQ(table.subscribers(kChannel, "news"), 1U);
}

TEST(RemoteSubscribers, ForgetsAServer) {
  RemoteSubscribers table;
  table.set(1, {kChannel, "both", 1});
  table.set(1, {kChannel, "one", 1});
  table.set(2, {kChannel, "both", 2});
  table.set(2, {kPattern, "p", 2});
  table.clear(1);
  EXPECT_EQ(names_of(table, kChannel), (std::set<std::string>{"both"}));
  EXPECT_EQ(table.subscribers(kChannel, "both"), 2U);
  table.clear(2);
  EXPECT_TRUE(table.empty());
  EXPECT_TRUE(names_of(table, kPattern).empty());
}

TEST(RemoteSubscribers, HasALimit) {
  RemoteSubscribers table({.names = 3, .bytes = 10});
  EXPECT_TRUE(table.set(1, {kChannel, "a", 1}));
  EXPECT_TRUE(table.set(1, {kChannel, "b", 1}));
  EXPECT_FALSE(table.set(1, {kChannel, "0123456789", 1})) << "too many bytes";
  EXPECT_TRUE(table.set(1, {kChannel, "c", 1}));
  EXPECT_FALSE(table.set(2, {kChannel, "d", 1})) << "too many names";
  EXPECT_TRUE(table.set(2, {kChannel, "a", 1})) << "a name that is there";
  EXPECT_TRUE(table.set(2, {kChannel, "d", 0})) << "nothing to remember";
  EXPECT_TRUE(table.set(1, {kChannel, "b", 0}));
  EXPECT_TRUE(table.set(2, {kChannel, "d", 1})) << "there is room again";
}

class Changes : public testing::Test {
 protected:
  class NoMailbox final : public Mailbox {
    void push(MessageRef /*message*/) override {}
  };
  Changes() {
    pubsub_.set_mailboxes({&mailbox_});
    pubsub_.note_changes();
  }
  std::string changes(std::size_t bytes = 1 << 20) {
    const auto taken = pubsub_.take_changes(bytes);
    if (!taken) return "too many";
    std::set<std::string> lines;
    for (const auto& one : *taken) lines.insert(one.name + "=" + std::to_string(one.count));
    std::string text;
    for (const std::string& line : lines) text += (text.empty() ? "" : " ") + line;
    return text;
  }
  NoMailbox mailbox_;
  PubSub pubsub_;
};

TEST_F(Changes, AreToldOnceAndOnlyIfTheyAre) {
  pubsub_.subscribe(kChannel, "a", 0);
  pubsub_.subscribe(kChannel, "a", 0);
  pubsub_.subscribe(kPattern, "p", 0);
  EXPECT_EQ(changes(), "a=2 p=1");
  EXPECT_EQ(changes(), "");
  pubsub_.unsubscribe(kChannel, "a", 0);
  pubsub_.subscribe(kShard, "s", 0);
  pubsub_.unsubscribe(kPattern, "p", 0);
  EXPECT_EQ(changes(), "a=1 p=0 s=1");
  pubsub_.subscribe(kChannel, "came and went", 0);
  pubsub_.unsubscribe(kChannel, "came and went", 0);
  pubsub_.unsubscribe(kChannel, "a", 0);
  pubsub_.subscribe(kChannel, "a", 0);
  EXPECT_EQ(changes(), "");
  pubsub_.subscribe(ChannelKind::monitor, {}, 0);
  EXPECT_EQ(changes(), "") << "who monitors is nobody's business";
}

TEST_F(Changes, ComeInPieces) {
  for (int i = 0; i < 100; ++i) pubsub_.subscribe(kChannel, "name" + std::to_string(i + 100), 0);
  std::size_t all = 0, pieces = 0;
  for (auto taken = pubsub_.take_changes(70); !taken->empty(); taken = pubsub_.take_changes(70)) {
    EXPECT_LE(taken->size(), 10U);
    all += taken->size();
    ++pieces;
  }
  EXPECT_EQ(all, 100U);
  EXPECT_EQ(pieces, 10U);
  EXPECT_EQ(pubsub_.all_counts(1 << 20).size(), 100U);
}

TEST_F(Changes, HaveALimit) {
  for (int i = 0; i < 200'100; ++i) {
    const std::string name = std::to_string(i);
    pubsub_.subscribe(kChannel, name, 0);
    pubsub_.unsubscribe(kChannel, name, 0);
  }
  pubsub_.subscribe(kChannel, "stays", 0);
  EXPECT_EQ(changes(), "too many");
  EXPECT_EQ(changes(), "");
  EXPECT_EQ(pubsub_.all_counts(1 << 20).size(), 1U);
}

}  // namespace
}  // namespace isthmus
