// What a peer tells a site through a session with its database: rows of its log, its messages, its whole
// state.
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/site_database.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;

std::vector<Seq> seqs_of(const RowBatch& batch) {
  std::vector<Seq> seqs;
  for (std::size_t i = 0; i < batch.size(); ++i) seqs.push_back(batch[i].seq);
  return seqs;
}

TEST(PostgresqlPeerTest, ReadsTheRowsOfAnOriginOrNone) {
  SiteDatabase a, b;
  a.write_sets(9);
  a.write({make_row(3, RowKind::publish, "channel", "", "payload")});  // of another origin
  const auto peer = b.links->connect(a.url());
  EXPECT_EQ(peer->site(), a.site());
  EXPECT_LT(std::abs(peer->clock_offset_ms()), 1000);
  Position end = 0;
  Reaches reaches = peer->reaches(end);
  EXPECT_GT(end, 0U);
  EXPECT_EQ(reaches[a.lease].last, 10U);
  EXPECT_EQ(reaches[a.lease].site, a.site());
  EXPECT_EQ(reaches[kOrigin].last, 3U);
  Copier some, message, gap, cut, unknown;
  EXPECT_TRUE(peer->read_rows(a.lease, 4, 6, some));
  EXPECT_THAT(seqs_of(some.batch), ElementsAre(4, 5, 6));
  EXPECT_TRUE(peer->read_rows(kOrigin, 3, 3, message));
  ASSERT_EQ(message.batch.size(), 1U);
  EXPECT_EQ(message.batch[0].value, "payload");
  EXPECT_FALSE(peer->read_rows(kOrigin, 1, 3, gap)) << "two of them never came as rows";
  EXPECT_FALSE(peer->read_rows(424242, 1, 1, unknown));
  a.cluster().sql("DELETE FROM isthmus.log WHERE seq <= 5 AND origin = " + std::to_string(a.lease));
  a.cluster().sql("INSERT INTO isthmus.progress (origin, seq, cut, site) VALUES (" + std::to_string(a.lease) +
                  ", 10, 5, 1)");
  EXPECT_FALSE(peer->read_rows(a.lease, 5, 10, cut));
  EXPECT_TRUE(gap.batch.empty() && unknown.batch.empty() && cut.batch.empty());
  EXPECT_TRUE(peer->read_rows(a.lease, 6, 10, cut));
  EXPECT_EQ(cut.batch.size(), 5U);
  EXPECT_EQ(peer->reaches(end)[a.lease].cut, 5U);
}

TEST(PostgresqlPeerTest, KnowsTheMessagesThatShareARowOfTheLog) {
  SiteDatabase a, b;
  link(a, b);
  const auto follower = b.shared().open_feed();
  follower->begin();
  a.shared().upkeep({1, "here:1", "0.2", 0, true}, a.lease);
  std::vector<Row> rows;
  const std::int64_t now_ms = std::chrono::duration_cast<std::chrono::milliseconds>(
                                  std::chrono::system_clock::now().time_since_epoch())
                                  .count();
  for (Seq seq = 1; seq <= 6; ++seq) {
    Row message =
        make_row(seq, RowKind::publish, seq % 2 == 0 ? "even" : "\xFF", "", seq == 3 ? "" : "payload");
    message.sent_at = now_ms;
    message.version = 5;
    rows.push_back(message);
  }
  a.write(rows);
  EXPECT_EQ(a.integer("SELECT count(*) FROM isthmus.log WHERE kind = 'publish' AND seq = 6"), 1);
  EXPECT_EQ(a.integer("SELECT count(*) FROM isthmus.log WHERE kind = 'publish'"), 1);
  // Again after an unknown outcome, in other company.
  a.write({rows[0], rows[1], rows[2]});
  EXPECT_THAT(a.cluster().sql(
                  "SELECT seq, channel, payload FROM isthmus.messages WHERE seq < 4 ORDER BY arrived, seq"),
              ElementsAre("1|\\xff|payload", "2|even|payload", "3|\\xff|", "1|\\xff|payload",
                          "2|even|payload", "3|\\xff|"));
  const auto peer = b.links->connect(a.url());
  Position end = 0;
  EXPECT_EQ(peer->reaches(end)[kOrigin].last, 6U);
  Copier some, all, young, beyond;
  EXPECT_TRUE(peer->read_rows(kOrigin, 2, 4, some));
  EXPECT_THAT(seqs_of(some.batch), ElementsAre(2, 3, 4));
  EXPECT_EQ(some.batch[0].key, "even");
  EXPECT_EQ(some.batch[1].value, "");
  EXPECT_TRUE(peer->read_rows(kOrigin, 1, 6, all));
  EXPECT_THAT(seqs_of(all.batch), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_FALSE(peer->read_rows(kOrigin, 1, 7, beyond));
  peer->read_messages(now_ms, young);
  EXPECT_THAT(seqs_of(young.batch), ElementsAre(1, 2, 3, 4, 5, 6));

  Told streamed, missing;
  ASSERT_TRUE(becomes([&] {
    follower->stream(streamed, std::chrono::milliseconds(20));
    return streamed.seqs.size() >= 9;
  }));
  EXPECT_THAT(streamed.seqs, ElementsAre(1, 2, 3, 4, 5, 6, 1, 2, 3));
  EXPECT_TRUE(follower->read_missing({{kOrigin, 4}, {a.lease, 1}}, missing));
  EXPECT_THAT(missing.seqs, ElementsAre(5, 6)) << "the row that has 3 and 4 as well";
}

// A link leaves out what forwarding servers are told, also where it is told of several changes in one row.
TEST(PostgresqlPeerTest, BringsChangesThatShareARowOfTheLog) {
  SiteDatabase a, b;
  link(a, b);
  const auto follower = b.shared().open_feed();
  follower->begin();
  a.shared().upkeep({1, "here:1", "0.3", 0, true}, a.lease);
  std::vector<Row> rows = changes_of_all_kinds();
  for (Row& row : rows) {
    row.requester = 17;
    row.request = row.seq;
    row.reply = "+OK\r\n";
  }
  a.write(rows);
  EXPECT_EQ(a.integer("SELECT count(*) FROM isthmus.log WHERE origin = " + std::to_string(kOrigin)), 1);
  Told streamed, missing;
  ASSERT_TRUE(becomes([&] {
    follower->stream(streamed, std::chrono::milliseconds(20));
    return streamed.seqs.size() >= rows.size();
  }));
  ASSERT_TRUE(follower->read_missing({{a.lease, 1}}, missing));
  Told wanted;
  for (const Row& row : rows) wanted.row(row);
  EXPECT_EQ(streamed.seqs, wanted.seqs);
  EXPECT_EQ(streamed.keys, wanted.keys);
  EXPECT_EQ(missing.keys, wanted.keys);
  EXPECT_EQ(streamed.replies + missing.replies, 0U);
}

TEST(PostgresqlPeerTest, ReadsTheWholeStateInOneSnapshot) {
  SiteDatabase a, b;
  a.shared().guard_checkpoint(a.lease);
  StoredKey key;
  key.key = "stored";
  key.type = StoredType::string;
  key.version = 1;
  a.log->write_checkpoint({{key}, {}});
  a.log->put_mark({{{a.lease, 1}}, {{3, 5, 1}}, {}});
  a.write_sets(2);
  a.write({make_row(1, RowKind::publish, "channel", "", "payload")});
  Copier copier;
  Reaches reaches;
  b.links->connect(a.url())->read_state(copier, reaches);
  EXPECT_THAT(copier.keys, ElementsAre("stored"));
  EXPECT_EQ(copier.flushes, 1);
  EXPECT_THAT(seqs_of(copier.batch), ElementsAre(2, 3)) << "behind the checkpoint, and no message";
  EXPECT_EQ(reaches[a.lease].last, 3U);
  EXPECT_EQ(reaches[a.lease].site, a.site());
  EXPECT_EQ(reaches[kOrigin].last, 1U);
}

}  // namespace
}  // namespace isthmus::backend::test
