// What is different in a keyspace that has peers: expired keys stay and are told of, tombstones stay until
// they are stable, and what a fold did is told.
#include <gtest/gtest.h>

#include "src/command/call.hpp"
#include "tests/unit/command/command_runner.hpp"
#include "tests/unit/merge/registers_text.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;

Row row_of(backend::SiteId site, RowKind kind, Version version, std::string_view value = {},
           std::string_view field = {}) {
  Row row;
  row.site = site;
  row.kind = kind;
  row.version = version;
  row.key = "k";
  row.field = field;
  row.value = value;
  return row;
}

class LinkedKeyspace : public testing::Test {
 protected:
  LinkedKeyspace() {
    keyspace_.set_site(1);
    keyspace_.set_linked(true);
    keyspace_.set_stable(0);
  }
  FoldResult fold(const Row& row) {
    return keyspace_.fold(row, hash_name(row.key), keyspace_.site_index(row.site));
  }
  std::vector<std::string> collect() {
    std::vector<std::string> changed;
    for (std::size_t i = 0; i < kShards; ++i) {
      keyspace_.collect(i, 100, [&](const Key& key) { changed.emplace_back(key.name); });
    }
    return changed;
  }
  Keyspace keyspace_;
};

TEST_F(LinkedKeyspace, TellsWhatAFoldDid) {
  FoldResult result = fold(row_of(1, RowKind::set, 10, "own"));
  EXPECT_TRUE(result.won && !result.existed && result.exists);
  EXPECT_EQ(result.lost_version, 0U);
  result = fold(row_of(2, RowKind::set, 5, "older"));
  EXPECT_TRUE(!result.won && result.existed && result.exists);
  result = fold(row_of(2, RowKind::set, 12, "newer"));
  EXPECT_TRUE(result.won);
  EXPECT_EQ(result.lost_version, 10U);
  result = fold(row_of(2, RowKind::del, 13));
  EXPECT_TRUE(result.won && result.existed && !result.exists);
  EXPECT_EQ(result.lost_version, 0U);
  EXPECT_FALSE(fold(row_of(2, RowKind::del, 13)).won);
}

TEST_F(LinkedKeyspace, TellsOfAFieldThatAnotherSiteReplaced) {
  fold(row_of(1, RowKind::hcreate, 10, "1", "f"));
  EXPECT_EQ(fold(row_of(2, RowKind::hset, 11, "2", "g")).lost_version, 0U);
  EXPECT_EQ(fold(row_of(2, RowKind::hset, 12, "2", "f")).lost_version, 10U);
}

TEST_F(LinkedKeyspace, ForgetsTombstonesWhenTheyAreStable) {
  fold(row_of(1, RowKind::set, 10, "v"));
  fold(row_of(2, RowKind::del, 20));
  keyspace_.set_stable(19);
  EXPECT_TRUE(collect().empty());
  fold(row_of(3, RowKind::set, 15, "late"));
  EXPECT_EQ(text_of(keyspace_), "");
  keyspace_.set_stable(20);
  EXPECT_EQ(collect(), std::vector<std::string>{"k"});
  EXPECT_EQ(keyspace_.find_any({0, "k"}), nullptr);
}

TEST_F(LinkedKeyspace, ForgetsDeletedFieldsAndKeepsTheOthers) {
  fold(row_of(1, RowKind::hcreate, 10, "1", "f"));
  fold(row_of(1, RowKind::hset, 11, "2", "g"));
  fold(row_of(1, RowKind::hdel, 12, {}, "f"));
  keyspace_.set_stable(12);
  EXPECT_EQ(collect(), std::vector<std::string>{"k"});
  EXPECT_EQ(registers_of(keyspace_), "0 k hset 11.1 field=g value=2\n0 k htype 12.1\n");
  EXPECT_TRUE(collect().empty());
}

TEST_F(LinkedKeyspace, HidesAnExpiredKeyAndRemembersItUntilNobodyCanWriteToIt) {
  keyspace_.set_max_clock_skew(50);
  Row row = row_of(1, RowKind::set, 10, "v");
  row.expire_at = 1000;
  fold(row);
  const Key key(0, "k");
  Shard& shard = keyspace_.shard(key);
  EXPECT_FALSE(keyspace_.next_expired(shard, 999).has_value());
  EXPECT_EQ(keyspace_.next_expired(shard, 1000)->name, "k");
  EXPECT_TRUE(keyspace_.tell_expired(key, 1000));
  EXPECT_FALSE(keyspace_.tell_expired(key, 1000));
  EXPECT_EQ(keyspace_.size(0), 0U);
  EXPECT_EQ(keyspace_.keys_with_deadline(0), 0U);
  EXPECT_EQ(keyspace_.find(key, 0), nullptr);
  EXPECT_FALSE(fold(row_of(2, RowKind::update, 11, "w")).existed);
  keyspace_.set_stable(Version{1050} << HybridClock::kCounterBits);
  EXPECT_TRUE(collect().empty());
  keyspace_.set_stable((Version{1050} << HybridClock::kCounterBits) + 1);
  EXPECT_EQ(collect(), std::vector<std::string>{"k"});
  EXPECT_EQ(keyspace_.find_any(key), nullptr);
}

TEST_F(LinkedKeyspace, ShowsAKeyAgainWhoseDeadlineHasBeenMoved) {
  Row row = row_of(1, RowKind::set, 10, "v");
  row.expire_at = 1000;
  fold(row);
  keyspace_.tell_expired({0, "k"}, 1000);
  Row later = row_of(2, RowKind::expire, 11);
  later.expire_at = 5000;
  const FoldResult result = fold(later);
  EXPECT_TRUE(!result.existed && result.exists);
  EXPECT_EQ(keyspace_.size(0), 1U);
  EXPECT_EQ(keyspace_.next_expired(keyspace_.shard({0, "k"}), 5000)->name, "k");
}

TEST_F(LinkedKeyspace, DoesNotTellAgainAfterItsStateHasBeenReadAnew) {
  Row row = row_of(1, RowKind::set, 10, "v");
  row.expire_at = 1000;
  fold(row);
  keyspace_.tell_expired({0, "k"}, 1000);
  Keyspace fresh;
  fresh.take_settings(keyspace_);
  fold_row(fresh, row);
  keyspace_.swap_state(fresh);
  EXPECT_EQ(keyspace_.size(0), 0U);
  EXPECT_FALSE(keyspace_.next_expired(keyspace_.shard({0, "k"}), 2000).has_value());
}

// A flush changes no record of the checkpoint: what it has ended still stands in that of a key which outlives
// it.
class RestoredBehindAFlush : public LinkedKeyspace {
 protected:
  static constexpr Version kFlush = 20;

  /// Folds the rows, takes the records of the key, and folds the flush: what comes of the records behind it
  /// must be what the flush has left.
  void expect_what_it_left(const std::vector<Row>& rows, const std::string& before,
                           const std::string& after) {
    for (const Row& row : rows) fold(row);
    EXPECT_EQ(text_of(keyspace_), before);
    const Key key(0, "k");
    restored_.set_site(1);
    restored_.set_linked(true);
    restored_.set_stable(0);
    restored_.restore(backend::StoredFlush{0, kFlush, 2});
    restored_.restore(keyspace_.stored(key));
    if (const Node& node = *keyspace_.find_any(key); node.has_fields()) {
      hash_for_each(node, true, [&](const FieldView& field) {
        // Those are gone from the checkpoint.
        if (field.version > kFlush) restored_.restore(keyspace_.stored(key, field.name));
      });
    }
    Row flush = row_of(2, RowKind::flush, kFlush);
    flush.key = {};
    fold(flush);
    EXPECT_EQ(text_of(keyspace_), after);
    EXPECT_EQ(text_of(restored_), after);
    EXPECT_EQ(registers_of(restored_), registers_of(keyspace_));
    EXPECT_EQ(restored_.size(0), keyspace_.size(0));
    EXPECT_EQ(restored_.keys_with_deadline(0), keyspace_.keys_with_deadline(0));
  }
  static Row with_deadline(Row row) {
    row.expire_at = 5000;
    return row;
  }
  Keyspace restored_;
};

TEST_F(RestoredBehindAFlush, AStringHasNoOlderDeadline) {
  expect_what_it_left({with_deadline(row_of(1, RowKind::set, 10, "v")), row_of(1, RowKind::update, 30, "w")},
                      "k=w@5000", "k=w");
}

TEST_F(RestoredBehindAFlush, ADeadlineKeepsNoOlderValue) {
  expect_what_it_left({row_of(1, RowKind::set, 10, "v"), with_deadline(row_of(1, RowKind::expire, 30))},
                      "k=v@5000", "");
}

TEST_F(RestoredBehindAFlush, AHashHasNoOlderDeadlineNorCut) {
  expect_what_it_left({with_deadline(row_of(1, RowKind::set, 10, "v")),
                       row_of(1, RowKind::hset, 15, "1", "f"), row_of(1, RowKind::hset, 30, "2", "g")},
                      "k{f=1,g=2}@5000", "k{g=2}");
}

TEST_F(RestoredBehindAFlush, AMemberHasNoOlderAdds) {
  Row removal = row_of(2, RowKind::srem, 35, {}, "m");
  removal.count = {.base_version = 30, .base_site = 2};
  expect_what_it_left({row_of(1, RowKind::sadd, 10, {}, "m"), row_of(2, RowKind::sadd, 30, {}, "m"), removal},
                      "k{m}", "");
}

TEST_F(RestoredBehindAFlush, WhatIsNewerStays) {
  expect_what_it_left({with_deadline(row_of(1, RowKind::set, 30, "v"))}, "k=v@5000", "k=v@5000");
}

class LinkedCommands : public testing::Test {
 protected:
  LinkedCommands() {
    run_.keyspace().set_site(1);
    run_.keyspace().set_linked(true);
    run_.keyspace().set_stable(0);
    run_.hear_events(kEventKeyevent | kEventAll | kEventNew);
  }
  void expire_due() {
    const std::int64_t news_since = run_.now_ms() - run_.services().config.message_max_age_ms;
    for (std::size_t i = 0; i < kShards; ++i) {
      Evaluation(run_.services(), run_.now_ms()).expire_due(i, 64, news_since);
    }
  }
  CommandRunner run_;
};

TEST_F(LinkedCommands, TellThatAKeyHasExpiredOnce) {
  run_("SET k v PX 10");
  run_.pass(10);
  run_.events();
  expire_due();
  EXPECT_EQ(run_.events(), std::vector<std::string>{"expired k"});
  EXPECT_EQ(run_("DBSIZE"), ":0\r\n");
  expire_due();
  run_("SET k w");
  EXPECT_EQ(run_.events(), (std::vector<std::string>{"new k", "set k"}));
  EXPECT_EQ(run_("GET k"), "$1\r\nw\r\n");
}

TEST_F(LinkedCommands, SayNothingOfWhatExpiredLongAgo) {
  run_("SET k v PX 10");
  run_.events();
  run_.pass(11'000);
  expire_due();
  EXPECT_TRUE(run_.events().empty());
}

TEST_F(LinkedCommands, CountWithTheSameRepliesAsAlone) {
  CommandRunner alone;
  for (const std::string_view line : {"INCR n",         "INCRBY n 5",
                                      "EXPIRE n 100",   "INCR n",
                                      "TTL n",          "DEL n",
                                      "DECR n",         "SET n 7",
                                      "INCR n",         "GET n",
                                      "APPEND n 0",     "INCR n",
                                      "SET n x",        "INCR n",
                                      "HINCRBY h f 2",  "HINCRBY h f 2",
                                      "HDEL h f",       "HINCRBY h f 1",
                                      "HSET h f 9",     "HINCRBY h f 1",
                                      "HGET h f",       "DEL h",
                                      "HINCRBY h g -1", "HGETALL h",
                                      "INCR h",         "SET big 9223372036854775807",
                                      "INCR big",       "DECRBY big 9223372036854775807",
                                      "GET big",        "FLUSHALL",
                                      "INCR n",         "OBJECT ENCODING n"}) {
    EXPECT_EQ(run_(line), alone(line)) << line;
  }
}

TEST_F(LinkedCommands, CountAnewOnWhatHasExpired) {
  run_("INCR n");
  run_("PEXPIRE n 10");
  run_("INCR n");
  run_.pass(20);
  EXPECT_EQ(run_("INCR n"), ":1\r\n");
  EXPECT_EQ(run_("TTL n"), ":-1\r\n");
  run_("PEXPIRE n 10");
  run_.pass(20);
  expire_due();
  EXPECT_EQ(run_("INCR n"), ":1\r\n");
  EXPECT_EQ(run_("DBSIZE"), ":1\r\n");
}

}  // namespace
}  // namespace isthmus
