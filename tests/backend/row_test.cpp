// Row kinds and batches: what goes in comes out.
#include "backend/row.hpp"

#include <string>

#include <gtest/gtest.h>

namespace isthmus::backend {
namespace {

TEST(RowKindName, ComesBackForEveryKind) {
  for (int i = 0; i <= static_cast<int>(RowKind::lease); ++i) {
    const auto kind = static_cast<RowKind>(i);
    EXPECT_EQ(row_kind_from_name(row_kind_name(kind)), kind) << row_kind_name(kind);
  }
}

TEST(RowKindName, IsTheWordOfTheContract) {
  EXPECT_EQ(row_kind_name(RowKind::set), "set");
  EXPECT_EQ(row_kind_name(RowKind::hcreate), "hcreate");
  EXPECT_EQ(row_kind_name(RowKind::hdel), "hdel");
  EXPECT_EQ(row_kind_name(RowKind::screate), "screate");
  EXPECT_EQ(row_kind_name(RowKind::stype), "stype");
  EXPECT_EQ(row_kind_name(RowKind::flush), "flush");
  EXPECT_EQ(row_kind_name(RowKind::spublish), "spublish");
  EXPECT_EQ(row_kind_name(RowKind::lease), "lease");
}

TEST(RowKindName, GivesNothingForOtherWords) {
  for (const char* name : {"", "SET", "set ", "zadd"}) EXPECT_FALSE(row_kind_from_name(name)) << name;
}

Row full_row() {
  Row row;
  row.site = 1;
  row.origin = 2;
  row.seq = 3;
  row.version = 4;
  row.db = 15;
  row.kind = RowKind::hset;
  row.group_end = false;
  row.key = std::string_view("k\0y", 3);
  row.field = "field";
  row.value = "value";
  row.expire_at = 5;
  row.sent_at = 6;
  return row;
}

TEST(RowBatch, GivesBackEachRowWhole) {
  RowBatch batch;
  batch.append(full_row());
  batch.append(Row());
  ASSERT_EQ(batch.size(), 2U);
  EXPECT_EQ(batch.bytes(), 13U);
  const Row row = batch[0];
  EXPECT_EQ(row.site, 1);
  EXPECT_EQ(row.origin, 2);
  EXPECT_EQ(row.seq, 3U);
  EXPECT_EQ(row.version, 4U);
  EXPECT_EQ(row.db, 15);
  EXPECT_EQ(row.kind, RowKind::hset);
  EXPECT_FALSE(row.group_end);
  EXPECT_EQ(row.key, std::string_view("k\0y", 3));
  EXPECT_EQ(row.field, "field");
  EXPECT_EQ(row.value, "value");
  EXPECT_EQ(row.expire_at, 5);
  EXPECT_EQ(row.sent_at, 6);
  const Row empty = batch[1];
  EXPECT_TRUE(empty.key.empty() && empty.field.empty() && empty.value.empty());
  EXPECT_FALSE(empty.expire_at);
  EXPECT_TRUE(empty.group_end);
}

TEST(RowBatch, KeepsADeadlineOfZeroApartFromNone) {
  RowBatch batch;
  Row row;
  row.expire_at = 0;
  batch.append(row);
  EXPECT_EQ(batch[0].expire_at, 0);
}

TEST(RowBatch, OwnsItsBytes) {
  RowBatch batch;
  std::string key = "before";
  Row row;
  row.key = key;
  batch.append(row);
  key = "after!";
  EXPECT_EQ(batch[0].key, "before");
}

TEST(RowBatch, EndsTheGroupAtItsLastRow) {
  RowBatch batch;
  batch.append(full_row());
  batch.append(full_row());
  batch.end_group();
  EXPECT_FALSE(batch[0].group_end);
  EXPECT_TRUE(batch[1].group_end);
}

TEST(RowBatch, IsEmptyAfterClearAndTakesNewRows) {
  RowBatch batch;
  const std::string large(8U << 20U, 'x');
  Row row;
  row.value = large;
  batch.append(row);
  batch.clear();
  EXPECT_TRUE(batch.empty());
  EXPECT_EQ(batch.bytes(), 0U);
  batch.append(full_row());
  EXPECT_EQ(batch[0].value, "value");
}

TEST(RowBatch, KeepsEventsAndAnswers) {
  RowBatch batch;
  batch.append(full_row());
  batch.append(full_row());
  batch.add_event(0, "new");
  batch.add_event(0, "hset");
  batch.answer(9, 10, "+OK\r\n");
  EXPECT_EQ(batch[0].event, "new,hset");
  EXPECT_EQ(batch[0].requester, 0);
  EXPECT_EQ(batch[1].requester, 9);
  EXPECT_EQ(batch[1].request, 10U);
  EXPECT_EQ(batch[1].reply, "+OK\r\n");
  RowBatch copy;
  copy.append(batch[0]);
  copy.append(batch[1]);
  EXPECT_EQ(copy[0].event, "new,hset");
  EXPECT_EQ(copy[1].reply, "+OK\r\n");
  batch.clear();
  batch.append(full_row());
  EXPECT_EQ(batch[0].event, "");
}

TEST(RowBatch, NumbersMessagesThatHaveNoSeqYet) {
  RowBatch batch;
  for (const Seq seq : {Seq{7}, Seq{0}, Seq{0}}) {
    Row row = full_row();
    row.kind = RowKind::publish;
    row.seq = seq;
    batch.append(row);
  }
  Row foreign = full_row();
  foreign.kind = RowKind::publish;
  foreign.origin = 3;
  foreign.seq = 0;
  batch.append(foreign);
  EXPECT_EQ(batch.number_messages(2, 20, 9), 22U);
  EXPECT_EQ(batch[0].seq, 7U);
  EXPECT_EQ(batch[1].seq, 21U);
  EXPECT_EQ(batch[2].seq, 22U);
  EXPECT_EQ(batch[2].version, 9U);
  EXPECT_EQ(batch[0].version, 4U);
  batch.clear_message_versions(2);
  EXPECT_EQ(batch[2].version, 0U);
  EXPECT_EQ(batch[3].seq, 0U);
}

TEST(RowBatch, EndsAGroupWithTheLastRowThatIsKept) {
  RowBatch batch;
  for (int i = 0; i < 6; ++i) {
    Row row = full_row();
    row.seq = static_cast<Seq>(i);
    row.group_end = i == 2 || i == 4 || i == 5;
    batch.append(row);
  }
  batch.keep_if([](const Row& row) { return row.seq != 2 && row.seq != 3 && row.seq != 5; });
  ASSERT_EQ(batch.size(), 3U);
  EXPECT_FALSE(batch[0].group_end);
  EXPECT_TRUE(batch[1].group_end);
  EXPECT_EQ(batch[2].seq, 4U);
  EXPECT_TRUE(batch[2].group_end);
}

}  // namespace
}  // namespace isthmus::backend
