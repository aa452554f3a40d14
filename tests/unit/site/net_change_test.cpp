// One event for each key that changed while nobody listened.
#include "src/site/net_change.hpp"

#include <set>

#include <gtest/gtest.h>

#include "tests/unit/keyspace/keyspace_text.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;

Row row(RowKind kind, Version version, std::string_view key, std::string_view field = {},
        std::string_view value = {}) {
  Row r;
  r.site = 1;
  r.kind = kind;
  r.version = version;
  r.key = key;
  r.field = field;
  r.value = value;
  return r;
}

class NetChangeTest : public testing::Test {
 protected:
  NetChangeTest() { keyspace_.set_site(1); }
  void fold(const Row& r) {
    const FoldResult result = fold_row(keyspace_, r);
    if (result.won) change_.changed(Key(r.db, r.key), result.existed);
  }
  std::multiset<std::string> told() {
    std::multiset<std::string> events;
    change_.tell(keyspace_, 0, [&](std::string_view event, std::uint8_t db, std::string_view key) {
      events.insert(std::to_string(db) + " " + std::string(event) + " " + std::string(key));
    });
    return events;
  }
  Keyspace keyspace_;
  NetChange change_;
};

TEST_F(NetChangeTest, TellsWhatIsThereAndWhatIsGone) {
  fold_row(keyspace_, row(RowKind::set, 1, "old"));
  fold_row(keyspace_, row(RowKind::set, 2, "untouched"));
  fold(row(RowKind::del, 3, "old"));
  fold(row(RowKind::set, 4, "s", {}, "1"));
  fold(row(RowKind::update, 5, "s", {}, "2"));
  fold(row(RowKind::hcreate, 6, "h", "f", "1"));
  fold(row(RowKind::screate, 7, "t", "m"));
  EXPECT_EQ(told(), (std::multiset<std::string>{"0 del old", "0 set s", "0 hset h", "0 sadd t"}));
  EXPECT_TRUE(change_.empty());
  EXPECT_TRUE(told().empty());
}

TEST_F(NetChangeTest, SaysNothingOfAKeyThatCameAndWent) {
  fold(row(RowKind::set, 1, "k"));
  fold(row(RowKind::del, 2, "k"));
  EXPECT_TRUE(told().empty());
}

TEST(TellDifference, NamesEachKeyThatDiffersOnce) {
  Keyspace before, after;
  for (Keyspace* keyspace : {&before, &after}) {
    keyspace->set_site(1);
    fold_row(*keyspace, row(RowKind::set, 1, "same", {}, "v"));
    fold_row(*keyspace, row(RowKind::hcreate, 2, "h", "f", "1"));
    fold_row(*keyspace, row(RowKind::screate, 6, "t", "m"));
    fold_row(*keyspace, row(RowKind::sadd, 7, "t", "n"));
  }
  fold_row(after, row(RowKind::srem, 8, "t", "n"));
  fold_row(before, row(RowKind::set, 3, "gone"));
  fold_row(after, row(RowKind::set, 4, "new", {}, "v"));
  fold_row(after, row(RowKind::hset, 5, "h", "g", "2"));
  std::multiset<std::string> events;
  tell_difference(before, after, [&](std::string_view event, std::uint8_t, std::string_view key) {
    events.insert(std::string(event) + " " + std::string(key));
  });
  EXPECT_EQ(events, (std::multiset<std::string>{"del gone", "set new", "hset h", "srem t"}));
}

}  // namespace
}  // namespace isthmus
