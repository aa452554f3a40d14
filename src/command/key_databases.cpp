// Commands on whole databases: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "src/command/key_copy.hpp"
#include "src/command/keys.hpp"

namespace isthmus {
namespace {

// Keys of the shard's database that have expired and are not removed yet; the shard is locked.
std::uint64_t expired_keys(const Shard& shard, std::uint8_t db, std::int64_t now_ms) {
  std::vector<const Node*> expired;
  shard.deadlines.for_each_due(now_ms, [&](const Deadlines::Entry& entry) {
    if (entry.db != db) return;
    const Node* node = shard.tables[db].find_by_hash(entry.hash, entry.deadline);
    if (node != nullptr && holds_value(*node)) expired.push_back(node);
  });
  // A deadline that was set twice is there twice.
  std::sort(expired.begin(), expired.end());
  return static_cast<std::uint64_t>(std::unique(expired.begin(), expired.end()) - expired.begin());
}

// DBSIZE → the number of keys in the database. Redis counts what has expired until somebody asks for it; here
// it does not count, so that after such a question the number is the same. O(1), and O(N) of the keys that
// have expired and are about to go.
void dbsize(Call& call) {
  const std::uint64_t size = call.services.keyspace.size(call.db());
  std::uint64_t expired = 0;
  for (std::size_t i = 0; i < kShards; ++i) {
    const Shard& shard = call.services.keyspace.shards()[i];
    if (shard.next_deadline.load(std::memory_order_relaxed) > call.now_ms()) continue;
    call.with_shard(i, [&] { expired += expired_keys(shard, call.db(), call.now_ms()); });
  }
  call.evaluation().touch_all();
  // The expirer may have taken some out in between.
  call.reply.integer(static_cast<std::int64_t>(size - std::min(size, expired)));
}

// The form that both flushes have. ASYNC and SYNC say the same here.
bool flush_arguments_are_good(Call& call) {
  if (call.argc() == 1 || (call.argc() == 2 && (call.is(1, "sync") || call.is(1, "async")))) return true;
  call.reply.error(error::kSyntax);
  return false;
}

void flush(Call& call, std::uint8_t db) {
  if (call.services.keyspace.size(db) > 0) call.flush(db);
}

// FLUSHDB [ASYNC | SYNC] → OK. No event is raised. O(N).
void flushdb(Call& call) {
  if (!flush_arguments_are_good(call)) return;
  flush(call, call.db());
  call.evaluation().touch_all();
  call.reply.ok();
}

// FLUSHALL [ASYNC | SYNC] → OK. No event is raised. O(N).
void flushall(Call& call) {
  if (!flush_arguments_are_good(call)) return;
  for (std::uint8_t db = 0; db < kDatabaseCount; ++db) flush(call, db);
  call.evaluation().touch_all();
  call.reply.ok();
}

// A database number of SWAPDB in args[index]: any 32-bit integer; else the error `otherwise` is replied.
std::optional<std::int32_t> swap_argument(Call& call, std::size_t index, std::string_view otherwise) {
  const auto number = call.integer(index, otherwise);
  if (!number) return std::nullopt;
  if (*number < std::numeric_limits<std::int32_t>::min() ||
      *number > std::numeric_limits<std::int32_t>::max()) {
    call.reply.error(otherwise);
    return std::nullopt;
  }
  return static_cast<std::int32_t>(*number);
}

bool is_database(std::int32_t number) {
  return number >= 0 && number < static_cast<std::int32_t>(kDatabaseCount);
}

using CopiedKeys = std::vector<std::pair<std::string, KeyCopy>>;

// Keys that have expired and are still there come along: their event is yet to be raised, in the database
// they come to.
CopiedKeys copy_database(Call& call, std::uint8_t db) {
  CopiedKeys copies;
  copies.reserve(call.services.keyspace.size(db));
  for (const Shard& shard : call.services.keyspace.shards()) {
    shard.tables[db].for_each([&](const Node& node) {
      if (holds_value(node)) copies.emplace_back(node.name(), copy_key(node));
    });
  }
  return copies;
}

std::size_t effect_bytes(const CopiedKeys& copies) {
  std::size_t bytes = 0;
  for (const auto& [name, copy] : copies) bytes += copy.effect_bytes(name.size());
  return bytes;
}

// The log knows no swap: between sites, where each key is merged for itself, exchanging two databases has no
// meaning that commutes with the other rows. So every key of both is deleted (one flush row each) and written
// again on the other side. False if that is more than one group of effects may hold; the error has been
// replied.
bool swap_databases(Call& call, std::uint8_t first, std::uint8_t second) {
  const CopiedKeys from_first = copy_database(call, first);
  const CopiedKeys from_second = copy_database(call, second);
  if (!call.fits(effect_bytes(from_first) + effect_bytes(from_second))) return false;
  flush(call, first);
  flush(call, second);
  for (const auto& [name, copy] : from_first) write_copy(call, {second, name}, copy);
  for (const auto& [name, copy] : from_second) write_copy(call, {first, name}, copy);
  return true;
}

// SWAPDB index1 index2 → OK; every connection sees the keys of the one database in the other. No event is
// raised. Errors: a number that is no integer, a database that is not there, more than 256 MiB in both. O(N)
// of the keys in both.
void swapdb(Call& call) {
  const auto first = swap_argument(call, 1, "ERR invalid first DB index");
  if (!first) return;
  const auto second = swap_argument(call, 2, "ERR invalid second DB index");
  if (!second) return;
  if (!is_database(*first) || !is_database(*second)) {
    call.reply.error(error::kDbIndexOutOfRange);
    return;
  }
  call.evaluation().touch_all();
  const bool swapped = *first == *second || swap_databases(call, static_cast<std::uint8_t>(*first),
                                                           static_cast<std::uint8_t>(*second));
  if (swapped) call.reply.ok();
}

constexpr std::uint32_t kCatWhole = kCatKeyspace | kCatDangerous;

constexpr Command kCommands[] = {
    {"dbsize", dbsize, 1, kReadonly | kFast | kWalksShards, 0, 0, 0, kCatKeyspace, "server", "1.0.0", "O(1)",
     "Counts the keys of the database."},
    {"flushdb", flushdb, -1, kWrite | kAllShards, 0, 0, 0, kCatWhole, "server", "1.0.0",
     "O(N) where N is the number of keys in the selected database", "Deletes all keys of the database."},
    {"flushall", flushall, -1, kWrite | kAllShards, 0, 0, 0, kCatWhole, "server", "1.0.0",
     "O(N) where N is the total number of keys in all databases", "Deletes all keys of all databases."},
    {"swapdb", swapdb, 3, kWrite | kFast | kAllShards, 0, 0, 0, kCatWhole, "server", "4.0.0",
     "O(N) where N is the count of clients watching or blocking on keys from both databases.",
     "Exchanges the keys of two databases."},
};

}  // namespace

std::span<const Command> database_commands() { return kCommands; }

}  // namespace isthmus
