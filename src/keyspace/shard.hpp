// One of the keyspace's shards: its tables, deadlines, watchers, and which of its keys wait for a commit.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <tuple>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "backend/row.hpp"
#include "src/keyspace/counters.hpp"
#include "src/keyspace/node.hpp"
#include "src/keyspace/side_bytes.hpp"
#include "src/keyspace/table.hpp"

namespace isthmus {

inline constexpr std::size_t kDatabaseCount = backend::kMaxDb + 1;
inline constexpr std::size_t kShards = 256;
static_assert(kShards == 256, "Table::index leaves out the eight bits that choose the shard");

inline std::size_t shard_of(std::uint64_t hash) { return hash % kShards; }

/// Set when a key that a connection watches has changed (WATCH,
/// https://redis.io/docs/latest/commands/watch/).
struct WatchFlag {
  std::atomic<bool> touched{false};
};

/// The deadlines of one shard, soonest first. Entries are hints: whoever takes one looks at the key itself.
class Deadlines {
 public:
  struct Entry {
    std::int64_t deadline;  ///< milliseconds since the Unix epoch
    std::uint64_t hash;     ///< of the key's name
    std::uint8_t db;
  };
  void push(const Entry& entry);
  bool empty() const { return heap_.empty(); }
  const Entry& soonest() const { return heap_.front(); }
  void pop();
  std::size_t size() const { return heap_.size(); }
  void clear() { heap_.clear(); }
  /// Calls `visit` for the entries whose time has come, in no order. Costs as much as there are.
  template <class Visit>
  void for_each_due(std::int64_t now_ms, Visit&& visit) const {
    visit_due(0, now_ms, visit);
  }
  /// Keeps only the entries for which `valid` says so, each once.
  template <class Valid>
  void keep_if(Valid&& valid);

 private:
  // An entry is not later than the two below it, so the due ones hang together at the top.
  template <class Visit>
  void visit_due(std::size_t index, std::int64_t now_ms, Visit&& visit) const {
    if (index >= heap_.size() || heap_[index].deadline > now_ms) return;
    visit(heap_[index]);
    visit_due(2 * index + 1, now_ms, visit);
    visit_due(2 * index + 2, now_ms, visit);
  }
  static bool later(const Entry& a, const Entry& b) { return a.deadline > b.deadline; }
  std::vector<Entry, SideAllocator<Entry>> heap_;
};

struct alignas(64) Shard {
  // Which commit a key waits for, by a few bits of its hash: a conservative stand-in for a table {uncommitted
  // key: seq}, with nothing to insert and nothing to clean up.
  static constexpr std::size_t kGates = 64;

  std::mutex mutex;
  Heap heap;
  std::array<Table, kDatabaseCount> tables;
  Deadlines deadlines;
  CounterTable counters;
  /// Keys of which something can be forgotten, soonest first; `deadline` is the version that Keyspace::stable
  /// has to reach.
  Deadlines forgettable;
  std::size_t keys_with_deadline = 0;
  std::atomic<std::int64_t> next_deadline{kNoDeadline};  ///< readable without the lock
  std::array<backend::Seq, kGates> gates{};
  /// "db:key" → connections that watch it. Empty when nobody does.
  boost::unordered_flat_map<std::string, std::vector<std::shared_ptr<WatchFlag>>> watchers;

  backend::Seq& gate(std::uint64_t hash) { return gates[(hash >> 58) % kGates]; }
};

template <class Valid>
void Deadlines::keep_if(Valid&& valid) {
  std::erase_if(heap_, [&](const Entry& entry) { return !valid(entry); });
  std::sort(heap_.begin(), heap_.end(), [](const Entry& a, const Entry& b) {
    return std::tie(a.deadline, a.hash, a.db) < std::tie(b.deadline, b.hash, b.db);
  });
  heap_.erase(std::unique(heap_.begin(), heap_.end(),
                          [](const Entry& a, const Entry& b) {
                            return a.deadline == b.deadline && a.hash == b.hash && a.db == b.db;
                          }),
              heap_.end());  // sorted ascending is a valid heap
  heap_.shrink_to_fit();
}

}  // namespace isthmus
