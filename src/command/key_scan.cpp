// Commands that walk the keyspace: KEYS, SCAN, RANDOMKEY.
//
// They lock one shard at a time, so a walk holds nobody up for long; inside EXEC all shards are locked
// already. What they reply depends on everything there is, so it leaves after the commit of everything that
// has been appended.
#include <functional>
#include <string>

#include "src/command/keys.hpp"
#include "src/command/random.hpp"
#include "src/command/scan.hpp"
#include "src/pubsub/glob.hpp"

namespace isthmus {
namespace {

// Calls `visit` for the live keys of one shard's database; the shard is locked.
void visit_shard(Call& call, std::size_t shard, const std::function<void(const Node&)>& visit) {
  std::uint64_t cursor = 0;
  do {
    cursor = call.services.keyspace.scan(shard, call.db(), cursor, call.now_ms(), visit);
  } while (cursor != 0);
}

// A pattern without special characters matches one key at most.
void reply_one_key(Call& call, std::string_view name) {
  const Key key(call.db(), name);
  bool found = false;
  call.with_shard(shard_of(key.hash), [&] { found = call.find_for_write(key) != nullptr; });
  call.reply.array(found ? 1 : 0);
  if (found) call.reply.bulk(name);
}

// KEYS pattern → an array of all keys that match. O(N) of the keys in the database; O(1) for a pattern
// without special characters.
void keys(Call& call) {
  const std::string_view pattern = call.args[1];
  if (glob_is_literal(pattern)) {
    reply_one_key(call, pattern);
    return;
  }
  BulkList found(call.reply.protocol());
  const bool all = pattern == "*";
  const std::function<void(const Node&)> visit = [&](const Node& node) {
    if (all || glob_match(pattern, node.name())) found.add(node.name());
  };
  for (std::size_t shard = 0; shard < kShards; ++shard) {
    call.with_shard(shard, [&] { visit_shard(call, shard, visit); });
  }
  call.evaluation().touch_all();
  found.reply_to(call.reply);
}

// SCAN cursor [MATCH pattern] [COUNT count] [TYPE type] → the next cursor and some keys. A key that is there
// all the time is returned at least once in a walk from 0 to 0. O(1) for each call.
void scan(Call& call) {
  const auto number = parse_cursor(call.args[1]);
  if (!number) {
    call.reply.error(error::kInvalidCursor);
    return;
  }
  const auto options = parse_scan_options(call, 2, true);
  if (!options) return;
  BulkList found(call.reply.protocol());
  ShardCursor cursor(*number);
  ScanBudget budget(options->count);
  const std::function<void(const Node&)> visit = [&](const Node& node) {
    budget.see_element();
    if (options->has_type(type_name(node)) && options->matches(node.name())) found.add(node.name());
  };
  while (!cursor.at_end() && !budget.spent()) {
    // The first bucket of a shard is free: else a small keyspace, spread over all shards, would take many
    // calls.
    call.with_shard(cursor.shard, [&] {
      const auto step = [&] {
        return call.services.keyspace.scan(cursor.shard, call.db(), cursor.bucket, call.now_ms(), visit);
      };
      for (cursor.bucket = step(); cursor.bucket != 0 && !budget.spent(); cursor.bucket = step())
        budget.see_bucket();
    });
    if (cursor.bucket == 0) cursor.next_shard();
  }
  call.evaluation().touch_all();
  reply_scan(call.reply, cursor.number(), found);
}

// Random keys that have expired, or of which only a tombstone is left, are passed over so many times.
constexpr int kTriesInShard = 8;
// Random shards that hold nothing are passed over so many times; then the shards are walked in order.
constexpr int kRandomShards = 1024;

std::optional<std::string> random_key_of_shard(Call& call, std::size_t shard) {
  std::optional<std::string> name;
  call.with_shard(shard, [&] {
    const Table& table = call.services.keyspace.shards()[shard].tables[call.db()];
    for (int i = 0; i < kTriesInShard && !name; ++i) {
      const Node* node = table.random_node(random_bits);
      if (node == nullptr) return;
      if (holds_value(*node) && node->deadline() > call.now_ms()) name = node->name();
    }
  });
  return name;
}

std::optional<std::string> first_key_from_shard(Call& call, std::size_t begin) {
  std::optional<std::string> name;
  for (std::size_t i = 0; i < kShards && !name; ++i) {
    const std::size_t shard = (begin + i) % kShards;
    call.with_shard(shard, [&] {
      visit_shard(call, shard, [&](const Node& node) {
        if (!name) name = node.name();
      });
    });
  }
  return name;
}

// RANDOMKEY → a random key of the database, or null if it is empty. O(1), and at worst O(N) of keys that have
// expired and of shards.
void randomkey(Call& call) {
  std::optional<std::string> name;
  if (call.services.keyspace.size(call.db()) > 0) {
    for (int i = 0; i < kRandomShards && !name; ++i)
      name = random_key_of_shard(call, random_bits() % kShards);
    if (!name) name = first_key_from_shard(call, random_bits() % kShards);
  }
  call.evaluation().touch_all();
  if (name) {
    call.reply.bulk(*name);
  } else {
    call.reply.null();
  }
}

constexpr Command kCommands[] = {
    {"keys", keys, 2, kReadonly | kWalksShards, 0, 0, 0, kCatKeyspace | kCatDangerous, "generic", "1.0.0",
     "O(N) with N being the number of keys in the database, under the assumption that the key names in the "
     "database and the "
     "given pattern have limited length.",
     "Returns all keys that match a pattern."},
    {"scan", scan, -2, kReadonly | kWalksShards, 0, 0, 0, kCatKeyspace, "generic", "2.8.0",
     "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to "
     "return back to 0. "
     "N is the number of elements inside the collection.",
     "Walks the keys of a database step by step."},
    {"randomkey", randomkey, 1, kReadonly | kWalksShards, 0, 0, 0, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Returns a random key."},
};

}  // namespace

std::span<const Command> walking_commands() { return kCommands; }

}  // namespace isthmus
