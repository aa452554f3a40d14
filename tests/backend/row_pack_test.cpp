// Messages and changes that share a row of the log in SQL.
#include "backend/row_pack.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend {
namespace {

using test::changes_of_all_kinds;
using test::make_batch;
using test::make_row;
using test::OwnedRow;
using testing::ElementsAre;

Row message(Seq seq, std::string_view channel, std::string_view payload) {
  Row row = make_row(seq, RowKind::publish, channel, {}, payload);
  row.sent_at = 1000;
  row.version = 5;
  return row;
}

/// The rows that SQL gets of a batch.
std::vector<OwnedRow> packed(const RowBatch& batch) {
  std::vector<OwnedRow> rows;
  RowPacker packer;
  for (std::size_t i = 0; i < batch.size();) {
    i += packer.take(batch, i);
    rows.emplace_back(packer.row());
  }
  return rows;
}

std::vector<OwnedRow> unpacked(const std::vector<OwnedRow>& rows) {
  std::vector<OwnedRow> messages;
  for (const OwnedRow& row : rows)
    EXPECT_TRUE(for_each_row(row.view(), [&](const Row& each) { messages.emplace_back(each); }));
  return messages;
}

/// seq, channel and payload of each.
std::vector<std::string> texts(const std::vector<OwnedRow>& rows) {
  std::vector<std::string> lines;
  for (const OwnedRow& of : rows) lines.push_back(std::to_string(of.row.seq) + " " + of.key + " " + of.value);
  return lines;
}

TEST(MessagePack, PutsNeighboursIntoOneRowThatAPersonCanRead) {
  const auto rows =
      packed(make_batch({message(7, "news", "hi"), message(8, "news", ""), message(9, "a", "bcd")}));
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].row.seq, 9U);
  EXPECT_EQ(rows[0].row.count.total, 3);
  EXPECT_EQ(rows[0].key, "newsnewsa");
  EXPECT_EQ(rows[0].field, "4+2 4+0 1+3");
  EXPECT_EQ(rows[0].value, "hibcd");
  const auto messages = unpacked(rows);
  EXPECT_THAT(texts(messages), ElementsAre("7 news hi", "8 news ", "9 a bcd"));
  for (const OwnedRow& of : messages) {
    EXPECT_EQ(of.row.kind, RowKind::publish);
    EXPECT_EQ(of.row.sent_at, 1000);
    EXPECT_EQ(of.row.version, 5U);
    EXPECT_TRUE(of.row.group_end);
    EXPECT_FALSE(is_packed(of.view()));
  }
}

TEST(MessagePack, LeavesASingleMessageAndOtherRowsAsTheyAre) {
  const Row set = make_row(1, RowKind::set, "k", {}, "v");
  const auto rows = packed(make_batch({set, message(7, "news", "hi"), set}));
  EXPECT_THAT(texts(rows), ElementsAre("1 k v", "7 news hi", "1 k v"));
  for (const OwnedRow& of : rows) EXPECT_EQ(of.row.count.total, 0);
  EXPECT_EQ(rows[1].field, "");
}

TEST(MessagePack, JoinsOnlyWhatAgreesInAllElse) {
  const Row first = message(7, "c", "1");
  const auto other = [](auto change) {
    Row row = message(8, "c", "2");
    change(row);
    return row;
  };
  const std::vector<Row> strangers = {
      other([](Row& row) { row.seq = 9; }),          other([](Row& row) { row.sent_at = 1001; }),
      other([](Row& row) { row.version = 6; }),      other([](Row& row) { row.origin = 1; }),
      other([](Row& row) { row.site = 1; }),         other([](Row& row) { row.kind = RowKind::spublish; }),
      other([](Row& row) { row.copied = true; }),    other([](Row& row) { row.requester = 3; }),
      other([](Row& row) { row.group_end = false; })};
  for (std::size_t i = 0; i < strangers.size(); ++i)
    EXPECT_EQ(packed(make_batch({first, strangers[i]})).size(), 2U) << i;
  Row inside = first;
  inside.group_end = false;
  const auto group =
      packed(make_batch({inside, message(8, "c", "2"), message(9, "c", "3"), message(10, "c", "4")}));
  EXPECT_THAT(texts(group), ElementsAre("7 c 1", "8 c 2", "10 cc 34"))
      << "the end of a group stays its own row";
}

TEST(MessagePack, KeepsRowsSmall) {
  const std::string payload(100, 'x');
  std::vector<Row> rows;
  for (Seq seq = 1; seq <= 100; ++seq) rows.push_back(message(seq, "channel", payload));
  const std::string huge(RowPacker::kPackedBytes, 'y');
  rows.push_back(message(101, "channel", huge));
  rows.push_back(message(102, "channel", "z"));
  const auto sql = packed(make_batch(rows));
  EXPECT_LT(sql.size(), 12U);
  for (const OwnedRow& of : sql) {
    EXPECT_TRUE(of.value == huge ||
                of.key.size() + of.field.size() + of.value.size() <= RowPacker::kPackedBytes + 20);
  }
  const auto messages = unpacked(sql);
  ASSERT_EQ(messages.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(messages[i].row.seq, i + 1);
    EXPECT_EQ(messages[i].value, rows[i].value);
  }
}

/// All that a row says, for comparison.
std::string told(const OwnedRow& of) {
  const Row& row = of.row;
  std::string text;
  for (const std::int64_t number :
       {row.site, row.origin, static_cast<std::int64_t>(row.seq), static_cast<std::int64_t>(row.version),
        std::int64_t{row.db}, std::int64_t{row.group_end}, row.expire_at.value_or(-77), row.requester,
        static_cast<std::int64_t>(row.request), std::int64_t{row.copied},
        static_cast<std::int64_t>(row.count.base_version), row.count.base_site, row.count.counter,
        row.count.total})
    text += std::to_string(number) + " ";
  return text.append(row_kind_name(row.kind)) + " [" + of.key + "] [" + of.field + "] [" + of.value + "] [" +
         of.event + "] [" + of.reply + "]";
}

/// What comes out again of what SQL gets.
std::vector<std::string> told_again(const std::vector<OwnedRow>& rows) {
  std::vector<std::string> lines;
  for (const OwnedRow& row : rows)
    EXPECT_TRUE(for_each_row(row.view(), [&](const Row& each) { lines.push_back(told(OwnedRow(each))); }));
  return lines;
}

std::vector<std::string> told(const RowBatch& batch) {
  std::vector<std::string> lines;
  for (std::size_t i = 0; i < batch.size(); ++i) lines.push_back(told(OwnedRow(batch[i])));
  return lines;
}

TEST(ChangePack, GivesBackEveryColumnOfEveryKind) {
  const RowBatch batch = make_batch(changes_of_all_kinds());
  const auto rows = packed(batch);
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].row.kind, RowKind::changes);
  EXPECT_EQ(rows[0].row.seq, batch.size());
  EXPECT_EQ(rows[0].row.count.total, static_cast<std::int64_t>(batch.size()));
  EXPECT_EQ(told_again(rows), told(batch));
}

TEST(ChangePack, IsDescribedForAPerson) {
  Row first = make_row(5, RowKind::set, "one", {}, "hello");
  first.event = "set,expire";
  first.expire_at = 99;
  Row second = make_row(6, RowKind::hset, "h", "field", "");
  second.group_end = false;
  second.version = 9;
  const auto rows =
      packed(make_batch({first, second, make_row(7, RowKind::del, "gone"), make_row(8, RowKind::flush)}));
  ASSERT_EQ(rows.size(), 1U);
  EXPECT_EQ(rows[0].row.version, 5U);
  EXPECT_EQ(rows[0].field, "set,0,,3,,5,99,set/expire +hset,0,4,1,5,0 del,0,2,4 flush,0,3");
  EXPECT_EQ(rows[0].key, "onehfieldgone");
  EXPECT_EQ(rows[0].value, "hello");
}

TEST(ChangePack, EndsAtWhatDoesNotBelongThere) {
  const auto change = [](Seq seq) { return make_row(seq, RowKind::set, "k", {}, "v"); };
  const auto with = [&](auto alter) {
    std::vector<Row> rows = {change(1), change(2), change(3), change(4), change(5)};
    alter(rows[4]);
    return packed(make_batch(rows)).size();
  };
  EXPECT_EQ(with([](Row&) {}), 1U);
  EXPECT_EQ(with([](Row& row) { row.seq = 6; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.origin = 1; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.site = 1; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.copied = true; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.kind = RowKind::frontier; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.kind = RowKind::lease; }), 2U);
  EXPECT_EQ(with([](Row& row) { row.event = "no event/"; }), 2U);
  EXPECT_EQ(packed(make_batch({change(1), change(2), change(3)})).size(), 3U) << "too few";
}

TEST(ChangePack, KeepsRowsSmall) {
  const std::string value(200, 'x'), huge(RowPacker::kPackedBytes, 'y');
  std::vector<Row> rows;
  for (Seq seq = 1; seq <= 100; ++seq)
    rows.push_back(make_row(seq, RowKind::set, "key", {}, seq == 50 ? std::string_view(huge) : value));
  for (Seq seq = 101; seq <= 1100; ++seq) rows.push_back(make_row(seq, RowKind::flush));
  const RowBatch batch = make_batch(rows);
  const auto sql = packed(batch);
  EXPECT_LT(sql.size(), 30U);
  for (const OwnedRow& of : sql) {
    EXPECT_TRUE(of.value == huge ||
                of.key.size() + of.field.size() + of.value.size() <= RowPacker::kPackedBytes);
    EXPECT_LE(of.row.count.total, static_cast<std::int64_t>(RowPacker::kMostRows));
  }
  EXPECT_EQ(told_again(sql), told(batch));
}

TEST(ChangePack, GivesChangesWithoutValuesWhereThoseWereLeftOut) {
  std::vector<Row> rows;
  for (Seq seq = 1; seq <= 4; ++seq) rows.push_back(make_row(seq, RowKind::hset, "k", "f", "v"));
  auto sql = packed(make_batch(rows));
  sql[0].value.clear();
  for (Row& row : rows) row.value = {};
  EXPECT_EQ(told_again(sql), told(make_batch(rows)));
}

TEST(ChangePack, GivesChangesWithoutRepliesWhereThoseWereLeftOut) {
  std::vector<Row> rows;
  for (Seq seq = 1; seq <= 4; ++seq) {
    rows.push_back(make_row(seq, RowKind::set, "k", {}, "v"));
    rows.back().requester = 17;
    rows.back().request = seq;
    rows.back().reply = "+OK\r\n";
  }
  auto sql = packed(make_batch(rows));
  sql[0].reply.clear();
  for (Row& row : rows) row.reply = {};
  EXPECT_EQ(told_again(sql), told(make_batch(rows)));
}

TEST(ChangePack, RefusesWhatDoesNotHoldTogether) {
  OwnedRow row(make_row(4, RowKind::changes, "abcd", "", "vwxy"));
  row.row.count.total = 4;
  const auto sound = [&](const std::string& description) {
    row.field = description;
    return for_each_row(row.view(), [](const Row&) {});
  };
  const std::string good = "set,0,,1,,1 set,0,,1,,1 set,0,,1,,1";
  EXPECT_TRUE(sound(good + " set,0,,1,,1"));
  for (const char* last :
       {"", " ", " set", " set,0", " set,0,,1,,2", " set,0,,2,,1", " set,0,,1,,", " set,0,,1,,1 set,0",
        " none,0,,1,,1", " publish,0,,1,,1", " ++set,0,,1,,1", " set,x,,1,,1", " set,256,,1,,1",
        " set,0,,-1,,1", " set,0,,1,,1,,,,,,,,,,9", " set,0,1e3,1,,1", " set,0,,1,,99999999999999999999"})
    EXPECT_FALSE(sound(good + last)) << last;
  row.row.count.total = -1;
  EXPECT_FALSE(sound(good + " set,0,,1,,1"));
}

TEST(MessagePack, GivesMessagesWithoutPayloadsWhereThoseWereLeftOut) {
  auto rows = packed(make_batch({message(7, "a", "hi"), message(8, "b", "ho")}));
  rows[0].value.clear();
  EXPECT_THAT(texts(unpacked(rows)), ElementsAre("7 a ", "8 b "));
}

TEST(MessagePack, RefusesWhatDoesNotHoldTogether) {
  const auto good = packed(make_batch({message(7, "ab", "hi"), message(8, "c", "ho")}));
  for (const char* field : {"", "2+2", "2+2 1+2 0+0", "2+2 1+3", "3+2 1+2", "2+2,1+2", "2+2 1", "2 1",
                            "-1+2 1+2", "2+2 1+1", "1+2 1+2", "99999999999999999999+2 1+2"}) {
    OwnedRow row = good[0];
    row.field = field;
    EXPECT_FALSE(for_each_row(row.view(), [](const Row&) {})) << field;
  }
  OwnedRow row = good[0];
  row.row.count.total = -1;
  EXPECT_FALSE(for_each_row(row.view(), [](const Row&) {}));
}

}  // namespace
}  // namespace isthmus::backend
