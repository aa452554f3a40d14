// What servers tell of their subscribers, and who is believed for how long.
#include "src/site/announcements.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

using What = Announcement::What;
constexpr backend::OriginId kSelf = 100, kOther = 7, kThird = 8;

std::string lines(const std::vector<SubscriberCount>& counts) {
  std::string text;
  for (const SubscriberCount& count : counts) append_count(text, count);
  return text;
}

TEST(Announcement, IsTextForPeople) {
  const std::string counts = lines({{ChannelKind::channel, "news", 3}, {ChannelKind::pattern, "a b*", 1}});
  Announcement announcement{.what = What::all, .number = 12, .part = 2, .parts = 3, .counts = counts};
  EXPECT_EQ(announcement.text(), "all 12 2 3\nchannel 3 4 news\npattern 1 4 a b*\n");
  EXPECT_EQ((Announcement{.what = What::alive, .number = 5, .counts = {}}.text()), "alive 5\n");
  EXPECT_EQ((Announcement{.what = What::asks, .asked = 9, .counts = {}}.text()), "asks 9\n");
}

TEST(Announcement, IsReadAsWritten) {
  const std::string binary("\0\n \xff", 4);
  const std::string counts =
      lines({{ChannelKind::shard, binary, 4'000'000'000U}, {ChannelKind::channel, "", 1}});
  const std::string text = Announcement{.what = What::changes, .number = 3, .counts = counts}.text();
  const auto read = parse_announcement(text);
  ASSERT_TRUE(read);
  EXPECT_EQ(read->what, What::changes);
  EXPECT_EQ(read->number, 3U);
  std::vector<SubscriberCount> found;
  EXPECT_TRUE(for_each_count(read->counts, [&](const SubscriberCount& count) { found.push_back(count); }));
  ASSERT_EQ(found.size(), 2U);
  EXPECT_EQ(found[0].name, binary);
  EXPECT_EQ(found[0].count, 4'000'000'000U);
  EXPECT_EQ(found[0].kind, ChannelKind::shard);
  EXPECT_EQ(found[1].name, "");
}

TEST(Announcement, IsRefusedIfItIsNone) {
  for (const std::string_view text :
       {"", "\n", "alive", "alive\n", "alive x\n", "alive 1 2\n", "all 1\n", "all 1 0 1\n", "all 1 3 2\n",
        "nonsense 1\n", "alive -1\n", "asks \n", "changes 99999999999999999999999\n"}) {
    EXPECT_FALSE(parse_announcement(text)) << text;
  }
  const std::string whole = lines({{ChannelKind::channel, "news", 3}});
  for (std::size_t size = 1; size < whole.size(); ++size) {
    EXPECT_FALSE(for_each_count(std::string_view(whole).substr(0, size), [](const SubscriberCount&) {}))
        << size;
  }
  EXPECT_FALSE(for_each_count("channel 1 99999999999999999 x\n", [](const SubscriberCount&) {}));
  EXPECT_FALSE(for_each_count("monitor 1 1 x\n", [](const SubscriberCount&) {}));
}

class AnnouncementBookTest : public testing::Test {
 protected:
  bool say(What what, std::uint64_t number, const std::vector<SubscriberCount>& counts = {},
           std::uint32_t part = 1, std::uint32_t parts = 1, backend::OriginId server = kOther) {
    const std::string text = lines(counts);
    const Announcement announcement{
        .what = what, .number = number, .part = part, .parts = parts, .counts = text};
    return book_.take(server, announcement.text(), now_ms_);
  }
  std::size_t count(std::string_view name) const { return table_.subscribers(ChannelKind::channel, name); }
  static SubscriberCount of(std::string_view name, std::uint32_t count) {
    return {ChannelKind::channel, name, count};
  }
  std::vector<backend::OriginId> ask() { return book_.to_ask(now_ms_); }

  std::int64_t now_ms_ = 1'000'000;
  RemoteSubscribers table_;
  AnnouncementBook book_{table_, kSelf};
};

TEST_F(AnnouncementBookTest, FollowsChanges) {
  say(What::changes, 1, {of("a", 1), of("b", 2)});
  say(What::changes, 2, {of("a", 3), of("b", 0)});
  EXPECT_EQ(count("a"), 3U);
  EXPECT_EQ(count("b"), 0U);
  say(What::changes, 2, {of("a", 9)});
  EXPECT_EQ(count("a"), 3U) << "a repeat";
  say(What::alive, 2);
  EXPECT_TRUE(ask().empty());
}

TEST_F(AnnouncementBookTest, AsksAfterAGapAndTakesAll) {
  say(What::changes, 1, {of("a", 1), of("gone", 1)});
  say(What::changes, 3, {of("b", 1)});
  EXPECT_EQ(ask(), (std::vector<backend::OriginId>{kOther}));
  EXPECT_TRUE(ask().empty()) << "it was asked just now";
  now_ms_ += AnnouncementBook::kAskAgainMs;
  EXPECT_EQ(ask().size(), 1U);
  say(What::all, 3, {of("a", 1)}, 1, 2);
  say(What::all, 3, {of("b", 1)}, 2, 2);
  EXPECT_EQ(count("gone"), 0U);
  EXPECT_EQ(count("b"), 1U);
  say(What::changes, 4, {of("b", 2)});
  EXPECT_EQ(count("b"), 2U);
  now_ms_ += AnnouncementBook::kAskAgainMs;
  EXPECT_TRUE(ask().empty());
}

TEST_F(AnnouncementBookTest, AsksWhomItMeetsInTheMiddle) {
  say(What::alive, 17);
  say(What::changes, 5, {}, 1, 1, kThird);
  EXPECT_EQ(ask(), (std::vector<backend::OriginId>{kOther, kThird}));
}

TEST_F(AnnouncementBookTest, AsksAgainIfAPartIsMissing) {
  say(What::all, 3, {of("a", 1)}, 1, 3);
  say(What::all, 3, {of("c", 1)}, 3, 3);
  EXPECT_EQ(ask().size(), 1U);
  say(What::all, 3, {of("a", 1)}, 1, 1);
  now_ms_ += AnnouncementBook::kAskAgainMs;
  EXPECT_TRUE(ask().empty());
  EXPECT_EQ(count("c"), 0U);
}

TEST_F(AnnouncementBookTest, NeedsNoAllIfNothingWasMissed) {
  say(What::changes, 1, {of("a", 1)});
  say(What::all, 1, {}, 1, 2);
  EXPECT_EQ(count("a"), 1U) << "told for somebody else";
  EXPECT_TRUE(ask().empty());
}

TEST_F(AnnouncementBookTest, ForgetsWhoIsSilentOrSaysGoodbye) {
  say(What::changes, 1, {of("a", 1)});
  say(What::changes, 1, {of("a", 1)}, 1, 1, kThird);
  now_ms_ += AnnouncementBook::kSilenceMs - 1;
  say(What::alive, 1);
  book_.expire(now_ms_);
  EXPECT_EQ(count("a"), 2U);
  now_ms_ += 1;
  book_.expire(now_ms_);
  EXPECT_EQ(count("a"), 1U);
  EXPECT_EQ(book_.servers(), 1U);
  say(What::alive, 1, {}, 1, 1, kThird);
  EXPECT_EQ(ask(), (std::vector<backend::OriginId>{kThird})) << "it is back";
  say(What::gone, 1);
  EXPECT_EQ(count("a"), 0U);
}

TEST_F(AnnouncementBookTest, KnowsWhenItIsAsked) {
  EXPECT_TRUE(book_.take(kOther, "asks 0\n", now_ms_));
  EXPECT_TRUE(book_.take(kOther, "asks 100\n", now_ms_));
  EXPECT_FALSE(book_.take(kOther, "asks 8\n", now_ms_));
  EXPECT_FALSE(book_.take(kSelf, "asks 0\n", now_ms_));
  EXPECT_EQ(book_.servers(), 0U) << "who asks need not have subscribers";
}

TEST_F(AnnouncementBookTest, CountsWhatTheTableRefuses) {
  RemoteSubscribers small({.names = 1, .bytes = 100});
  AnnouncementBook book(small, kSelf);
  book.take(kOther, "changes 1\nchannel 1 1 a\nchannel 1 1 b\n", now_ms_);
  EXPECT_EQ(book.refused(), 1U);
  EXPECT_TRUE(book.to_ask(now_ms_).empty()) << "asking would not help";
}

TEST_F(AnnouncementBookTest, LeavesOutWhatIsMalformed) {
  EXPECT_FALSE(book_.take(kOther, "rubbish", now_ms_));
  EXPECT_EQ(book_.servers(), 0U);
  book_.take(kOther, "changes 1\nchannel 1 1 a\nrubbish", now_ms_);
  EXPECT_EQ(count("a"), 1U);
  EXPECT_EQ(ask().size(), 1U);
}

}  // namespace
}  // namespace isthmus
