#include "src/keyspace/keyspace.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace isthmus {
namespace {

std::string watch_name(const Key& key) {
  std::string name = std::to_string(key.db);
  name.push_back(':');
  name.append(key.name);
  return name;
}

}  // namespace

void Deadlines::push(const Entry& entry) {
  heap_.push_back(entry);
  std::push_heap(heap_.begin(), heap_.end(), later);
}

void Deadlines::pop() {
  std::pop_heap(heap_.begin(), heap_.end(), later);
  heap_.pop_back();
  // What many keys have left behind that are gone by now.
  if (heap_.capacity() > 1024 && heap_.size() < heap_.capacity() / 4) heap_.shrink_to_fit();
}

void ShardLocks::lock_one(Shard& shard) {
  shard.mutex.lock();
  one_ = &shard;
}

void ShardLocks::lock(std::array<Shard, kShards>& shards, const ShardSet& set) {
  for (std::size_t i = set._Find_first(); i < kShards; i = set._Find_next(i)) shards[i].mutex.lock();
  shards_ = &shards;
  set_ = set;
}

void ShardLocks::unlock() {
  if (one_ != nullptr) one_->mutex.unlock();
  one_ = nullptr;
  if (shards_ == nullptr) return;
  for (std::size_t i = set_._Find_first(); i < kShards; i = set_._Find_next(i)) (*shards_)[i].mutex.unlock();
  shards_ = nullptr;
}

Keyspace::~Keyspace() {
  for (Shard& s : shards_) {
    for (Table& table : s.tables) table.drain([&](Node* node) { destroy(s, node); });
  }
}

void Keyspace::take_settings(const Keyspace& other) {
  sites_[0] = other.sites_[0];
  set_stable(other.stable());
  set_linked(other.linked());
  max_clock_skew_ms_.store(other.max_clock_skew_ms_.load());
  hash_limits_ = other.hash_limits_;
}

void Keyspace::swap_shards(Shard& mine, Shard& other) {
  mine.heap.swap(other.heap);
  for (std::size_t db = 0; db < kDatabaseCount; ++db) mine.tables[db].swap(other.tables[db]);
  std::swap(mine.deadlines, other.deadlines);
  std::swap(mine.forgettable, other.forgettable);
  mine.counters.swap(other.counters);
  std::swap(mine.keys_with_deadline, other.keys_with_deadline);
  other.next_deadline.store(mine.next_deadline.exchange(other.next_deadline.load()));
  mine.gates.fill(0);
  for (const auto& [name, flags] : mine.watchers) {
    for (const auto& flag : flags) flag->touched.store(true, std::memory_order_relaxed);
  }
}

void Keyspace::swap_state(Keyspace& other) {
  for (std::size_t i = 0; i < kShards; ++i) {
    if (linked()) other.carry_told(other.shards_[i], shards_[i]);
    swap_shards(shards_[i], other.shards_[i]);
  }
  std::swap(flushes_, other.flushes_);
  for (std::size_t db = 0; db < kDatabaseCount; ++db) {
    other.sizes_[db].store(sizes_[db].exchange(other.sizes_[db].load()));
    other.deadlines_[db].keys.store(deadlines_[db].keys.exchange(other.deadlines_[db].keys.load()));
    other.deadlines_[db].sum.store(deadlines_[db].sum.exchange(other.deadlines_[db].sum.load()));
  }
  std::swap(sites_, other.sites_);
  other.site_count_.store(site_count_.exchange(other.site_count_.load()));
}

// What this server has told already it does not tell again.
void Keyspace::carry_told(Shard& mine, Shard& old) {
  for (std::size_t db = 0; db < kDatabaseCount; ++db) {
    old.tables[db].for_each([&](const Node& node) {
      if (!node.told) return;
      const Key key(static_cast<std::uint8_t>(db), node.name());
      const Node* const known = *mine.tables[db].find(key.hash, key.name);
      if (known != nullptr && known->deadline() == node.deadline()) tell_expired(key, node.deadline());
    });
  }
}

void Keyspace::destroy(Shard& shard, Node* node) {
  hash_release(shard.heap, node);
  free_node(shard.heap, node);
}

const Node* Keyspace::find_any(const Key& key) {
  const Table& table = shard(key).tables[key.db];
  return table.find(key.hash, key.name);
}

const Counter* Keyspace::counter(const Key& key) {
  const Node* const node = find_any(key);
  if (node == nullptr || !node->counted) return nullptr;
  const KeyCounters* const counters = shard(key).counters.find(key.db, key.name);
  return counters->value ? &*counters->value : nullptr;
}

const Counter* Keyspace::counter(const Key& key, std::string_view field) {
  const Node* const node = find_any(key);
  if (node == nullptr || !node->counted) return nullptr;
  const KeyCounters* const counters = shard(key).counters.find(key.db, key.name);
  const auto it = counters->fields.find(field);
  return it == counters->fields.end() ? nullptr : &it->second;
}

Point Keyspace::flushed(std::uint8_t db) const {
  const FlushRegister& flush = flushes_[db];
  return flush.version == 0 ? Point{} : Point{flush.version, site_id(flush.site)};
}

const Node* Keyspace::find(const Key& key, std::int64_t now_ms) {
  const Node* node = find_any(key);
  if (node == nullptr || !holds_value(*node)) return nullptr;
  return node->deadline() <= now_ms ? nullptr : node;
}

std::uint64_t Keyspace::scan(std::size_t shard_index, std::uint8_t db, std::uint64_t cursor,
                             std::int64_t now_ms, const std::function<void(const Node&)>& visit) {
  return shards_[shard_index].tables[db].scan(cursor, [&](const Node& node) {
    if (holds_value(node) && node.deadline() > now_ms) visit(node);
  });
}

void Keyspace::set_hash_limits(const HashLimits& limits) {
  hash_limits_ = {std::min(limits.max_packed_fields, kMostPacked.max_packed_fields),
                  std::min(limits.max_packed_bytes, kMostPacked.max_packed_bytes)};
}

std::uint64_t Keyspace::used_bytes() const {
  std::uint64_t bytes = side_bytes.load(std::memory_order_relaxed);
  for (const Shard& s : shards_) bytes += s.heap.bytes();
  return bytes;
}

/// A key's deadline was `before` and is `after`; kNoDeadline: it has none, or is not there.
void Keyspace::count_deadline(Shard& s, std::uint8_t db, std::int64_t before, std::int64_t after) {
  const auto count = [](std::int64_t deadline) { return std::uint64_t{deadline == kNoDeadline ? 0U : 1U}; };
  const auto share = [](std::int64_t deadline) {
    return deadline == kNoDeadline ? 0 : static_cast<std::uint64_t>(deadline);
  };
  if (const std::uint64_t change = count(after) - count(before); change != 0) {
    s.keys_with_deadline += change;
    deadlines_[db].keys.fetch_add(change, std::memory_order_relaxed);
  }
  deadlines_[db].sum.fetch_add(share(after) - share(before), std::memory_order_relaxed);
}

// The sum wraps around, and what all keys have left together does not.
std::int64_t Keyspace::average_ttl(std::uint8_t db, std::int64_t now_ms) const {
  const std::uint64_t keys = deadlines_[db].keys.load(std::memory_order_relaxed);
  if (keys == 0) return 0;
  const std::uint64_t sum = deadlines_[db].sum.load(std::memory_order_relaxed);
  const auto left = static_cast<std::int64_t>(sum - keys * static_cast<std::uint64_t>(now_ms));
  return std::max<std::int64_t>(left / static_cast<std::int64_t>(keys), 0);
}

void Keyspace::add_deadline(Shard& s, const Deadlines::Entry& entry) {
  s.deadlines.push(entry);
  // Rewritten deadlines leave their old entries behind; sweep them out before they outnumber the real ones.
  if (s.deadlines.size() > 2 * s.keys_with_deadline + 1024) {
    s.deadlines.keep_if([&](const Deadlines::Entry& e) {
      return s.tables[e.db].find_by_hash(e.hash, e.deadline) != nullptr;
    });
  }
  s.next_deadline.store(s.deadlines.soonest().deadline, std::memory_order_relaxed);
}

std::optional<Keyspace::Expired> Keyspace::next_expired(Shard& s, std::int64_t now_ms) {
  std::optional<Expired> expired;
  while (!expired && !s.deadlines.empty() && s.deadlines.soonest().deadline <= now_ms) {
    const Deadlines::Entry entry = s.deadlines.soonest();
    s.deadlines.pop();
    const Node* node = s.tables[entry.db].find_by_hash(entry.hash, entry.deadline);
    if (node != nullptr && holds_value(*node)) expired = Expired{entry.db, std::string(node->name())};
  }
  s.next_deadline.store(s.deadlines.empty() ? kNoDeadline : s.deadlines.soonest().deadline,
                        std::memory_order_relaxed);
  return expired;
}

void Keyspace::watch(const Key& key, std::shared_ptr<WatchFlag> flag) {
  shard(key).watchers[watch_name(key)].push_back(std::move(flag));
}

void Keyspace::unwatch(const Key& key, const std::shared_ptr<WatchFlag>& flag) {
  auto& watchers = shard(key).watchers;
  const auto it = watchers.find(watch_name(key));
  if (it == watchers.end()) return;
  std::erase(it->second, flag);
  if (it->second.empty()) watchers.erase(it);
}

void Keyspace::touch(const Key& key) {
  auto& watchers = shard(key).watchers;
  if (watchers.empty()) return;
  const auto it = watchers.find(watch_name(key));
  if (it == watchers.end()) return;
  for (const auto& flag : it->second) flag->touched.store(true, std::memory_order_relaxed);
}

void Keyspace::touch_database(std::uint8_t db) {
  const std::string prefix = std::to_string(db) + ":";
  for (Shard& s : shards_) {
    for (const auto& [name, flags] : s.watchers) {
      if (!name.starts_with(prefix)) continue;
      const Node* node = find_any({db, std::string_view(name).substr(prefix.size())});
      if (node == nullptr || !holds_value(*node)) continue;
      for (const auto& flag : flags) flag->touched.store(true, std::memory_order_relaxed);
    }
  }
}

void Keyspace::mark_piecewise(const Key& key) {
  Node** link = shard(key).tables[key.db].find(key.hash, key.name);
  if (*link != nullptr) (*link)->piecewise = true;
}

void Keyspace::mark_as_text(const Key& key) {
  Node** link = shard(key).tables[key.db].find(key.hash, key.name);
  if (*link != nullptr) (*link)->as_text = true;
}

void Keyspace::unpack_hash(const Key& key) {
  Shard& s = shard(key);
  Node** link = s.tables[key.db].find(key.hash, key.name);
  if (*link != nullptr && (*link)->has_fields()) *link = hash_unpack(s.heap, *link);
}

SiteIndex Keyspace::site_index(backend::SiteId site) {
  if (site == kEverySite) return kEverySiteIndex;
  std::size_t count = 0;
  const auto found = [&] {
    for (; count < site_count_.load(); ++count) {
      if (sites_[count] == site) return true;
    }
    return false;
  };
  if (found()) return static_cast<SiteIndex>(count);
  const std::lock_guard lock(sites_mutex_);
  if (found()) return static_cast<SiteIndex>(count);
  if (count == kEverySiteIndex)
    throw std::runtime_error("more than 254 other sites have written to this database");
  sites_[count] = site;
  site_count_.store(count + 1);
  return static_cast<SiteIndex>(count);
}

}  // namespace isthmus
