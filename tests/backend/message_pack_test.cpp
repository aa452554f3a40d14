// Messages that share a row of the log in SQL.
#include "backend/message_pack.hpp"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend {
namespace {

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
  MessagePacker packer;
  for (std::size_t i = 0; i < batch.size();) {
    i += packer.take(batch, i);
    rows.emplace_back(packer.row());
  }
  return rows;
}

std::vector<OwnedRow> unpacked(const std::vector<OwnedRow>& rows) {
  std::vector<OwnedRow> messages;
  for (const OwnedRow& row : rows)
    EXPECT_TRUE(for_each_message(row.view(), [&](const Row& each) { messages.emplace_back(each); }));
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
  const std::string huge(MessagePacker::kPackedBytes, 'y');
  rows.push_back(message(101, "channel", huge));
  rows.push_back(message(102, "channel", "z"));
  const auto sql = packed(make_batch(rows));
  EXPECT_LT(sql.size(), 12U);
  for (const OwnedRow& of : sql) {
    EXPECT_TRUE(of.value == huge ||
                of.key.size() + of.field.size() + of.value.size() <= MessagePacker::kPackedBytes + 20);
  }
  const auto messages = unpacked(sql);
  ASSERT_EQ(messages.size(), rows.size());
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(messages[i].row.seq, i + 1);
    EXPECT_EQ(messages[i].value, rows[i].value);
  }
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
    EXPECT_FALSE(for_each_message(row.view(), [](const Row&) {})) << field;
  }
  OwnedRow row = good[0];
  row.row.count.total = -1;
  EXPECT_FALSE(for_each_message(row.view(), [](const Row&) {}));
}

}  // namespace
}  // namespace isthmus::backend
