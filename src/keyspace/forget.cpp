// What the keyspace forgets: tombstones, registers that say nothing and expired keys, once no row can come
// any more for which they matter. See MERGE.md, "What is forgotten".
#include <algorithm>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {
namespace {

constexpr int kMillisecondShift = 16;  // of a version: HybridClock::kCounterBits

Version highest_of(const Counter& counter) {
  const Point base = counter.highest_base();
  return std::max(base.version, counter.highest_stamp());
}

}  // namespace

Version Keyspace::highest_version(Shard& s, std::uint8_t db, const Node& node) const {
  const Registers registers = node.registers();
  Version highest = std::max({node.version, registers.expire_version, registers.cut_version});
  if (!node.counted) return highest;
  const KeyCounters* const counters = s.counters.find(db, node.name());
  if (counters->value) highest = std::max(highest, highest_of(*counters->value));
  for (const auto& [name, counter] : counters->fields) highest = std::max(highest, highest_of(counter));
  return highest;
}

Version Keyspace::highest_version(std::uint8_t db) {
  Version highest = flushes_[db].version;
  for (Shard& s : shards_) {
    s.tables[db].for_each(
        [&](const Node& node) { highest = std::max(highest, highest_version(s, db, node)); });
  }
  return highest;
}

// From when on an expired key may go: until then a server whose clock is behind may still write to it.
Version Keyspace::expired_for_all(const Registers& registers) const {
  const std::int64_t last = registers.deadline + max_clock_skew_ms_.load(std::memory_order_relaxed);
  const Version then = last <= 0 ? 0 : static_cast<Version>(last) << kMillisecondShift;
  return std::max(then, registers.expire_version) + 1;
}

// The cheap part, after each row. Returns the version that `stable` has to reach before there is more to
// forget; 0 if there will not be.
Version Keyspace::forget_now(Shard& s, std::uint8_t db, Node** link, Version stable) {
  Node* node = *link;
  Registers registers = node->registers();
  Version wait = 0;
  if (node->has_registers && registers.deadline == kNoDeadline) {
    const Version highest = std::max(registers.expire_version, registers.cut_version);
    if (highest <= stable) {
      node = *link = write_registers(s.heap, node, {}, false);
      registers = {};
    } else {
      wait = highest;
    }
  }
  if (node->has_fields() && hash_tombstones(*node) > 0) wait = std::max(wait, node->version);
  if (!has_content(*node)) {
    const Version last = highest_version(s, db, *node);
    if (last <= stable) {
      destroy_key(s, db, link);
      return 0;
    }
    wait = std::max(wait, last);
  }
  if (node->told) wait = std::max({wait, node->version, expired_for_all(registers)});
  return wait;
}

void Keyspace::destroy_key(Shard& s, std::uint8_t db, Node** link) {
  Table& table = s.tables[db];
  if ((*link)->counted) s.counters.erase(db, (*link)->name());
  destroy(s, table.unlink(link));
}

void Keyspace::await(Shard& s, const Key& key, Node* node, Version version) {
  if (node->awaited) return;
  node->awaited = true;
  constexpr Version kHighest = std::numeric_limits<std::int64_t>::max();
  s.forgettable.push({static_cast<std::int64_t>(std::min(version, kHighest)), key.hash, key.db});
}

// The values of an expired key that nobody can still see. True if the key is gone.
bool Keyspace::forget_expired(Shard& s, std::uint8_t db, Node** link, Version stable, bool& changed) {
  Node* const node = *link;
  if (!node->is_hash()) {
    if (highest_version(s, db, *node) > stable) return false;
    changed = true;
    destroy_key(s, db, link);
    return true;
  }
  const KeyCounters* const counters = node->counted ? s.counters.find(db, node->name()) : nullptr;
  std::vector<std::string> gone;
  hash_for_each(*node, true, [&](const FieldView& field) {
    Version version = field.version;
    if (counters != nullptr) {
      const auto it = counters->fields.find(field.name);
      if (it != counters->fields.end()) version = std::max(version, highest_of(it->second));
    }
    if (version <= stable) gone.emplace_back(field.name);
  });
  for (const std::string& name : gone) erase_field(s, db, link, name);
  changed |= !gone.empty();
  if (has_content(**link) || highest_version(s, db, **link) > stable) return false;
  changed = true;
  destroy_key(s, db, link);
  return true;
}

void Keyspace::erase_field(Shard& s, std::uint8_t db, Node** link, const std::string& name) {
  if ((*link)->counted) {
    KeyCounters* const counters = s.counters.find(db, (*link)->name());
    counters->fields.erase(name);
    if (counters->empty()) {
      s.counters.erase(db, (*link)->name());
      (*link)->counted = false;
    }
  }
  *link = hash_erase(s.heap, *link, name);
}

void Keyspace::forget_key(Shard& s, const Key& key, Node** link, Version stable, bool& changed) {
  const bool had_registers = (*link)->has_registers;
  const Registers registers = (*link)->registers();
  if ((*link)->told && registers.deadline != kNoDeadline && expired_for_all(registers) <= stable &&
      forget_expired(s, key.db, link, stable, changed)) {
    return;
  }
  if ((*link)->has_fields() && hash_tombstones(**link) > 0) {
    *link = hash_erase_if(s.heap, *link, [&](const FieldView& field) {
      const bool gone = field.deleted && field.version <= stable;
      changed |= gone;
      return gone;
    });
  }
  const std::uint32_t keys_before = s.tables[key.db].size();
  Version wait = forget_now(s, key.db, link, stable);
  const bool destroyed = s.tables[key.db].size() != keys_before;
  changed |= destroyed || (*link)->has_registers != had_registers;
  if (wait == 0 || destroyed) return;
  if (stable != std::numeric_limits<Version>::max()) wait = std::max(wait, stable + 1);
  await(s, key, *link, wait);
}

bool Keyspace::collect(std::size_t shard_index, std::size_t limit,
                       const std::function<void(const Key&)>& changed) {
  Shard& s = shards_[shard_index];
  const Version now_stable = stable();
  const auto due = [&] {
    return !s.forgettable.empty() && static_cast<Version>(s.forgettable.soonest().deadline) <= now_stable;
  };
  for (; limit > 0 && due(); --limit) {
    const Deadlines::Entry entry = s.forgettable.soonest();
    s.forgettable.pop();
    Node** const link = s.tables[entry.db].find_awaited(entry.hash);
    if (link == nullptr) continue;
    (*link)->awaited = false;
    const std::string name((*link)->name());
    const Key key(entry.db, entry.hash, name);
    bool has_changed = false;
    forget_key(s, key, link, now_stable, has_changed);
    if (has_changed) changed(key);
  }
  return due();
}

bool Keyspace::tell_expired(const Key& key, std::int64_t now_ms) {
  Shard& s = shard(key);
  Node* const node = *s.tables[key.db].find(key.hash, key.name);
  if (node == nullptr || !holds_value(*node) || node->deadline() > now_ms) return false;
  node->told = true;
  sizes_[key.db].fetch_sub(1, std::memory_order_relaxed);
  count_deadline(s, key.db, node->deadline(), kNoDeadline);
  await(s, key, node, std::max(node->version, expired_for_all(node->registers())));
  return true;
}

}  // namespace isthmus
