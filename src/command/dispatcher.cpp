#include "src/command/dispatcher.hpp"

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "src/command/forwarded.hpp"
#include "src/command/secrets.hpp"
#include "src/site/forwarder.hpp"

namespace isthmus {
namespace {

using std::chrono::steady_clock;

// As much of a client's text as an error quotes (server.c of Redis 7.0: "%.128s").
constexpr std::size_t kQuotedBytes = 128;
// Expired keys that WATCH takes out under one hold of a shard's lock.
constexpr std::size_t kExpiredAtOnce = 64;
constexpr std::string_view kNoWriter = "CLUSTERDOWN The writer of this site cannot be reached";
// A transaction's queue may hold as much as a query buffer.
constexpr std::string_view kQueueFull = "ERR the transaction's commands exceed client-query-buffer-limit";

// C's "%.128s": Redis's messages end at a zero byte.
std::string_view quoted(std::string_view text, std::size_t limit = kQuotedBytes) {
  return text.substr(0, std::min(limit, text.find('\0')));
}

std::string unknown_command(std::span<const std::string_view> args) {
  std::string text = "ERR unknown command '";
  text.append(quoted(args[0])).append("', with args beginning with: ");
  std::size_t room = kQuotedBytes;
  for (std::size_t i = 1; i < args.size() && room > 0; ++i) {
    const std::string_view shown = quoted(args[i], room);
    text.append("'").append(shown).append("' ");
    room -= std::min(room, shown.size() + 3);
  }
  return text;
}

std::string unknown_subcommand(const Command& container, std::string_view name) {
  std::string text = "ERR unknown subcommand '";
  text.append(quoted(name)).append("'. Try ");
  for (const char c : container.name)
    text.push_back(static_cast<char>(std::toupper(static_cast<unsigned char>(c))));
  return text.append(" HELP.");
}

bool arity_fits(const Command& command, std::size_t argc) {
  return command.arity >= 0 ? argc == static_cast<std::size_t>(command.arity)
                            : argc >= static_cast<std::size_t>(-command.arity);
}

// The gates. Each replies and returns true if it refuses the request.
class Gates {
 public:
  Gates(Services& services, Client& client, std::span<const std::string_view> args, resp::Writer& reply)
      : services_(services), client_(client), args_(args), reply_(reply) {}

  /// The command, or null if the request has been refused.
  const Command* pass() {
    const Command* command = look_up();
    if (command == nullptr) return nullptr;
    if (!arity_fits(*command, args_.size())) {
      std::string text = "ERR wrong number of arguments for '";
      refuse(text.append(command->name).append("' command"), command);
      return nullptr;
    }
    if (!is_admitted(services_, client_) && !command->has(kNoAuth)) {
      refuse("NOAUTH Authentication required.", command);
      return nullptr;
    }
    if (client_.in_multi && command->has(kNoMulti)) {
      refuse("ERR Command not allowed inside a transaction", command);
      return nullptr;
    }
    if (out_of_memory(*command)) {
      refuse("OOM command not allowed when used memory > 'maxmemory'.", command);
      return nullptr;
    }
    if (client_.protocol == 2 && !command->has(kWhenSubscribed) && client_.in_subscribed_mode()) {
      std::string text = "ERR Can't execute '";
      text.append(command->name)
          .append(
              "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context");
      refuse(text, command);
      return nullptr;
    }
    if (!services_.journal.available() && !client_.in_multi && command->has(kWrite) &&
        !is_elsewhere(services_)) {
      refuse(log_refuses_writes(services_.journal), command);
      return nullptr;
    }
    // Redis counts monitors among its replicas.
    if (client_.monitors.load(std::memory_order_relaxed) &&
        command->has(kWrite | kReadonly | kMayReplicate)) {
      refuse("ERR Replica can't interact with the keyspace", command);
      return nullptr;
    }
    return command;
  }

  void refuse(std::string_view text, const Command* command) {
    if (command != nullptr && command->name == "exec") {
      abort_exec(text);
    } else {
      reply_.error(text);
      client_.multi_failed |= client_.in_multi;
    }
    services_.stats.count_error(text);
    if (command != nullptr) {
      ThreadStats::add(services_.stats.thread(client_.thread).commands[command_index(*command)].rejected, 1);
    }
  }

 private:
  // An EXEC that is refused ends its transaction.
  void abort_exec(std::string_view text) {
    end_transaction(services_, client_);
    if (text.starts_with("ERR ")) text.remove_prefix(4);
    std::string abort = "EXECABORT Transaction discarded because of: ";
    reply_.error(abort.append(text));
  }

  const Command* look_up() {
    const Command* command = find_command(args_[0]);
    if (command == nullptr) {
      refuse(unknown_command(args_), nullptr);
      return nullptr;
    }
    if (command->subcommands.empty() || args_.size() < 2) return command;
    const Command* subcommand = find_subcommand(*command, args_[1]);
    if (subcommand == nullptr) refuse(unknown_subcommand(*command, args_[1]), nullptr);
    return subcommand;
  }

  bool out_of_memory(const Command& command) const {
    const std::uint64_t limit = services_.settings.maxmemory_bytes.load(std::memory_order_relaxed);
    if (limit == 0) return false;
    bool grows = command.has(kDenyOom);
    if (command.name == "exec") {
      for (const QueuedCommand& queued : client_.queue) grows |= queued.command->has(kDenyOom);
    } else if (client_.in_multi && !command.has(kInMulti)) {
      grows = true;  // the queue itself grows
    }
    return grows && services_.keyspace.used_bytes() > limit;
  }

  Services& services_;
  Client& client_;
  const std::span<const std::string_view> args_;
  resp::Writer& reply_;
};

bool paused(Services& services, const Client& client, const Command& command, std::int64_t now_ms) {
  if (!services.pause.active(now_ms) || client.monitors.load(std::memory_order_relaxed)) return false;
  if (!services.pause.writes_only.load(std::memory_order_relaxed)) return true;
  bool writes = command.has(kWrite | kMayReplicate);
  if (command.name == "exec") {
    for (const QueuedCommand& queued : client.queue) writes |= queued.command->has(kWrite | kMayReplicate);
  }
  return writes;
}

void enqueue(Services& services, Client& client, const Command& command,
             std::span<const std::string_view> args, resp::Writer& reply) {
  for (const std::string_view arg : args) client.queue_bytes += arg.size() + sizeof(std::string);
  if (client.queue_bytes > static_cast<std::size_t>(services.settings.query_buffer_limit_bytes.load())) {
    client.multi_failed = true;
    reply.error(kQueueFull);
    return;
  }
  client.queue.push_back({&command, {args.begin(), args.end()}});
  client.shown_multi.store(static_cast<std::int32_t>(client.queue.size()), std::memory_order_relaxed);
  reply.queued();
}

// Whether the writer of the site must evaluate the command. An EXEC that fails anyway fails here.
bool goes_to_writer(const Services& services, const Client& client, const Command& command) {
  if (!is_elsewhere(services)) return false;
  if (command.has(kWrite)) return true;
  if (command.name != "exec" || !client.in_multi || client.multi_failed) return false;
  if (client.watch_flag != nullptr && client.watch_flag->touched.load(std::memory_order_relaxed))
    return false;
  return std::any_of(client.queue.begin(), client.queue.end(),
                     [](const QueuedCommand& queued) { return queued.command->has(kWrite); });
}

// Of a command that goes to the writer: whether it may. If not, the error has been replied.
bool may_go_to_writer(Services& services, Client& client, Gates& gates, resp::Writer& reply,
                      const Command& command) {
  for (const QueuedCommand& queued : client.queue) {
    if (can_be_forwarded(*queued.command)) continue;
    std::string text = "ERR '";
    gates.refuse(text.append(queued.command->name)
                     .append("' cannot be part of a transaction that another server evaluates"),
                 &command);
    return false;
  }
  if (services.forwarder != nullptr && !services.forwarder->refuses()) return true;
  if (client.in_multi) end_transaction(services, client);
  reply.error(kNoWriter);
  services.stats.count_error(kNoWriter);
  return false;
}

// Shard channels stand where keys stand, for clusters, and are none.
bool locks_keys(const Command& command) { return command.first_key != 0 && !command.has(kPubsub); }

void note_slow(Call& call, std::int64_t duration_us) {
  constexpr std::size_t kMaxArgs = 32, kMaxBytes = 128;  // as Redis's slow log trims them
  SlowlogEntry entry;
  entry.time_s = call.now_ms() / 1000;
  entry.duration_us = duration_us;
  entry.client_address = call.client.address;
  call.services.clients.update([&] { entry.client_name = call.client.name; });
  const std::vector<std::string_view> args = without_secrets(call.command, call.args);
  for (std::size_t i = 0; i < args.size() && i < kMaxArgs; ++i) {
    if (i == kMaxArgs - 1 && call.argc() > kMaxArgs) {
      entry.args.push_back("... (" + std::to_string(call.argc() - kMaxArgs + 1) + " more arguments)");
      break;
    }
    std::string text(args[i].substr(0, kMaxBytes));
    if (args[i].size() > kMaxBytes) {
      text.append("... (").append(std::to_string(args[i].size() - kMaxBytes)).append(" more bytes)");
    }
    entry.args.push_back(std::move(text));
  }
  call.services.stats.add_slow(std::move(entry), call.services.settings.slowlog_max_len.load());
}

// A line of MONITOR (https://redis.io/docs/latest/commands/monitor/).
void show_to_monitors(Services& services, const Client& client, const Command& command,
                      std::span<const std::string_view> args) {
  if (!services.pubsub.has_monitors() || command.has(kSkipMonitor | kAdmin)) return;
  const auto us = std::chrono::duration_cast<std::chrono::microseconds>(
                      std::chrono::system_clock::now().time_since_epoch())
                      .count();
  std::string fraction = std::to_string(us % 1'000'000);
  fraction.insert(0, 6 - fraction.size(), '0');
  std::string line = std::to_string(us / 1'000'000) + "." + fraction + " [" +
                     std::to_string(client.db.load()) + " " + client.address + "]";
  constexpr char kHex[] = "0123456789abcdef";
  for (const std::string_view arg : without_secrets(command, args)) {
    line.append(" \"");
    for (const char c : arg) {
      switch (c) {
        case '\\':
          line.append("\\\\");
          break;
        case '"':
          line.append("\\\"");
          break;
        case '\n':
          line.append("\\n");
          break;
        case '\r':
          line.append("\\r");
          break;
        case '\t':
          line.append("\\t");
          break;
        case '\a':
          line.append("\\a");
          break;
        case '\b':
          line.append("\\b");
          break;
        default:
          if (c >= ' ' && c <= '~') {
            line.push_back(c);
          } else {
            const auto byte = static_cast<unsigned char>(c);
            line.append("\\x").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
          }
      }
    }
    line.push_back('"');
  }
  services.pubsub.publish_to_monitors(line);
}

// Before WATCH looks at its keys, what has expired in their shards goes, as the expirer would have it in some
// milliseconds: that a key which was over already is deleted is no change that fails the EXEC.
void take_out_expired(Services& services, const Command& command, std::span<const std::string_view> args,
                      std::int64_t now_ms) {
  if (!services.keyspace.linked() && !services.journal.available()) return;
  if (services.pause.active(now_ms)) return;
  ShardSet set;
  add_shards(command, args, set);
  const std::int64_t news_since = now_ms - services.config.message_max_age_ms;
  for (std::size_t i = set._Find_first(); i < kShards; i = set._Find_next(i)) {
    if (services.keyspace.shards()[i].next_deadline.load(std::memory_order_relaxed) > now_ms) continue;
    while (Evaluation(services, now_ms).expire_due(i, kExpiredAtOnce, news_since)) {
    }
    services.journal.commit_soon();
  }
}

}  // namespace

void run(Call& call) {
  Stats& stats = call.services.stats;
  const std::size_t reply_begin = call.reply.out().size();
  const auto begin = steady_clock::now();
  call.command.handler(call);
  const auto end_time = steady_clock::now();
  // Afterwards, so that SELECT shows the new database, and an EXEC its commands before itself.
  show_to_monitors(call.services, call.client, call.command, call.args);
  const auto elapsed = std::chrono::duration_cast<std::chrono::nanoseconds>(end_time - begin).count();
  ThreadStats& thread = stats.thread(call.client.thread);
  ThreadStats::PerCommand& counters = thread.commands[command_index(call.command)];
  ThreadStats::add(counters.calls, 1);
  ThreadStats::add(counters.nanoseconds, static_cast<std::uint64_t>(elapsed));
  ThreadStats::add(thread.commands_processed, 1);
  const std::string& out = call.reply.out();
  if (out.size() > reply_begin && out[reply_begin] == '-') {
    ThreadStats::add(counters.failed, 1);
    const std::size_t end = out.find('\r', reply_begin);
    stats.count_error(std::string_view(out).substr(reply_begin + 1, end - reply_begin - 1));
  }
  const std::int64_t threshold = call.services.settings.slowlog_threshold_us.load(std::memory_order_relaxed);
  if (threshold >= 0 && elapsed >= threshold * 1000 && !call.command.has(kSkipSlowlog))
    note_slow(call, elapsed / 1000);
}

void show_forwarded_to_monitors(Services& services, const Client& client,
                                std::span<const std::string_view> args) {
  std::vector<std::string_view> views;
  for (const QueuedCommand& queued : client.queue) {
    views.assign(queued.args.begin(), queued.args.end());
    show_to_monitors(services, client, *queued.command, views);
  }
  show_to_monitors(services, client, *client.last_command.load(std::memory_order_relaxed), args);
}

void add_shards(const Command& command, std::span<const std::string_view> args, ShardSet& set) {
  if (command.has(kAllShards | kWalksShards)) {
    set.set();
    return;
  }
  if (command.has(kCountedKeys)) {
    for (const std::string_view key : counted_keys(args).value_or(args.first(0)))
      set.set(shard_of(hash_name(key)));
  }
  if (!locks_keys(command)) return;
  const std::size_t last = command.last_key < 0 ? args.size() + static_cast<std::size_t>(command.last_key)
                                                : static_cast<std::size_t>(command.last_key);
  for (auto i = static_cast<std::size_t>(command.first_key); i <= last && i < args.size();
       i += static_cast<std::size_t>(command.key_step)) {
    set.set(shard_of(hash_name(args[i])));
  }
}

void forget_watches(Services& services, Client& client) {
  for (const WatchedKey& watched : client.watched) {
    const Key key(watched.db, watched.name);
    const std::lock_guard lock(services.keyspace.shard(key).mutex);
    services.keyspace.unwatch(key, client.watch_flag);
  }
  client.watched.clear();
  client.shown_watched.store(0, std::memory_order_relaxed);
  client.watch_flag.reset();
}

Outcome dispatch(Services& services, Client& client, std::span<const std::string_view> args,
                 resp::Writer& reply, std::int64_t now_ms) {
  Gates gates(services, client, args, reply);
  const Command* command = gates.pass();
  if (command == nullptr) return {};
  if (command->has(kForwarded)) return evaluate_forwarded(services, client, args, reply, now_ms);
  if (paused(services, client, *command, now_ms)) return {.postponed = true};
  client.last_command.store(command, std::memory_order_relaxed);
  if (client.in_multi && !command->has(kInMulti)) {
    enqueue(services, client, *command, args, reply);
    return {};
  }
  if (services.site != nullptr) {
    if (goes_to_writer(services, client, *command)) {
      if (client.forwarded != nullptr) return {.forward = true};
      return {.forward = may_go_to_writer(services, client, gates, reply, *command)};
    }
    if (client.awaits_forwarded) return {.postponed = true};
  }
  if (command->has(kInMulti) && command->name == "watch") take_out_expired(services, *command, args, now_ms);
  Evaluation evaluation(services, now_ms);
  if (command->has(kAllShards | kCountedKeys) ||
      (locks_keys(*command) && command->last_key != command->first_key)) {
    ShardSet set;
    add_shards(*command, args, set);
    evaluation.lock(set);
  } else if (locks_keys(*command)) {
    evaluation.lock(Key(0, args[static_cast<std::size_t>(command->first_key)]));
  }
  // The role changes under all locks only, so what is true now remains so until they are gone.
  if (command->has(kWrite) && is_elsewhere(services)) return {.forward = true};
  Call call(services, client, *command, args, reply, evaluation);
  const std::size_t reply_begin = reply.out().size();
  run(call);
  if (std::exchange(client.must_forward, false)) return {.forward = true};
  if (client.forwarded != nullptr) {
    note_forwarded_answer(call, std::string_view(reply.out()).substr(reply_begin));
  }
  if (evaluation.gate() > client.last_gate) client.last_gate = evaluation.gate();
  return {.gate = evaluation.gate()};
}

}  // namespace isthmus
