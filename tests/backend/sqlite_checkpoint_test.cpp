// What a step of the checkpoint in SQLite deletes: little enough that commits do not wait for it, and in an
// order after which a crash loses nothing.
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

StoredKey forgotten(const std::string& name) {
  StoredKey key;
  key.key = name;
  key.forget = true;
  return key;
}

class SqliteCheckpoint : public ::testing::Test {
 protected:
  void fill(const std::string& key, int fields, const std::string& value = "v") {
    CheckpointChunk chunk{{hash_key(key, 5)}, {}};
    for (int i = 0; i < fields; ++i)
      chunk.fields.push_back({0, key, std::to_string(i), value, 5, kSite, "", false, false});
    log_->write_checkpoint(chunk);
  }
  std::int64_t count(const std::string& table) const {
    return query_integer(folder_.path(), "SELECT count(*) FROM " + table);
  }
  /// The number of fields after each step but the last.
  std::vector<std::int64_t> write_in_steps(const CheckpointChunk& chunk) {
    std::vector<std::int64_t> left;
    while (left.size() < 100 && log_->write_checkpoint_step(chunk)) left.push_back(count("field"));
    return left;
  }

  TempFolder folder_;
  std::unique_ptr<Log> log_ = open_log(folder_.url());
};

TEST_F(SqliteCheckpoint, ForgetsALargeHashInSteps) {
  fill("h", 5000);
  const CheckpointChunk chunk{{forgotten("h")}, {}};
  EXPECT_TRUE(log_->write_checkpoint_step(chunk));
  EXPECT_EQ(count("field"), 3000);
  EXPECT_EQ(count("entry"), 1) << "the key goes last";
  EXPECT_THAT(write_in_steps(chunk), ElementsAre(1000));
  EXPECT_EQ(count("field"), 0);
  EXPECT_EQ(count("entry"), 0);
}

TEST_F(SqliteCheckpoint, ReplacesALargeHashInSteps) {
  fill("h", 4500);
  fill("other", 10);
  CheckpointChunk chunk{{hash_key("h", 9)}, {{0, "h", "new", "w", 9, kSite, "", false, false}}};
  chunk.keys[0].replace_fields = true;
  EXPECT_TRUE(log_->write_checkpoint_step(chunk));
  EXPECT_EQ(query_integer(folder_.path(), "SELECT version FROM entry WHERE CAST(key AS TEXT) = 'h'"), 5);
  EXPECT_THAT(write_in_steps(chunk), ElementsAre(510));
  EXPECT_EQ(count("field"), 11);
  EXPECT_EQ(query_integer(folder_.path(), "SELECT version FROM entry WHERE CAST(key AS TEXT) = 'h'"), 9);
}

TEST_F(SqliteCheckpoint, ForgetsSmallHashesInOneStep) {
  fill("a", 900);
  fill("b", 900);
  EXPECT_THAT(write_in_steps({{forgotten("a"), forgotten("b"), forgotten("c")}, {}}), IsEmpty());
  EXPECT_EQ(count("field"), 0);
  EXPECT_EQ(count("entry"), 0);
}

TEST_F(SqliteCheckpoint, SharesAStepAmongTheKeysOfAChunk) {
  for (const char* key : {"a", "b", "c", "d"}) fill(key, 1000);
  EXPECT_THAT(write_in_steps({{forgotten("a"), forgotten("b"), forgotten("c"), forgotten("d")}, {}}),
              ElementsAre(2000));
  EXPECT_EQ(count("field"), 0);
}

TEST_F(SqliteCheckpoint, DeletesFewBytesInAStep) {
  fill("h", 20, std::string(1 << 20, 'v'));
  EXPECT_THAT(write_in_steps({{forgotten("h")}, {}}), ElementsAre(12, 4));
  EXPECT_EQ(count("entry"), 0);
}

TEST_F(SqliteCheckpoint, WritesInOneTransactionIfAskedTo) {
  fill("h", 5000);
  log_->write_checkpoint({{forgotten("h")}, {}});
  EXPECT_EQ(count("field"), 0);
  EXPECT_EQ(count("entry"), 0);
}

TEST_F(SqliteCheckpoint, LoadsWhatTheLogTellsBetweenTwoSteps) {
  fill("h", 3000);
  fill("stays", 2);
  log_->finish_checkpoint({{kOrigin, 5}});
  log_->append(make_batch({make_row(6, RowKind::del, "h"), make_row(7, RowKind::hcreate, "h", "f", "new"),
                           make_row(8, RowKind::hset, "h", "1", "new")}));
  const auto visible = [&] {
    Model found;
    open_log(folder_.url())->load(found);
    return found.visible(0);
  };
  log_.reset();
  const Model::State before = visible();
  EXPECT_EQ(before.size(), 4U) << "two fields of each key";
  CheckpointChunk chunk{
      {hash_key("h", 8)},
      {{0, "h", "f", "new", 7, kSite, "", false, false}, {0, "h", "1", "new", 8, kSite, "", false, false}}};
  chunk.keys[0].replace_fields = true;
  bool more = true;
  for (int steps = 0; more && steps < 10; ++steps) {
    log_ = open_log(folder_.url());
    more = log_->write_checkpoint_step(chunk);
    log_.reset();
    EXPECT_EQ(visible(), before) << "after " << steps << " steps";
  }
  EXPECT_FALSE(more);
}

}  // namespace
}  // namespace isthmus::backend::test
