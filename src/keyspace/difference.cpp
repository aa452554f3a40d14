#include "src/keyspace/difference.hpp"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include <boost/unordered/unordered_flat_set.hpp>

#include "src/keyspace/dots.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowBatch;
using backend::RowKind;

// All that a copied row says, so that two of them can be compared.
std::string text_of_row(const Row& row) {
  std::string text;
  const auto number = [&text](auto value) { text.append(std::to_string(value)).push_back(' '); };
  number(static_cast<int>(row.kind));
  number(row.version);
  number(row.site);
  number(row.expire_at.has_value());
  number(row.expire_at.value_or(0));
  number(row.count.base_version);
  number(row.count.base_site);
  number(row.count.counter);
  number(row.count.total);
  number(row.field.size());
  return text.append(row.field).append(row.value);
}

// Compares one key and gathers its rows.
class KeyDifference {
 public:
  KeyDifference(Keyspace& mine, Keyspace& theirs, const Key& key,
                const std::function<backend::Version()>& next)
      : mine_(mine), theirs_(theirs), key_(key), next_version_(next) {}

  void hand_out(const std::function<void(const Row&)>& emit) {
    gather_missing();
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      theirs_.fold(rows_[i], key_.hash, theirs_.site_index(rows_[i].site));
    }
    delete_the_rest();
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      Row row = rows_[i];
      row.group_end = i + 1 == rows_.size();
      emit(row);
    }
  }

 private:
  void gather_missing() {
    boost::unordered_flat_set<std::string> known;
    copy_rows(theirs_, key_, [&](const Row& row) { known.insert(text_of_row(row)); });
    copy_rows(mine_, key_, [&](const Row& row) {
      if (!known.contains(text_of_row(row))) rows_.append(row);
    });
  }

  void add(RowKind kind, std::string_view field, std::optional<std::int64_t> deadline) {
    Row row;
    row.db = key_.db;
    row.key = key_.name;
    row.kind = kind;
    row.field = field;
    row.expire_at = deadline;
    row.version = next_version_();
    rows_.append(row);
  }

  // What is there now and not here has been deleted here, and that has been forgotten.
  void delete_the_rest() {
    const Node* const here = mine_.find_any(key_);
    const Node* const there = theirs_.find_any(key_);
    if (there == nullptr || !has_content(*there)) return;
    if (here == nullptr || !has_content(*here)) {
      add(RowKind::del, {}, {});
      if (there->deadline() != kNoDeadline) add(RowKind::expire, {}, {});
      return;
    }
    if (here->is_hash() && there->is_hash()) {
      hash_for_each(*there, false, [&](const FieldView& field) {
        if (!hash_find(*here, field.name)) add(RowKind::hdel, field.name, {});
      });
    }
    if (here->is_set() && there->is_set()) remove_the_rest(*here, *there);
    if (here->deadline() == there->deadline()) return;
    add(RowKind::expire, {},
        here->deadline() == kNoDeadline ? std::nullopt : std::optional(here->deadline()));
  }

  // Adds that are there, and of which nothing is known here.
  void remove_the_rest(const Node& here, const Node& there) {
    std::vector<std::pair<std::string, Dot>> gone;
    hash_for_each(there, false, [&](const FieldView& member) {
      const std::optional<FieldView> known = hash_find_any(here, member.name);
      const Dots mine = known ? Dots(mine_, *known) : Dots();
      for (const Dot& dot : Dots(theirs_, member)) {
        const bool is_known = std::any_of(mine.begin(), mine.end(), [&](const Dot& other) {
          return other.at.site == dot.at.site && other.at >= dot.at;
        });
        if (!dot.removed && !is_known) gone.emplace_back(member.name, dot);
      }
    });
    for (const auto& [name, dot] : gone) {
      Row row;
      row.db = key_.db;
      row.key = key_.name;
      row.kind = RowKind::srem;
      row.field = name;
      row.count = {.base_version = dot.at.version, .base_site = dot.at.site};
      row.version = next_version_();
      rows_.append(row);
    }
  }

  Keyspace& mine_;
  Keyspace& theirs_;
  const Key key_;
  const std::function<backend::Version()>& next_version_;
  RowBatch rows_;
};

void compare_flushes(Keyspace& mine, Keyspace& theirs, const std::function<void(const Row&)>& emit) {
  copy_flushes(mine, [&](const Row& row) {
    if (theirs.flushed(row.db) >= Point{row.version, row.site}) return;
    theirs.fold(row, 0, theirs.site_index(row.site));
    emit(row);
  });
}

std::vector<Key> keys_of(const std::vector<std::pair<std::uint8_t, std::string>>& names) {
  std::vector<Key> keys;
  for (const auto& [db, name] : names) keys.emplace_back(db, name);
  return keys;
}

}  // namespace

void copy_flushes(const Keyspace& keyspace, const std::function<void(const Row&)>& emit) {
  for (const backend::StoredFlush& flush : keyspace.stored_flushes()) {
    Row row;
    row.kind = RowKind::flush;
    row.db = flush.db;
    row.version = flush.version;
    row.site = flush.site;
    row.copied = true;
    emit(row);
  }
}

void for_each_difference(Keyspace& mine, Keyspace& theirs,
                         const std::function<backend::Version()>& next_version,
                         const std::function<void(const Row&)>& emit) {
  for (std::size_t i = 0; i < kShards; ++i) {
    const std::lock_guard lock(mine.shards()[i].mutex);
    if (i == 0) compare_flushes(mine, theirs, emit);
    std::vector<std::pair<std::uint8_t, std::string>> names;
    for (std::uint8_t db = 0; db < kDatabaseCount; ++db) {
      mine.shards()[i].tables[db].for_each(
          [&](const Node& node) { names.emplace_back(db, std::string(node.name())); });
      theirs.shards()[i].tables[db].for_each([&](const Node& node) {
        if (mine.find_any({db, node.name()}) == nullptr) names.emplace_back(db, std::string(node.name()));
      });
    }
    for (const Key& key : keys_of(names)) KeyDifference(mine, theirs, key, next_version).hand_out(emit);
  }
}

}  // namespace isthmus
