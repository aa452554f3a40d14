// The part of the merge that is about FLUSHDB and FLUSHALL: one tombstone for a whole database.
#include <string>
#include <vector>

#include "src/keyspace/fold.hpp"

namespace isthmus {

using backend::Row;

// Afterwards the key is what it would be had its rows at or below the flush never come: those that come later
// are dropped.
void Fold::run_flush() {
  link_ = shard_.tables[row_.db].find(hash_, row_.key);
  if (*link_ == nullptr) return;
  before_ = state_of(*link_);
  if ((*link_)->has_fields()) {
    flush_collection();
  } else {
    flush_string();
  }
  if ((*link_)->has_registers) {
    Registers registers = (*link_)->registers();
    if (point(registers.cut_version, registers.cut_site) <= at()) registers.cut_version = 0;
    if (point(registers.expire_version, registers.expire_site) <= at()) {
      registers.deadline = kNoDeadline;
      registers.expire_version = 0;
      (*link_)->told = false;
    }
    write_registers_of(registers);
  }
  settle();
}

void Fold::flush_string() {
  Node* node = *link_;
  const bool dead = type_point() <= at();
  Counter* const counter = string_counter();
  if (counter != nullptr && !counter->base && counter->drop_older(at())) {
    if (dead) node->version = 0;
    show_string(*counter);
    return;
  }
  if (!dead) return;
  drop_counters();
  node->type = NodeType::none;
  node->version = 0;
  *link_ = resize_value(heap(), node, 0);
}

void Fold::flush_collection() {
  const bool dead = type_point() <= at();
  if ((*link_)->is_set()) drop_older_dots();
  flush_fields();
  Node* const node = *link_;
  if (!dead || hash_size(*node) > 0) return;
  drop_counters();
  hash_release(heap(), node);
  node->type = NodeType::none;
  node->version = 0;
  *link_ = resize_value(heap(), node, 0);
}

void Fold::flush_fields() {
  std::vector<std::string> names;
  hash_for_each(**link_, true, [&](const FieldView& field) {
    if (point(field.version, field.site) <= at()) names.emplace_back(field.name);
  });
  for (const std::string& name : names) {
    KeyCounters* const all = counters();
    const auto it = all == nullptr ? decltype(all->fields.end()){} : all->fields.find(name);
    const bool counted = all != nullptr && it != all->fields.end();
    if (counted && !it->second.base && it->second.drop_older(at())) {
      write_field({name, std::to_string(it->second.sum()), 0, 0, false});
      continue;
    }
    if (counted) drop_field_counter(name);
    *link_ = hash_erase(heap(), *link_, name);
  }
}

bool Keyspace::all_older(const Shard& s, std::uint8_t db, const Point& at) const {
  bool older = true;
  s.tables[db].for_each([&](const Node& node) {
    const Registers registers = node.registers();
    const auto newer = [&](Version version, SiteIndex site) {
      return version != 0 && Point{version, site_id(site)} > at;
    };
    older &= !node.counted && !newer(node.version, node.site) &&
             !newer(registers.expire_version, registers.expire_site) &&
             !newer(registers.cut_version, registers.cut_site);
  });
  return older;
}

void Keyspace::drop_all(Shard& s, std::uint8_t db) {
  std::size_t keys = 0;
  s.tables[db].drain([&](Node* node) {
    if (holds_value(*node)) {
      ++keys;
      count_deadline(s, db, node->deadline(), kNoDeadline);
    }
    destroy(s, node);
  });
  sizes_[db].fetch_sub(keys, std::memory_order_relaxed);
  if (s.keys_with_deadline != 0) return;
  s.deadlines = {};
  s.next_deadline.store(kNoDeadline, std::memory_order_relaxed);
}

FoldResult Keyspace::fold_flush(const Row& row, SiteIndex site) {
  const Point at{row.version, site_id(site)};
  for (Shard& s : shards_) {
    if (all_older(s, row.db, at)) {
      drop_all(s, row.db);
      continue;
    }
    std::vector<std::string> names;
    s.tables[row.db].for_each([&](const Node& node) { names.emplace_back(node.name()); });
    for (const std::string& name : names) {
      Row of_key = row;
      of_key.key = name;
      Fold(*this, s, of_key, hash_name(name), site).run_flush();
    }
  }
  if (stable() == std::numeric_limits<Version>::max()) return {.won = true};
  FlushRegister& flush = flushes_[row.db];
  if (flush.version == 0 || at > Point{flush.version, site_id(flush.site)}) flush = {row.version, site};
  return {.won = true};
}

}  // namespace isthmus
