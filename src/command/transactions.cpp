// MULTI EXEC DISCARD WATCH UNWATCH (https://redis.io/docs/latest/develop/interact/transactions/).
#include "src/command/transactions.hpp"

#include "src/command/dispatcher.hpp"
#include "src/command/forwarded.hpp"

namespace isthmus {
namespace {

void end_multi(Client& client) {
  client.in_multi = client.multi_failed = false;
  client.queue.clear();
  client.queue_bytes = 0;
  client.shown_multi.store(-1, std::memory_order_relaxed);
}

void multi(Call& call) {
  if (call.client.in_multi) {
    call.reply.error("ERR MULTI calls can not be nested");
    return;
  }
  call.client.in_multi = true;
  call.client.shown_multi.store(0, std::memory_order_relaxed);
  call.reply.ok();
}

void discard(Call& call) {
  if (!call.client.in_multi) {
    call.reply.error("ERR DISCARD without MULTI");
    return;
  }
  discard_transaction(call);
  call.reply.ok();
}

// Remembers whether each key had expired already: only one that expires later fails the EXEC. And what
// another server needs if that evaluates the EXEC.
void watch(Call& call) {
  if (call.client.in_multi) {
    call.reply.error("ERR WATCH inside MULTI is not allowed");
    return;
  }
  Client& client = call.client;
  if (client.watch_flag == nullptr) client.watch_flag = std::make_shared<WatchFlag>();
  for (std::size_t i = 1; i < call.argc(); ++i) {
    const Key key = call.key(i);
    const bool known = std::any_of(
        client.watched.begin(), client.watched.end(),
        [&](const WatchedKey& watched) { return watched.db == key.db && watched.name == key.name; });
    if (known) continue;
    const Node* node = call.services.keyspace.find_any(key);
    const bool expired = node != nullptr && holds_value(*node) && node->deadline() <= call.now_ms();
    call.services.keyspace.watch(key, client.watch_flag);
    KeyFingerprint print;
    if (call.services.site != nullptr) print = fingerprint(call.services.keyspace, key, call.now_ms());
    client.watched.push_back({key.db, std::string(key.name), expired, print});
    call.evaluation().touch(key);
  }
  client.shown_watched.store(static_cast<std::uint32_t>(client.watched.size()), std::memory_order_relaxed);
  call.reply.ok();
}

void unwatch(Call& call) {
  // Inside an EXEC the watches are gone already.
  if (!call.client.watched.empty()) forget_watches(call.services, call.client);
  call.reply.ok();
}

bool watched_elsewhere_changed(Call& call) {
  for (const WatchedKey& watched : call.client.watched) {
    const Key key(watched.db, watched.name);
    if (fingerprint(call.services.keyspace, key, call.now_ms()) != watched.fingerprint) return true;
  }
  return false;
}

bool watched_changed(Call& call) {
  Client& client = call.client;
  if (client.forwarded != nullptr) return watched_elsewhere_changed(call);
  if (client.watch_flag == nullptr) return false;
  if (client.watch_flag->touched.load(std::memory_order_relaxed)) return true;
  for (const WatchedKey& watched : client.watched) {
    const Node* node = call.services.keyspace.find_any({watched.db, watched.name});
    const bool expired = node != nullptr && holds_value(*node) && node->deadline() <= call.now_ms();
    if (expired && !watched.was_expired) return true;
  }
  return false;
}

// With the locks held, so that nothing changes between the check of the watches and the last command.
void exec_locked(Call& call, bool writes) {
  Client& client = call.client;
  const bool changed = watched_changed(call);
  if (writes && !changed && is_elsewhere(call.services)) {
    client.must_forward = true;
    return;
  }
  for (const WatchedKey& watched : client.watched) {
    const Key key(watched.db, watched.name);
    call.evaluation().touch(key);
    if (client.watch_flag != nullptr) call.services.keyspace.unwatch(key, client.watch_flag);
  }
  client.watched.clear();
  client.shown_watched.store(0, std::memory_order_relaxed);
  client.watch_flag.reset();
  if (changed) {
    end_multi(client);
    call.reply.null_array();
    return;
  }
  const std::vector<QueuedCommand> queue = std::move(client.queue);
  end_multi(client);
  call.reply.array(queue.size());
  std::vector<std::string_view> views;
  client.in_exec = true;
  for (const QueuedCommand& queued : queue) {
    views.assign(queued.args.begin(), queued.args.end());
    Call inner(call.services, client, *queued.command, views, call.reply, call.evaluation());
    run(inner);
  }
  client.in_exec = false;
}

// A failed EXEC says nil for a changed watch, EXECABORT for a command that was refused while queueing.
void exec(Call& call) {
  Client& client = call.client;
  if (!client.in_multi) {
    call.reply.error("ERR EXEC without MULTI");
    return;
  }
  if (client.multi_failed) {
    discard_transaction(call);
    call.reply.error("EXECABORT Transaction discarded because of previous errors.");
    return;
  }
  bool writes = false;
  ShardSet set;
  std::vector<std::string_view> views;
  for (const QueuedCommand& queued : client.queue) {
    views.assign(queued.args.begin(), queued.args.end());
    add_shards(*queued.command, views, set);
    writes |= queued.command->has(kWrite);
  }
  if (writes && !call.services.journal.available() && !is_elsewhere(call.services)) {
    discard_transaction(call);
    call.reply.error(log_refuses_writes(call.services.journal));
    return;
  }
  for (const WatchedKey& watched : client.watched) set.set(shard_of(hash_name(watched.name)));
  // Messages are rows of the lease too, and who appends those holds a shard's lock.
  if (set.none() && call.services.site != nullptr) set.set(0);
  call.evaluation().lock(set);
  exec_locked(call, writes);
}

constexpr std::string_view kGroup = "transactions";
constexpr std::uint32_t kAnytime = kNoscript | kLoading | kStale | kAllowBusy;

constexpr Command kCommands[] = {
    {"multi", multi, 1, kAnytime | kFast | kInMulti, 0, 0, 0, kCatTransaction, kGroup, "1.2.0", "O(1)",
     "Begins a transaction"},
    {"exec", exec, 1, kNoscript | kLoading | kStale | kSkipSlowlog | kInMulti | kOwnLocks, 0, 0, 0,
     kCatTransaction, kGroup, "1.2.0", "Depends on commands in the transaction",
     "Evaluates the queued commands as one"},
    {"discard", discard, 1, kAnytime | kFast | kInMulti, 0, 0, 0, kCatTransaction, kGroup, "2.0.0",
     "O(N), when N is the number of queued commands", "Throws the queued commands away"},
    {"watch", watch, -2, kAnytime | kFast | kInMulti, 1, -1, 1, kCatTransaction, kGroup, "2.2.0",
     "O(1) for every key.", "Makes the next EXEC depend on these keys staying as they are"},
    {"unwatch", unwatch, 1, kAnytime | kFast, 0, 0, 0, kCatTransaction, kGroup, "2.2.0", "O(1)",
     "Forgets all watched keys"},
};

}  // namespace

void end_transaction(Services& services, Client& client) {
  end_multi(client);
  forget_watches(services, client);
}

void discard_transaction(Call& call) { end_transaction(call.services, call.client); }

std::span<const Command> transaction_commands() { return kCommands; }

}  // namespace isthmus
