#include "src/keyspace/difference.hpp"

#include <string>
#include <vector>

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;
using backend::StoredKey;
using backend::StoredType;

// Compares one key and gathers its rows.
class KeyDifference {
 public:
  KeyDifference(Keyspace& mine, Keyspace& theirs, const Key& key,
                const std::function<backend::Version()>& next)
      : mine_(mine), theirs_(theirs), key_(key), next_version_(next) {}

  void hand_out(const std::function<void(const Row&)>& emit) {
    const StoredKey here = mine_.stored(key_), there = theirs_.stored(key_);
    if (here.type == StoredType::none) {
      if (there.type != StoredType::none) add(RowKind::del, next_version_());
    } else {
      compare_values(here, there);
      compare_deadlines(here, there);
    }
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      rows_[i].group_end = i + 1 == rows_.size();
      emit(rows_[i]);
    }
  }

 private:
  Row& add(RowKind kind, backend::Version version) {
    Row row;
    row.db = key_.db;
    row.key = key_.name;
    row.kind = kind;
    row.version = version;
    rows_.push_back(row);
    return rows_.back();
  }

  void compare_values(const StoredKey& here, const StoredKey& there) {
    if (here.type == StoredType::string) {
      if (there.type == StoredType::string && there.version == here.version) return;
      // Not `set`, which would write the deadline as well: that has a version of its own.
      add(RowKind::update, here.version).value = mine_.find_any(key_)->value();
      return;
    }
    if (there.type == StoredType::string || here.cut_version > there.cut_version) {
      const backend::Version cut =
          std::max(here.cut_version, there.type == StoredType::string ? there.version : 0);
      add(RowKind::del, cut);
    }
    compare_fields(there.type == StoredType::hash);
  }

  void compare_fields(bool both_hashes) {
    const Node* here = mine_.find_any(key_);
    const Node* there = both_hashes ? theirs_.find_any(key_) : nullptr;
    hash_for_each(*here, false, [&](const FieldView& field) {
      const auto known = there == nullptr ? std::nullopt : hash_find_any(*there, field.name);
      if (known && known->version == field.version) return;
      Row& row = add(RowKind::hset, field.version);
      row.field = field.name;
      row.value = field.value;
    });
    if (there == nullptr) return;
    hash_for_each(*there, false, [&](const FieldView& field) {
      const auto known = hash_find_any(*here, field.name);
      if (known && !known->deleted) return;
      add(RowKind::hdel, next_version_()).field = field.name;
    });
  }

  void compare_deadlines(const StoredKey& here, const StoredKey& there) {
    if (here.expire_at == there.expire_at) return;
    const backend::Version version =
        here.expire_version > there.expire_version ? here.expire_version : next_version_();
    add(RowKind::expire, version).expire_at = here.expire_at;
  }

  Keyspace& mine_;
  Keyspace& theirs_;
  const Key key_;
  const std::function<backend::Version()>& next_version_;
  std::vector<Row> rows_;
};

}  // namespace

void for_each_difference(Keyspace& mine, Keyspace& theirs,
                         const std::function<backend::Version()>& next_version,
                         const std::function<void(const Row&)>& emit) {
  for (std::size_t i = 0; i < kShards; ++i) {
    const std::lock_guard lock(mine.shards()[i].mutex);
    for (std::size_t db = 0; db < kDatabaseCount; ++db) {
      std::vector<std::string> names;
      mine.shards()[i].tables[db].for_each([&](const Node& node) { names.emplace_back(node.name()); });
      theirs.shards()[i].tables[db].for_each([&](const Node& node) {
        const Key key(static_cast<std::uint8_t>(db), node.name());
        if (mine.find_any(key) == nullptr) names.emplace_back(node.name());
      });
      for (const std::string& name : names) {
        const Key key(static_cast<std::uint8_t>(db), name);
        KeyDifference(mine, theirs, key, next_version).hand_out(emit);
      }
    }
  }
}

}  // namespace isthmus
