// The merge as algebra: whatever the order, the repetition and the delay of a set of rows, the same registers
// come out. MERGE.md has the rules.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include <gtest/gtest.h>

#include "tests/unit/merge/registers_text.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowBatch;
using backend::RowKind;

// Rows of three sites on two keys, at random, as dense as conflicts can be. They need not be such as commands
// make them: the fold knows nothing of commands.
class RandomRows {
 public:
  explicit RandomRows(std::uint32_t seed) : random_(seed) {}

  RowBatch make(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) add();
    return std::move(rows_);
  }

 private:
  std::uint32_t below(std::uint32_t end) { return static_cast<std::uint32_t>(random_() % end); }

  void add() {
    static constexpr RowKind kKinds[] = {
        RowKind::set,  RowKind::update, RowKind::hset,  RowKind::hset,    RowKind::hset,  RowKind::hcreate,
        RowKind::hdel, RowKind::del,    RowKind::del,   RowKind::expire,  RowKind::incr,  RowKind::incr,
        RowKind::incr, RowKind::hincr,  RowKind::hincr, RowKind::hincr,   RowKind::htype, RowKind::flush,
        RowKind::sadd, RowKind::sadd,   RowKind::sadd,  RowKind::screate, RowKind::srem,  RowKind::srem,
        RowKind::srem, RowKind::stype};
    Row row;
    row.kind = kKinds[below(std::size(kKinds))];
    if (row.kind == RowKind::flush && below(4) != 0) row.kind = RowKind::set;
    row.site = 1 + below(3);
    do {
      row.version = 1 + below(60);
    } while (!used_.insert({row.version, row.site}).second);
    row.copied = row.kind == RowKind::htype || row.kind == RowKind::stype;
    row.key = below(2) == 0 ? "a" : "b";
    counts_on_nothing_ = (row.kind == RowKind::incr) == (row.key == "a");
    if (row.kind == RowKind::flush) row.key = {};
    if (row.kind == RowKind::hset || row.kind == RowKind::hcreate || row.kind == RowKind::hdel ||
        row.kind == RowKind::hincr || is_of_member(row.kind))
      row.field = below(2) == 0 ? "f" : "g";
    if (row.kind == RowKind::srem) choose_add(row);
    // What a write says follows from where it stands: two rows of one place say the same.
    const std::string value = std::to_string(row.version * 10);
    if (row.kind == RowKind::set || row.kind == RowKind::update || row.kind == RowKind::hset ||
        row.kind == RowKind::hcreate)
      row.value = value;
    if ((row.kind == RowKind::set || row.kind == RowKind::expire) && below(2) == 0)
      row.expire_at = 1000 + below(3);
    if (backend::is_count(row.kind) && !choose_base(row)) return;
    rows_.append(row);
  }

  static bool is_of_member(RowKind kind) {
    return kind == RowKind::sadd || kind == RowKind::screate || kind == RowKind::srem;
  }

  // What a site takes back it has seen; without a base it is what itself has added.
  void choose_add(Row& row) {
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const Row known = rows_[i];
      const bool is_add = known.kind == RowKind::sadd || known.kind == RowKind::screate;
      if (!is_add || known.key != row.key || known.field != row.field || known.version > row.version)
        continue;
      if (row.count.base_version == 0 || below(2) == 0)
        row.count = {.base_version = known.version, .base_site = known.site};
    }
    if (below(4) == 0) row.count = {};
  }

  // Whether nothing can be there because of that row: it deleted, or it is of a string that has expired.
  static bool can_end(const Row& known, const Row& counts) {
    switch (known.kind) {
      case RowKind::del:
      case RowKind::flush:
      case RowKind::set:
      case RowKind::update:
        return true;
      case RowKind::expire:
        return counts.kind == RowKind::incr;
      case RowKind::hdel:
        return known.field == counts.field;
      default:
        return false;
    }
  }

  // A lease never counts on an older base than before, nor on one that is newer than its row.
  bool choose_base(Row& row) {
    std::vector<std::pair<Point, std::string>> bases;
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const Row known = rows_[i];
      if (known.version >= row.version || backend::is_count(known.kind) || known.copied) continue;
      const bool same = known.kind == RowKind::flush || known.key == row.key;
      if (!same) continue;
      const bool of_field = row.kind == RowKind::hincr;
      if (is_of_member(known.kind)) continue;
      const bool writes = of_field ? known.field == row.field && !known.value.empty()
                                   : known.field.empty() && !known.value.empty();
      if (writes) bases.emplace_back(Point{known.version, known.site}, known.value);
      if (counts_on_nothing_ && can_end(known, row)) bases.emplace_back(Point{known.version, known.site}, "");
    }
    const Version mark = below(static_cast<std::uint32_t>(row.version));
    if (counts_on_nothing_) bases.emplace_back(Point{mark, kEverySite}, "");
    if (bases.empty()) return false;
    const auto& [base, value] = bases[below(static_cast<std::uint32_t>(bases.size()))];
    auto& totals = leases_[{row.site, std::string(row.key), std::string(row.field)}];
    for (const auto& [version, known] : totals) {
      if (version < row.version ? base < known.base : base > known.base) return false;
      if (base == known.base && version != row.version && known.nil != value.empty()) return false;
    }
    totals[row.version] = {base, value.empty()};
    value_ = value;
    row.value = value_;
    row.count = {base.version, base.site == kEverySite ? 0 : base.site, 100 + row.site,
                 static_cast<std::int64_t>(row.version)};
    return true;
  }

  struct Known {
    Point base;
    bool nil;
  };
  std::mt19937 random_;
  RowBatch rows_;
  std::set<std::pair<Version, backend::SiteId>> used_;
  std::map<std::tuple<backend::SiteId, std::string, std::string>, std::map<Version, Known>> leases_;
  std::string value_;
  // A string and a field that are counted on the same nothing are not merged (MERGE.md, "What is not kept").
  bool counts_on_nothing_ = false;
};

void prepare(Keyspace& keyspace) {
  keyspace.set_site(1);
  keyspace.set_linked(true);
  keyspace.set_stable(0);
}

std::string text_of(const RowBatch& rows, const std::vector<std::size_t>& order) {
  std::string text;
  for (const std::size_t i : order) text += "  " + isthmus::text_of(rows[i]) + "\n";
  return text;
}

std::vector<std::size_t> in_order(std::size_t count) {
  std::vector<std::size_t> order(count);
  for (std::size_t i = 0; i < count; ++i) order[i] = i;
  return order;
}

class Registers : public testing::TestWithParam<std::size_t> {};

TEST_P(Registers, AreTheSameInAnyOrderAndAfterRepeats) {
  for (std::uint32_t seed = 0; seed < 150; ++seed) {
    const RowBatch rows = RandomRows(seed).make(GetParam());
    std::mt19937 random(seed);
    std::vector<std::size_t> first = in_order(rows.size());
    Keyspace expected;
    prepare(expected);
    for (const std::size_t i : first) fold_row(expected, rows[i]);
    for (int shuffle = 0; shuffle < 6; ++shuffle) {
      std::vector<std::size_t> order = in_order(rows.size());
      std::shuffle(order.begin(), order.end(), random);
      for (int repeat = 0; repeat < 3 && !order.empty(); ++repeat)
        order.insert(order.begin() + static_cast<std::ptrdiff_t>(random() % order.size()),
                     random() % rows.size());
      Keyspace keyspace;
      prepare(keyspace);
      for (const std::size_t i : order) fold_row(keyspace, rows[i]);
      ASSERT_EQ(registers_of(keyspace), registers_of(expected)) << "seed " << seed << "\nfirst\n"
                                                                << text_of(rows, first) << "then\n"
                                                                << text_of(rows, order);
      ASSERT_EQ(text_of(keyspace), text_of(expected)) << "seed " << seed;
      ASSERT_EQ(keyspace.size(0), expected.size(0)) << "seed " << seed;
    }
  }
}

TEST_P(Registers, AreTheSameWhenTheyHaveBeenCopied) {
  for (std::uint32_t seed = 0; seed < 150; ++seed) {
    const RowBatch rows = RandomRows(seed).make(GetParam());
    Keyspace all, half, other_half, copy;
    for (Keyspace* keyspace : {&all, &half, &other_half, &copy}) prepare(*keyspace);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      fold_row(all, rows[i]);
      fold_row((seed + i) % 3 == 0 ? half : other_half, rows[i]);
    }
    for_each_copied_row(all, [&](const Row& row) { fold_row(copy, row); });
    ASSERT_EQ(registers_of(copy), registers_of(all)) << "seed " << seed;
    for_each_copied_row(half, [&](const Row& row) { fold_row(other_half, row); });
    ASSERT_EQ(registers_of(other_half), registers_of(all)) << "seed " << seed << "\n"
                                                           << text_of(rows, in_order(rows.size()));
    ASSERT_EQ(text_of(other_half), text_of(all)) << "seed " << seed;
  }
}

// A checkpoint keeps what decides about rows that are still to come.
TEST_P(Registers, OutliveACheckpoint) {
  for (std::uint32_t seed = 0; seed < 150; ++seed) {
    const RowBatch rows = RandomRows(seed).make(GetParam());
    Keyspace all, restored;
    for (Keyspace* keyspace : {&all, &restored}) prepare(*keyspace);
    for (std::size_t i = 0; i < rows.size(); ++i) fold_row(all, rows[i]);
    for (const backend::StoredFlush& flush : all.stored_flushes()) restored.restore(flush);
    for (const std::string_view name : {"a", "b"}) {
      const Key key(0, name);
      const Node* const node = all.find_any(key);
      if (node == nullptr) continue;
      restored.restore(all.stored(key));
      if (!node->has_fields()) continue;
      hash_for_each(*node, true,
                    [&](const FieldView& field) { restored.restore(all.stored(key, field.name)); });
    }
    ASSERT_EQ(text_of(restored), text_of(all)) << "seed " << seed;
    ASSERT_EQ(restored.size(0), all.size(0)) << "seed " << seed;
    for (std::size_t i = 0; i < rows.size(); ++i) fold_row(restored, rows[i]);
    ASSERT_EQ(text_of(restored), text_of(all)) << "seed " << seed << "\n"
                                               << text_of(rows, in_order(rows.size()));
  }
}

INSTANTIATE_TEST_SUITE_P(FewRowsAndMany, Registers, testing::Values(3, 5, 8, 14, 30),
                         testing::PrintToStringParamName());

}  // namespace
}  // namespace isthmus
