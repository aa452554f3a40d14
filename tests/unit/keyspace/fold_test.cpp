// The merge rules: each by a table of rows and the state they give, and all of them by random histories in
// random orders.
#include <deque>
#include <random>

#include <gtest/gtest.h>

#include "src/keyspace/difference.hpp"
#include "tests/unit/keyspace/keyspace_text.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;

constexpr Version kForgetNothing = 0;

Row row(RowKind kind, Version version, std::string_view key, std::string_view field = {},
        std::string_view value = {}, std::optional<std::int64_t> expire_at = std::nullopt,
        backend::SiteId site = 1) {
  Row r;
  r.kind = kind;
  r.version = version;
  r.key = key;
  r.field = field;
  r.value = value;
  r.expire_at = expire_at;
  r.site = site;
  return r;
}
Row set(Version v, std::string_view value, std::optional<std::int64_t> at = std::nullopt,
        backend::SiteId site = 1) {
  return row(RowKind::set, v, "k", {}, value, at, site);
}
Row update(Version v, std::string_view value) { return row(RowKind::update, v, "k", {}, value); }
Row hset(Version v, std::string_view field, std::string_view value) {
  return row(RowKind::hset, v, "k", field, value);
}
Row hcreate(Version v, std::string_view f, std::string_view value) {
  return row(RowKind::hcreate, v, "k", f, value);
}
Row hdel(Version v, std::string_view field) { return row(RowKind::hdel, v, "k", field); }
Row del(Version v) { return row(RowKind::del, v, "k"); }
Row expire(Version v, std::optional<std::int64_t> at) { return row(RowKind::expire, v, "k", {}, {}, at); }
Row flush(Version v) { return row(RowKind::flush, v, {}); }

std::string folded(const std::vector<Row>& rows, Version stable) {
  Keyspace keyspace;
  keyspace.set_site(1);
  keyspace.set_stable(stable);
  for (const Row& r : rows) fold_row(keyspace, r);
  return text_of(keyspace);
}

struct Case {
  const char* rule;
  std::vector<Row> rows;
  const char* state;
};

const Case kCases[] = {
    {"a string is there", {set(5, "a")}, "k=a"},
    {"the newer string wins", {set(5, "a"), set(6, "b")}, "k=b"},
    {"a string that arrives late loses", {set(6, "b"), set(5, "a")}, "k=b"},
    {"equal versions: the higher site wins", {set(5, "a", {}, 2), set(5, "b", {}, 1)}, "k=a"},
    {"a string brings its deadline", {set(5, "a", 900)}, "k=a@900"},
    {"a string without a deadline clears the one before", {set(5, "a", 900), set(6, "b")}, "k=b"},
    {"an update keeps the deadline", {set(5, "a", 900), update(6, "b")}, "k=b@900"},
    {"a deadline that was written later holds against an older string",
     {expire(7, 900), set(6, "a")},
     "k=a@900"},
    {"a deadline for a key not yet seen is kept", {expire(7, 900), update(5, "a")}, "k=a@900"},
    {"persist clears the deadline", {set(5, "a", 900), expire(6, std::nullopt)}, "k=a"},
    {"an older persist does not", {set(6, "a", 900), expire(5, std::nullopt)}, "k=a@900"},
    {"del deletes", {set(5, "a"), del(6)}, ""},
    {"del deletes what arrives after it and is older", {del(6), set(5, "a")}, ""},
    {"del does not delete what is newer", {del(6), set(7, "a")}, "k=a"},
    {"del clears the deadline of what comes later", {expire(5, 900), del(6), update(7, "a")}, "k=a"},
    {"fields are written each for itself", {hset(5, "f", "1"), hset(6, "g", "2")}, "k{f=1,g=2}"},
    {"the newer field wins", {hset(6, "f", "2"), hset(5, "f", "1")}, "k{f=2}"},
    {"hdel deletes a field", {hset(5, "f", "1"), hset(5, "g", "2"), hdel(6, "f")}, "k{g=2}"},
    {"hdel deletes a field that arrives after it",
     {hset(4, "g", "2"), hdel(6, "f"), hset(5, "f", "1")},
     "k{g=2}"},
    {"a hash without live fields is no key", {hset(5, "f", "1"), hdel(6, "f")}, ""},
    {"creating a hash clears the deadline", {expire(5, 900), hcreate(6, "f", "1")}, "k{f=1}"},
    {"writing a field of a hash that is there does not",
     {hset(4, "f", "0"), expire(5, 900), hset(6, "f", "1")},
     "k{f=1}@900"},
    {"del cuts the older fields only", {hset(5, "f", "1"), hset(7, "g", "2"), del(6)}, "k{g=2}"},
    {"a string replaces a hash", {hset(5, "f", "1"), set(6, "a")}, "k=a"},
    {"a hash that arrives late does not replace a string", {set(6, "a"), hset(5, "f", "1")}, "k=a"},
    {"a hash replaces a string, and older fields are dead",
     {hset(4, "e", "0"), set(5, "a"), hset(6, "f", "1")},
     "k{f=1}"},
    {"the same in another order", {hset(6, "f", "1"), hset(4, "e", "0"), set(5, "a")}, "k{f=1}"},
    {"a string between two fields kills the older one",
     {hset(4, "e", "0"), hset(6, "f", "1"), update(5, "a")},
     "k{f=1}"},
    {"flush deletes everything older", {set(5, "a"), flush(6)}, ""},
    {"flush deletes what arrives after it and is older", {flush(6), set(5, "a")}, ""},
    {"flush does not delete what is newer", {set(7, "a"), flush(6)}, "k=a"},
    {"an empty value is a value", {set(5, "")}, "k="},
};

TEST(Fold, FollowsItsRulesAndForgetsNothingAboveStable) {
  for (const Case& c : kCases) EXPECT_EQ(folded(c.rows, kForgetNothing), c.state) << c.rule;
}

TEST(Fold, IsIdempotent) {
  for (const Case& c : kCases) {
    std::vector<Row> twice = c.rows;
    twice.insert(twice.end(), c.rows.begin(), c.rows.end());
    EXPECT_EQ(folded(twice, kForgetNothing), c.state) << c.rule;
  }
}

TEST(Fold, IsCommutative) {
  for (const Case& c : kCases) {
    std::vector<Row> rows = c.rows;
    std::sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) { return a.version < b.version; });
    const auto order = [](const Row& a, const Row& b) {
      return std::tie(a.version, a.site, a.field) < std::tie(b.version, b.site, b.field);
    };
    std::sort(rows.begin(), rows.end(), order);
    do {
      EXPECT_EQ(folded(rows, kForgetNothing), c.state) << c.rule;
    } while (std::next_permutation(rows.begin(), rows.end(), order));
  }
}

// On a site of its own rows come in the order of their versions: then forgetting at once must not be visible.
TEST(Fold, ForgettingWhatIsStableDoesNotShow) {
  for (const Case& c : kCases) {
    std::vector<Row> rows = c.rows;
    std::stable_sort(rows.begin(), rows.end(), [](const Row& a, const Row& b) {
      return std::tie(a.version, a.site) < std::tie(b.version, b.site);
    });
    EXPECT_EQ(folded(rows, std::numeric_limits<Version>::max()), c.state) << c.rule;
  }
}

class RandomHistory {
 public:
  explicit RandomHistory(std::uint32_t seed) : random_(seed) {
    for (int i = 0; i < 60; ++i) rows_.push_back(random_row());
  }
  const std::vector<Row>& rows() const { return rows_; }
  // In another order, some rows twice.
  std::vector<Row> shuffled() {
    std::vector<Row> rows = rows_;
    for (int i = 0; i < 10; ++i) rows.push_back(rows_[random_() % rows_.size()]);
    std::shuffle(rows.begin(), rows.end(), random_);
    return rows;
  }

 private:
  Row random_row() {
    static const char* const kKeys[] = {"a", "b", "c"};
    static const char* const kFields[] = {"f", "g", "h"};
    static const std::string kValues[] = {"1", "22", std::string(100, 'x'), ""};
    constexpr RowKind kKinds[] = {RowKind::set,     RowKind::update, RowKind::hset, RowKind::hset,
                                  RowKind::hcreate, RowKind::hdel,   RowKind::hdel, RowKind::del,
                                  RowKind::expire,  RowKind::expire, RowKind::hset, RowKind::flush};
    Row r;
    r.kind = kKinds[random_() % std::size(kKinds)];
    if (r.kind == RowKind::flush && random_() % 4 != 0) r.kind = RowKind::hset;
    r.site = 1 + static_cast<backend::SiteId>(random_() % 3);
    r.version = (++version_ << 2) | static_cast<Version>(random_() % 2);
    r.key = kKeys[random_() % std::size(kKeys)];
    r.field = kFields[random_() % std::size(kFields)];
    r.value = kValues[random_() % std::size(kValues)];
    if (random_() % 2 == 0) r.expire_at = 1000 + static_cast<std::int64_t>(random_() % 5);
    return r;
  }
  std::mt19937 random_;
  Version version_ = 0;
  std::vector<Row> rows_;
};

std::string folded_history(const std::vector<Row>& rows, const HashLimits& limits) {
  Keyspace keyspace;
  keyspace.set_site(1);
  keyspace.set_stable(kForgetNothing);
  keyspace.set_hash_limits(limits);
  for (const Row& r : rows) fold_row(keyspace, r);
  return text_of(keyspace);
}

TEST(Fold, AnyOrderAndRepetitionOfAHistoryGivesTheSameState) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    RandomHistory history(seed);
    const std::string expected = folded_history(history.rows(), {});
    for (int i = 0; i < 5; ++i)
      ASSERT_EQ(folded_history(history.shuffled(), {}), expected) << "seed " << seed;
  }
}

TEST(Fold, PackedAndTableHashesHoldTheSame) {
  for (std::uint32_t seed = 0; seed < 300; ++seed) {
    RandomHistory history(seed);
    ASSERT_EQ(folded_history(history.rows(), {0, 0}), folded_history(history.rows(), {512, 1000}))
        << "seed " << seed;
  }
}

TEST(Fold, PacksNoMoreFieldsThanItCanCount) {
  Keyspace keyspace;
  keyspace.set_hash_limits({1'000'000, 1'000'000});
  EXPECT_LE(keyspace.hash_limits().max_packed_fields, std::numeric_limits<std::uint16_t>::max());
  EXPECT_LE(
      std::uint64_t{2} * keyspace.hash_limits().max_packed_bytes * keyspace.hash_limits().max_packed_fields,
      kMostStringBytes);
}

TEST(Fold, CountsWhatTablesAndDeadlinesTake) {
  constexpr std::size_t kKeys = 5000;
  const std::uint64_t before = side_bytes.load();
  const auto used = [](std::optional<std::int64_t> deadline) {
    Keyspace keyspace;
    keyspace.set_site(1);
    for (std::size_t i = 0; i < kKeys; ++i) {
      const std::string name = "k" + std::to_string(i);
      fold_row(keyspace, row(RowKind::set, i + 1, name, {}, "v", deadline));
    }
    return keyspace.used_bytes();
  };
  const std::uint64_t plain = used({}), with_deadline = used(1'000'000);
  EXPECT_GE(plain - before, kKeys * (sizeof(Node) + sizeof(Node*)));
  EXPECT_GE(with_deadline - plain, kKeys * sizeof(Deadlines::Entry));
  EXPECT_EQ(side_bytes.load(), before) << "all is given back";
}

TEST(Fold, CountsTheKeysThatAreThere) {
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    Keyspace keyspace;
    keyspace.set_site(1);
    keyspace.set_stable(seed % 2 == 0 ? kForgetNothing : std::numeric_limits<Version>::max());
    RandomHistory history(seed);
    for (const Row& r : history.rows()) fold_row(keyspace, r);
    std::uint64_t keys = 0, deadlines = 0;
    std::int64_t sum = 0;
    for (Shard& shard : keyspace.shards()) {
      shard.tables[0].for_each([&](const Node& node) {
        keys += holds_value(node) ? 1 : 0;
        if (!holds_value(node) || node.deadline() == kNoDeadline) return;
        ++deadlines;
        sum += node.deadline();
      });
    }
    EXPECT_EQ(keyspace.size(0), keys) << "seed " << seed;
    EXPECT_EQ(keyspace.keys_with_deadline(0), deadlines) << "seed " << seed;
    EXPECT_EQ(keyspace.average_ttl(0, 0), deadlines == 0 ? 0 : sum / static_cast<std::int64_t>(deadlines))
        << "seed " << seed;
  }
}

TEST(Fold, FreesAllItsMemory) {
  Keyspace keyspace;
  keyspace.set_site(1);
  RandomHistory history(7);
  for (const Row& r : history.rows()) fold_row(keyspace, r);
  Row all = flush(1'000'000);
  fold_row(keyspace, all);
  for (const Shard& shard : keyspace.shards()) EXPECT_EQ(shard.heap.bytes(), 0u);
  EXPECT_EQ(keyspace.size(0), 0u);
}

TEST(Checkpoint, RecordsGiveTheSameStateAgain) {
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    const Version stable = seed % 2 == 0 ? kForgetNothing : std::numeric_limits<Version>::max();
    Keyspace before, after;
    for (Keyspace* keyspace : {&before, &after}) {
      keyspace->set_site(1);
      keyspace->set_stable(stable);
    }
    RandomHistory history(seed);
    for (const Row& r : history.rows()) fold_row(before, r);
    for (Shard& shard : before.shards()) {
      shard.tables[0].for_each([&](const Node& node) {
        const Key key(0, node.name());
        after.restore(before.stored(key));
        if (!node.is_hash()) return;
        hash_for_each(node, true,
                      [&](const FieldView& field) { after.restore(before.stored(key, field.name)); });
      });
    }
    ASSERT_EQ(text_of(after), text_of(before)) << "seed " << seed;
    EXPECT_EQ(after.size(0), before.size(0)) << "seed " << seed;
    EXPECT_EQ(after.keys_with_deadline(0), before.keys_with_deadline(0)) << "seed " << seed;
    EXPECT_EQ(after.average_ttl(0, 0), before.average_ttl(0, 0)) << "seed " << seed;
  }
}

// Rows as commands emit them: what makes a key writes its whole header, and nothing is written on what is not
// there.
std::vector<Row> rows_of_commands(std::uint32_t seed) {
  Keyspace keyspace;
  keyspace.set_site(1);
  RandomHistory history(seed);
  std::vector<Row> rows;
  for (Row r : history.rows()) {
    r.site = 1;
    const bool exists = r.kind != RowKind::flush && keyspace.find({0, r.key}, 0) != nullptr;
    const bool is_hash = exists && keyspace.find({0, r.key}, 0)->is_hash();
    if (r.kind == RowKind::hset && !exists) r.kind = RowKind::hcreate;
    if (r.kind == RowKind::hcreate && exists) r.kind = RowKind::hset;
    if (r.kind == RowKind::update && !exists) r.kind = RowKind::set;
    const bool on_hash = r.kind == RowKind::hset || r.kind == RowKind::hdel;
    if ((on_hash && exists && !is_hash) || (r.kind == RowKind::update && is_hash)) continue;
    if (!exists && (r.kind == RowKind::hdel || r.kind == RowKind::del || r.kind == RowKind::expire)) continue;
    fold_row(keyspace, r);
    rows.push_back(r);
  }
  return rows;
}

// A fuzzy checkpoint is newer than its vector: folding the rows behind the vector again must change nothing.
TEST(Checkpoint, FoldingItsRowsAgainChangesNothing) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<Row> rows = rows_of_commands(seed);
    Keyspace keyspace;
    keyspace.set_site(1);
    for (const Row& r : rows) fold_row(keyspace, r);
    const std::string expected = text_of(keyspace);
    for (std::size_t from = 0; from < rows.size(); from += 7) {
      for (std::size_t i = from; i < rows.size(); ++i) fold_row(keyspace, rows[i]);
      ASSERT_EQ(text_of(keyspace), expected) << "seed " << seed << " from " << from;
    }
  }
}

// A log that lost its tail gets from the memory what it lacks, and nothing else.
TEST(Difference, BringsAnOlderStateToTheNewerOne) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    const std::vector<Row> rows = rows_of_commands(seed);
    for (std::size_t kept = 0; kept <= rows.size(); kept += 5) {
      Keyspace mine, theirs;
      for (Keyspace* keyspace : {&mine, &theirs}) keyspace->set_site(1);
      for (const Row& r : rows) fold_row(mine, r);
      for (std::size_t i = 0; i < kept; ++i) fold_row(theirs, rows[i]);
      Version next = 1'000'000;
      std::vector<Row> difference;
      std::deque<std::string> bytes;
      const auto keep = [&](std::string_view text) -> std::string_view { return bytes.emplace_back(text); };
      for_each_difference(
          mine, theirs, [&] { return ++next; },
          [&](const Row& r) {
            Row copy = r;
            copy.key = keep(r.key);
            copy.field = keep(r.field);
            copy.value = keep(r.value);
            copy.site = 1;
            difference.push_back(copy);
          });
      for (const Row& r : difference) fold_row(theirs, r);
      ASSERT_EQ(text_of(theirs), text_of(mine)) << "seed " << seed << " kept " << kept;
      // The own memory gets the same rows back from nobody, but others that are up to date do: no harm.
      for (const Row& r : difference) fold_row(mine, r);
      ASSERT_EQ(text_of(theirs), text_of(mine)) << "seed " << seed << " kept " << kept;
      if (kept >= rows.size()) {
        EXPECT_TRUE(difference.empty()) << "seed " << seed;
      }
      for (std::size_t i = 0; i < difference.size(); ++i) {
        const bool last = i + 1 == difference.size() || difference[i + 1].key != difference[i].key;
        EXPECT_EQ(difference[i].group_end, last);
      }
    }
  }
}

TEST(Keyspace, ExchangesItsStateButNotItsWatchers) {
  Keyspace mine, other;
  for (Keyspace* keyspace : {&mine, &other}) keyspace->set_site(1);
  fold_row(mine, set(5, "old"));
  fold_row(other, set(6, "new", 900));
  const Key key(0, "k");
  const auto flag = std::make_shared<WatchFlag>();
  mine.watch(key, flag);
  mine.shard(key).gate(key.hash) = 77;
  mine.swap_state(other);
  EXPECT_EQ(text_of(mine), "k=new@900");
  EXPECT_EQ(text_of(other), "k=old");
  EXPECT_EQ(mine.keys_with_deadline(0), 1U);
  EXPECT_EQ(other.keys_with_deadline(0), 0U);
  EXPECT_EQ(mine.shard(key).gate(key.hash), 0U);
  EXPECT_TRUE(flag->touched.load());
  EXPECT_EQ(mine.next_expired(mine.shard(key), 900)->name, "k");
}

}  // namespace
}  // namespace isthmus
