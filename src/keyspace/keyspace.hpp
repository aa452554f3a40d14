// The in-memory state of a server: the fold of the log.
#pragma once

#include <array>
#include <atomic>
#include <bitset>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/log.hpp"
#include "src/keyspace/hash.hpp"
#include "src/keyspace/shard.hpp"

namespace isthmus {

/// A key as the keyspace addresses it. `hash` is hash_name(name).
struct Key {
  std::uint8_t db = 0;
  std::uint64_t hash = 0;
  std::string_view name;
  Key(std::uint8_t database, std::string_view key_name)
      : db(database), hash(hash_name(key_name)), name(key_name) {}
  Key(std::uint8_t database, std::uint64_t name_hash, std::string_view key_name)
      : db(database), hash(name_hash), name(key_name) {}
};

/// Shards to lock together. Locked in ascending order, so that two sets never wait for each other.
using ShardSet = std::bitset<kShards>;

/// Holds the locks of a set of shards while it lives.
class ShardLocks {
 public:
  ShardLocks() = default;
  ShardLocks(const ShardLocks&) = delete;
  ShardLocks& operator=(const ShardLocks&) = delete;
  ~ShardLocks() { unlock(); }
  void lock_one(Shard& shard);
  void lock(std::array<Shard, kShards>& shards, const ShardSet& set);
  void unlock();

 private:
  Shard* one_ = nullptr;
  std::array<Shard, kShards>* shards_ = nullptr;
  ShardSet set_;
};

/// What folding a row did.
struct FoldResult {
  bool won = false;  ///< a register has changed; if not, the row was a repeat or older than what was there
  bool existed = false;  ///< the key held a value before, and this server had not told that it expired
  bool exists = false;   ///< the same, afterwards
  /// The version of a value of the own site (index 0) that a row of another site has replaced; else 0.
  Version lost_version = 0;
};

/// The index of kEverySite.
inline constexpr SiteIndex kEverySiteIndex = 255;

/// The state, changed by `fold` only. Functions that take a key need its shard's lock; functions named for
/// all shards need every lock. The merge rules are in MERGE.md, and in fold.hpp as code.
class Keyspace {
 public:
  Keyspace() { sites_[kEverySiteIndex] = kEverySite; }
  ~Keyspace();
  Keyspace(const Keyspace&) = delete;
  Keyspace& operator=(const Keyspace&) = delete;

  std::array<Shard, kShards>& shards() { return shards_; }
  const std::array<Shard, kShards>& shards() const { return shards_; }
  Shard& shard(const Key& key) { return shards_[shard_of(key.hash)]; }

  /// The key if it is there for a client at `now_ms`: not deleted, not expired, not empty. Valid until the
  /// shard changes.
  const Node* find(const Key& key, std::int64_t now_ms);
  /// The key with whatever is remembered of it; null if nothing is.
  const Node* find_any(const Key& key);

  /// Merges one row into the state: commutative, associative, idempotent. Kind flush needs all locks. Rows
  /// that are not state (messages, leases) change nothing. `site` is the row's site as `site_index` gave it.
  /// What it did is not known of a flush, which concerns every key: then `won` is true.
  FoldResult fold(const backend::Row& row, std::uint64_t hash, SiteIndex site);
  /// Puts a key or a field of a checkpoint in, as its registers say.
  void restore(const backend::StoredKey& key);
  void restore(const backend::StoredField& field);
  /// What the checkpoint should hold for a key and its fields now.
  backend::StoredKey stored(const Key& key);
  backend::StoredField stored(const Key& key, std::string_view field);
  /// The flushes that are still remembered, and one of a checkpoint put in. Both need all locks, or a
  /// keyspace that nobody else knows.
  std::vector<backend::StoredFlush> stored_flushes() const;
  void restore(const backend::StoredFlush& flush);

  /// One step of SCAN over a shard's database; 0 at its end. Expired keys are not visited.
  std::uint64_t scan(std::size_t shard, std::uint8_t db, std::uint64_t cursor, std::int64_t now_ms,
                     const std::function<void(const Node&)>& visit);
  /// Keys of a database that are there (expired ones too until they are removed, as in Redis). Needs no lock.
  std::uint64_t size(std::uint8_t db) const { return sizes_[db].load(std::memory_order_relaxed); }
  std::uint64_t keys_with_deadline(std::uint8_t db) const {
    return deadlines_[db].keys.load(std::memory_order_relaxed);
  }
  /// How long those keys have left on average, in milliseconds; 0 if there are none, or all have expired.
  std::int64_t average_ttl(std::uint8_t db, std::int64_t now_ms) const;
  /// Bytes of keys, values and tables. Needs no lock; a moment old.
  std::uint64_t used_bytes() const;

  /// The next key of the shard whose deadline has passed, and nothing if there is none. The caller deletes it
  /// by folding a row.
  struct Expired {
    std::uint8_t db;
    std::string name;
  };
  std::optional<Expired> next_expired(Shard& shard, std::int64_t now_ms);
  /// For linked sites: the key's deadline has passed and this server says so now. From now on it is not
  /// counted as a key; its registers stay until nobody can ask for them. False if it is not there, has been
  /// told of, or its deadline has not passed.
  bool tell_expired(const Key& key, std::int64_t now_ms);
  /// Forgets what is at or below `stable`, of at most `limit` keys of the shard: tombstones, registers that
  /// say nothing, and expired keys. Calls `changed` for each key of which the checkpoint holds more now than
  /// it should. Costs as much as there is to forget. True if there is more. Needs the shard's lock.
  bool collect(std::size_t shard, std::size_t limit, const std::function<void(const Key&)>& changed);
  /// The highest version in any register of the key, and of the flush of its database: a new write to the key
  /// has to be above it. 0 if nothing is remembered.
  Version highest_version(const Key& key) { return highest_version(key, find_any(key)); }
  /// The same for who has the key's node, or null.
  Version highest_version(const Key& key, const Node* node) {
    const Version flushed_at = flushes_[key.db].version;
    return node == nullptr ? flushed_at : std::max(flushed_at, highest_version(shard(key), key.db, *node));
  }
  /// The same of all keys of a database. Needs all locks. O(N).
  Version highest_version(std::uint8_t db);
  /// Whether rows of another site have ever been folded.
  bool knows_other_sites() const { return site_count_.load(std::memory_order_relaxed) > 1; }
  /// What is known of a key, or of one field of it, as a counter; null if it is none. Valid until the shard
  /// changes.
  const Counter* counter(const Key& key);
  const Counter* counter(const Key& key, std::string_view field);
  /// The flush of the database that is remembered; 0 if none is.
  Point flushed(std::uint8_t db) const;

  void watch(const Key& key, std::shared_ptr<WatchFlag> flag);
  void unwatch(const Key& key, const std::shared_ptr<WatchFlag>& flag);
  /// Tells the connections that watch the key that it has changed.
  void touch(const Key& key);
  /// The same for every key of the database that is there. Needs all locks.
  void touch_database(std::uint8_t db);
  /// Marks a string as built piece by piece (OBJECT ENCODING says raw until it is set anew).
  void mark_piecewise(const Key& key);
  /// Marks a string as one that Redis keeps as text though it may read as an integer, until it is set anew.
  void mark_as_text(const Key& key);
  /// Makes a hash a table, as the copy of a table is in Redis, however small it is (OBJECT ENCODING says
  /// hashtable).
  void unpack_hash(const Key& key);

  /// The own site, index 0. Before the first fold.
  void set_site(backend::SiteId site) { sites_[0] = site; }
  /// The index of a site; sites beyond 254 are refused by an exception (there are never so many).
  SiteIndex site_index(backend::SiteId site);
  backend::SiteId site_id(SiteIndex index) const { return sites_[index]; }

  /// Nothing at or below `version` can arrive any more: tombstones and registers below it are forgotten. A
  /// site that nobody replicates to is always stable.
  /// Set by one thread, at any time; never goes back while there are peers.
  void set_stable(Version version) { stable_.store(version, std::memory_order_relaxed); }
  Version stable() const { return stable_.load(std::memory_order_relaxed); }
  /// Whether this site has peers. Then nobody deletes expired keys by rows: each server hides them, and tells
  /// that they have expired, by itself. Any thread.
  void set_linked(bool linked) { linked_.store(linked, std::memory_order_relaxed); }
  bool linked() const { return linked_.load(std::memory_order_relaxed); }
  /// How far apart the clocks of sites may be, in milliseconds: so much longer an expired key is remembered.
  void set_max_clock_skew(std::int64_t ms) { max_clock_skew_ms_.store(ms, std::memory_order_relaxed); }
  /// Takes over what was set on the other one: the own site, `stable`, the limits of packed hashes.
  void take_settings(const Keyspace& other);
  /// Exchanges the whole state, but not the watchers: all of them are told that their keys have changed. What
  /// waits for a commit is forgotten. Needs all locks of this one; nobody else may know the other one.
  void swap_state(Keyspace& other);
  /// Larger ones than what a packed hash can hold count as that.
  void set_hash_limits(const HashLimits& limits);
  const HashLimits& hash_limits() const { return hash_limits_; }

 private:
  friend class Fold;
  struct FlushRegister {
    Version version = 0;
    SiteIndex site = 0;
  };
  Registers registers_of(const backend::StoredKey& key);
  void destroy(Shard& shard, Node* node);
  void destroy_key(Shard& shard, std::uint8_t db, Node** link);
  FoldResult fold_flush(const backend::Row& row, SiteIndex site);
  bool all_older(const Shard& shard, std::uint8_t db, const Point& at) const;
  void drop_all(Shard& shard, std::uint8_t db);
  Version highest_version(Shard& shard, std::uint8_t db, const Node& node) const;
  Version expired_for_all(const Registers& registers) const;
  Version forget_now(Shard& shard, std::uint8_t db, Node** link, Version stable);
  void forget_key(Shard& shard, const Key& key, Node** link, Version stable, bool& changed);
  bool forget_expired(Shard& shard, std::uint8_t db, Node** link, Version stable, bool& changed);
  void erase_field(Shard& shard, std::uint8_t db, Node** link, const std::string& name);
  static void await(Shard& shard, const Key& key, Node* node, Version version);
  void carry_told(Shard& mine, Shard& other);
  static void swap_shards(Shard& mine, Shard& other);
  void add_deadline(Shard& shard, const Deadlines::Entry& entry);
  void count_deadline(Shard& shard, std::uint8_t db, std::int64_t before, std::int64_t after);

  std::array<Shard, kShards> shards_;
  std::array<FlushRegister, kDatabaseCount> flushes_{};
  std::array<std::atomic<std::uint64_t>, kDatabaseCount> sizes_{};
  /// Of the keys that are there and have a deadline: how many, and the sum of the deadlines, modulo 2^64.
  struct DeadlineTotals {
    std::atomic<std::uint64_t> keys{0}, sum{0};
  };
  std::array<DeadlineTotals, kDatabaseCount> deadlines_;
  std::mutex sites_mutex_;  // adding to the next two; what is there is read without it
  std::array<backend::SiteId, 256> sites_{};
  std::atomic<std::size_t> site_count_{1};
  std::atomic<Version> stable_{std::numeric_limits<Version>::max()};
  std::atomic<bool> linked_{false};
  std::atomic<std::int64_t> max_clock_skew_ms_{0};
  HashLimits hash_limits_;
};

/// Whether the key has a value, expired or not.
inline bool has_content(const Node& node) {
  return node.is_string() || (node.has_fields() && hash_size(node) > 0);
}

/// Whether the key is there for a client, whatever the time: but for keys of which has been told that they
/// have expired.
inline bool holds_value(const Node& node) { return !node.told && has_content(node); }

}  // namespace isthmus
