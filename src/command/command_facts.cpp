// Facts about commands, as COMMAND INFO of Redis 7.0.15 has them.
#include "src/command/command_facts.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace isthmus {
namespace {

using Fact = std::pair<std::string_view, std::string_view>;

constexpr std::array kFlagNames = {
    std::pair{kWrite, "write"},
    std::pair{kReadonly, "readonly"},
    std::pair{kDenyOom, "denyoom"},
    std::pair{kAdmin, "admin"},
    std::pair{kPubsub, "pubsub"},
    std::pair{kNoscript, "noscript"},
    std::pair{kBlocking, "blocking"},
    std::pair{kLoading, "loading"},
    std::pair{kStale, "stale"},
    std::pair{kSkipMonitor, "skip_monitor"},
    std::pair{kSkipSlowlog, "skip_slowlog"},
    std::pair{kFast, "fast"},
    std::pair{kNoAuth, "no_auth"},
    std::pair{kNoMandatoryKeys, "no_mandatory_keys"},
    std::pair{kNoAsyncLoading, "no_async_loading"},
    std::pair{kNoMulti, "no_multi"},
    std::pair{kMovableKeys, "movablekeys"},
    std::pair{kAllowBusy, "allow_busy"},
};

constexpr std::array<std::string_view, 21> kCategories = {
    "keyspace", "read",   "write",       "set",       "sortedset",  "list",        "hash",
    "string",   "bitmap", "hyperloglog", "geo",       "stream",     "pubsub",      "admin",
    "fast",     "slow",   "blocking",    "dangerous", "connection", "transaction", "scripting"};

// Sorted by name, words separated by a space.
constexpr Fact kTips[] = {
    {"client|info", "nondeterministic_output"},
    {"client|list", "nondeterministic_output"},
    {"cluster|bumpepoch", "nondeterministic_output"},
    {"cluster|count-failure-reports", "nondeterministic_output"},
    {"cluster|getkeysinslot", "nondeterministic_output"},
    {"cluster|info", "nondeterministic_output"},
    {"cluster|links", "nondeterministic_output"},
    {"cluster|nodes", "nondeterministic_output"},
    {"cluster|replicas", "nondeterministic_output"},
    {"cluster|shards", "nondeterministic_output"},
    {"cluster|slaves", "nondeterministic_output"},
    {"cluster|slots", "nondeterministic_output"},
    {"command", "nondeterministic_output_order"},
    {"command|docs", "nondeterministic_output_order"},
    {"command|info", "nondeterministic_output_order"},
    {"command|list", "nondeterministic_output_order"},
    {"config|set", "request_policy:all_nodes response_policy:all_succeeded"},
    {"dbsize", "request_policy:all_shards response_policy:agg_sum"},
    {"del", "request_policy:multi_shard response_policy:agg_sum"},
    {"dump", "nondeterministic_output"},
    {"exists", "request_policy:multi_shard response_policy:agg_sum"},
    {"flushall", "request_policy:all_shards response_policy:all_succeeded"},
    {"flushdb", "request_policy:all_shards response_policy:all_succeeded"},
    {"hgetall", "nondeterministic_output_order"},
    {"hkeys", "nondeterministic_output_order"},
    {"hrandfield", "nondeterministic_output"},
    {"hscan", "nondeterministic_output"},
    {"hvals", "nondeterministic_output_order"},
    {"info", "nondeterministic_output request_policy:all_shards response_policy:special"},
    {"keys", "request_policy:all_shards nondeterministic_output_order"},
    {"lastsave", "nondeterministic_output"},
    {"latency|doctor", "nondeterministic_output request_policy:all_nodes response_policy:special"},
    {"latency|graph", "nondeterministic_output request_policy:all_nodes response_policy:special"},
    {"latency|histogram", "nondeterministic_output request_policy:all_nodes response_policy:special"},
    {"latency|history", "nondeterministic_output request_policy:all_nodes response_policy:special"},
    {"latency|latest", "nondeterministic_output request_policy:all_nodes response_policy:special"},
    {"latency|reset", "request_policy:all_nodes response_policy:all_succeeded"},
    {"memory|doctor", "nondeterministic_output request_policy:all_shards response_policy:special"},
    {"memory|malloc-stats", "nondeterministic_output request_policy:all_shards response_policy:special"},
    {"memory|purge", "request_policy:all_shards response_policy:all_succeeded"},
    {"memory|stats", "nondeterministic_output request_policy:all_shards response_policy:special"},
    {"mget", "request_policy:multi_shard"},
    {"module|list", "nondeterministic_output_order"},
    {"mset", "request_policy:multi_shard response_policy:all_succeeded"},
    {"msetnx", "request_policy:multi_shard response_policy:agg_min"},
    {"object|encoding", "nondeterministic_output"},
    {"object|freq", "nondeterministic_output"},
    {"object|idletime", "nondeterministic_output"},
    {"object|refcount", "nondeterministic_output"},
    {"ping", "request_policy:all_shards response_policy:all_succeeded"},
    {"pttl", "nondeterministic_output"},
    {"randomkey", "request_policy:all_shards nondeterministic_output"},
    {"scan", "nondeterministic_output request_policy:special"},
    {"sdiff", "nondeterministic_output_order"},
    {"sinter", "nondeterministic_output_order"},
    {"slowlog|get", "request_policy:all_nodes nondeterministic_output"},
    {"slowlog|len", "request_policy:all_nodes response_policy:agg_sum nondeterministic_output"},
    {"slowlog|reset", "request_policy:all_nodes response_policy:all_succeeded"},
    {"smembers", "nondeterministic_output_order"},
    {"spop", "nondeterministic_output"},
    {"srandmember", "nondeterministic_output"},
    {"sscan", "nondeterministic_output"},
    {"sunion", "nondeterministic_output_order"},
    {"time", "nondeterministic_output"},
    {"touch", "request_policy:multi_shard response_policy:agg_sum"},
    {"ttl", "nondeterministic_output"},
    {"unlink", "request_policy:multi_shard response_policy:agg_sum"},
    {"wait", "request_policy:all_shards response_policy:agg_min"},
};

// Sorted by name: the flags of each key specification, separated by a bar.
constexpr Fact kKeyFlags[] = {
    {"append", "RW insert"},
    {"copy", "RO access|OW update"},
    {"decr", "RW access update"},
    {"decrby", "RW access update"},
    {"del", "RM delete"},
    {"dump", "RO access"},
    {"exists", "RO"},
    {"expire", "RW update"},
    {"expireat", "RW update"},
    {"expiretime", "RO access"},
    {"get", "RO access"},
    {"getdel", "RW access delete"},
    {"getex", "RW access update"},
    {"getrange", "RO access"},
    {"getset", "RW access update"},
    {"hdel", "RW delete"},
    {"hexists", "RO"},
    {"hget", "RO access"},
    {"hgetall", "RO access"},
    {"hincrby", "RW access update"},
    {"hincrbyfloat", "RW access update"},
    {"hkeys", "RO access"},
    {"hlen", "RO"},
    {"hmget", "RO access"},
    {"hmset", "RW update"},
    {"hrandfield", "RO access"},
    {"hscan", "RO access"},
    {"hset", "RW update"},
    {"hsetnx", "RW insert"},
    {"hstrlen", "RO"},
    {"hvals", "RO access"},
    {"incr", "RW access update"},
    {"incrby", "RW access update"},
    {"incrbyfloat", "RW access update"},
    {"memory|usage", "RO"},
    {"mget", "RO access"},
    {"move", "RW access update"},
    {"mset", "OW update"},
    {"msetnx", "OW insert"},
    {"object|encoding", "RO"},
    {"object|freq", "RO"},
    {"object|idletime", "RO"},
    {"object|refcount", "RO"},
    {"persist", "RW update"},
    {"pexpire", "RW update"},
    {"pexpireat", "RW update"},
    {"pexpiretime", "RO access"},
    {"psetex", "OW update"},
    {"pttl", "RO access"},
    {"rename", "RW access delete|OW update"},
    {"renamenx", "RW access delete|OW insert"},
    {"restore", "OW update"},
    {"sadd", "RW insert"},
    {"scard", "RO"},
    {"sdiff", "RO access"},
    {"sdiffstore", "OW update|RO access"},
    {"set", "RW access update variable_flags"},
    {"setex", "OW update"},
    {"setnx", "OW insert"},
    {"setrange", "RW update"},
    {"sinter", "RO access"},
    {"sintercard", "RO access"},
    {"sinterstore", "RW update|RO access"},
    {"sismember", "RO"},
    {"smembers", "RO access"},
    {"smismember", "RO access"},
    {"smove", "RW access delete|RW insert"},
    {"spop", "RW access delete"},
    {"spublish", "not_key"},
    {"srandmember", "RO access"},
    {"srem", "RW delete"},
    {"sscan", "RO access"},
    {"ssubscribe", "not_key"},
    {"strlen", "RO"},
    {"substr", "RO access"},
    {"sunion", "RO access"},
    {"sunionstore", "OW update|RO access"},
    {"sunsubscribe", "not_key"},
    {"touch", "RO"},
    {"ttl", "RO access"},
    {"type", "RO"},
    {"unlink", "RM delete"},
    {"watch", "RO"},
};

constexpr Fact kNotes[] = {
    {"getex", "RW and UPDATE because it changes the TTL"},
    {"set", "RW and ACCESS due to the optional `GET` argument"},
};

static_assert(std::is_sorted(std::begin(kTips), std::end(kTips)));
static_assert(std::is_sorted(std::begin(kKeyFlags), std::end(kKeyFlags)));
static_assert(std::is_sorted(std::begin(kNotes), std::end(kNotes)));

std::string_view fact(std::span<const Fact> facts, std::string_view name) {
  const auto it = std::lower_bound(facts.begin(), facts.end(), name,
                                   [](const Fact& a, std::string_view b) { return a.first < b; });
  return it != facts.end() && it->first == name ? it->second : std::string_view{};
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find(separator), text.size());
    parts.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return parts;
}

bool in_category(const Command& command, std::string_view category) {
  constexpr std::array<std::pair<std::string_view, std::uint32_t>, 9> kOfRow = {
      {{"keyspace", kCatKeyspace},
       {"string", kCatString},
       {"hash", kCatHash},
       {"set", kCatSet},
       {"pubsub", kCatPubsub},
       {"transaction", kCatTransaction},
       {"connection", kCatConnection},
       {"dangerous", kCatDangerous},
       {"admin", kCatAdmin}}};
  constexpr std::array<std::pair<std::string_view, std::uint32_t>, 7> kOfFlags = {{{"write", kWrite},
                                                                                   {"read", kReadonly},
                                                                                   {"admin", kAdmin},
                                                                                   {"dangerous", kAdmin},
                                                                                   {"pubsub", kPubsub},
                                                                                   {"fast", kFast},
                                                                                   {"blocking", kBlocking}}};
  if (category == "slow") return !command.has(kFast);
  return std::any_of(kOfRow.begin(), kOfRow.end(),
                     [&](const auto& row) {
                       return row.first == category && (command.categories & row.second) != 0;
                     }) ||
         std::any_of(kOfFlags.begin(), kOfFlags.end(),
                     [&](const auto& flag) { return flag.first == category && command.has(flag.second); });
}

}  // namespace

std::vector<std::string_view> flag_names(const Command& command) {
  std::vector<std::string_view> names;
  for (const auto& [flag, name] : kFlagNames) {
    if (command.has(flag)) names.push_back(name);
  }
  return names;
}

std::span<const std::string_view> all_categories() { return kCategories; }

std::vector<std::string_view> category_names(const Command& command) {
  std::vector<std::string_view> names;
  std::copy_if(kCategories.begin(), kCategories.end(), std::back_inserter(names),
               [&](std::string_view name) { return in_category(command, name); });
  return names;
}

std::vector<std::string_view> command_tips(const Command& command) {
  return split(fact(kTips, command.name), ' ');
}

std::vector<KeySpec> key_specs(const Command& command) {
  std::vector<KeySpec> specs;
  const auto flags = split(fact(kKeyFlags, command.name), '|');
  for (std::size_t i = 0; i < flags.size(); ++i) {
    KeySpec spec;
    spec.notes = fact(kNotes, command.name);
    spec.flags = split(flags[i], ' ');
    spec.begin = command.first_key + static_cast<int>(i);
    spec.counted = command.has(kCountedKeys);
    if (spec.counted) {
      spec.begin = 1;
    } else if (i + 1 == flags.size() && (flags.size() == 1 || command.last_key < 0)) {
      spec.last = command.last_key < 0 ? command.last_key : command.last_key - command.first_key;
      spec.step = command.key_step;
    }
    specs.push_back(std::move(spec));
  }
  return specs;
}

}  // namespace isthmus
