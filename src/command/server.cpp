// The server group (https://redis.io/docs/latest/commands/?group=server): what is no container, and the
// table.
#include <chrono>
#include <string>
#include <vector>

#include "src/command/call.hpp"
#include "src/command/containers.hpp"
#include "src/command/info.hpp"

namespace isthmus {
namespace {

// INFO [section …]: text, see info.hpp.
void info(Call& call) {
  std::vector<std::string> names;
  for (const std::string_view name : call.args.subspan(1)) names.push_back(lower(name));
  const std::vector<std::string_view> views(names.begin(), names.end());
  call.reply.verbatim("txt", info_text(call.services, views, call.now_ms()));
}

// TIME: seconds and microseconds since the Unix epoch.
void time(Call& call) {
  using std::chrono::microseconds;
  const std::int64_t now_us =
      std::chrono::duration_cast<microseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  call.reply.array(2);
  call.reply.bulk_integer(now_us / 1'000'000);
  call.reply.bulk_integer(now_us % 1'000'000);
}

// LASTSAVE: when a checkpoint was last finished, in seconds since the Unix epoch; before the first one, the
// start.
void lastsave(Call& call) {
  const std::int64_t checkpoint_ms = call.services.journal.stats().last_checkpoint_ms.load();
  call.reply.integer((checkpoint_ms == 0 ? call.services.started_ms : checkpoint_ms) / 1000);
}

// SAVE: OK at once. Whatever was acknowledged is in the log already, which is all that can be saved.
void save(Call& call) { call.reply.ok(); }

// BGSAVE [SCHEDULE]: Redis's status, and nothing to do.
void bgsave(Call& call) {
  if (call.argc() > 2 || (call.argc() == 2 && !call.is(1, "schedule"))) {
    call.reply.error(error::kSyntax);
    return;
  }
  call.reply.simple("Background saving started");
}

// BGREWRITEAOF: Redis's status, and nothing to do; the log is cut behind each checkpoint.
void bgrewriteaof(Call& call) { call.reply.simple("Background append only file rewriting started"); }

// SHUTDOWN [NOSAVE|SAVE] [NOW] [FORCE] [ABORT]: commits what is open and ends the process; no reply, the
// connection closes. Which of the words there are makes no difference, for there is nothing to save and
// nobody to wait for.
void shutdown(Call& call) {
  bool save_asked = false, nosave_asked = false, other_asked = false, abort_asked = false;
  for (std::size_t i = 1; i < call.argc(); ++i) {
    if (call.is(i, "save")) {
      save_asked = true;
    } else if (call.is(i, "nosave")) {
      nosave_asked = true;
    } else if (call.is(i, "now") || call.is(i, "force")) {
      other_asked = true;
    } else if (call.is(i, "abort")) {
      abort_asked = true;
    } else {
      call.reply.error(error::kSyntax);
      return;
    }
  }
  if ((save_asked && nosave_asked) || (abort_asked && (save_asked || nosave_asked || other_asked))) {
    call.reply.error(error::kSyntax);
    return;
  }
  if (abort_asked) {
    call.reply.error("ERR No shutdown in progress.");
    return;
  }
  call.client.close_after_reply = true;
  call.services.shutdown();
}

// ROLE: a master at offset 0 without replicas; other servers get their data through SQL.
void role(Call& call) {
  call.reply.array(3);
  call.reply.bulk("master");
  call.reply.integer(0);
  call.reply.array(0);
}

// WAIT replicas timeout: 0 at once. There are no replicas whose answer could be waited for.
void wait(Call& call) {
  if (!call.integer(1)) return;
  const auto timeout_ms = call.integer(2, "ERR timeout is not an integer or out of range");
  if (!timeout_ms) return;
  if (*timeout_ms < 0) {
    call.reply.error("ERR timeout is negative");
    return;
  }
  call.reply.integer(0);
}

// MONITOR: OK, then a line for each command of anybody. Again on the same connection: no reply, as in Redis.
void monitor(Call& call) {
  if (call.client.in_exec) {
    call.reply.error("ERR MONITOR isn't allowed for DENY BLOCKING client");
    return;
  }
  if (!call.client.subscribe(ChannelKind::monitor, {})) return;
  call.client.monitors.store(true, std::memory_order_relaxed);
  call.reply.ok();
}

}  // namespace

std::span<const Command> server_commands() {
  constexpr std::string_view kGroup = "server";
  constexpr std::uint32_t kAnytime = kLoading | kStale;
  constexpr std::string_view kBySubcommand = "Depends on subcommand.";
  static const Command commands[] = {
      {"acl", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "6.0.0", kBySubcommand, "Users, of which there is one",
       acl_subcommands()},
      {"asking", cluster_disabled, 1, kFast, 0, 0, 0, kCatConnection, "cluster", "3.0.0", "O(1)",
       "Refused, as there is no Redis Cluster"},
      {"bgrewriteaof", bgrewriteaof, 1, kAdmin | kNoscript | kNoAsyncLoading, 0, 0, 0, 0, kGroup, "1.0.0",
       "O(1)", "Answers at once, since the log is cut all the time"},
      {"bgsave", bgsave, -1, kAdmin | kNoscript | kNoAsyncLoading, 0, 0, 0, 0, kGroup, "1.0.0", "O(1)",
       "Answers at once, since the log is always saved"},
      {"cluster", nullptr, -2, 0, 0, 0, 0, 0, "cluster", "3.0.0", kBySubcommand,
       "Redis Cluster, which this is not", cluster_subcommands()},
      {"command", describe_all_commands, -1, kAnytime, 0, 0, 0, kCatConnection, kGroup, "2.8.13",
       "O(N) where N is the total number of Redis commands", "Describes commands", command_subcommands()},
      {"config", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "2.0.0", kBySubcommand, "Parameters of the server",
       config_subcommands()},
      {"debug", debug, -2, kAdmin | kNoscript | kAnytime | kProtected | kAllShards, 0, 0, 0, 0, kGroup,
       "1.0.0", kBySubcommand, "Aids for tests"},
      {"info", info, -1, kAnytime, 0, 0, 0, kCatDangerous, kGroup, "1.0.0", "O(1)",
       "Answers what there is to know about the server, in sections"},
      {"lastsave", lastsave, 1, kAnytime | kFast, 0, 0, 0, kCatAdmin | kCatDangerous, kGroup, "1.0.0", "O(1)",
       "Answers when the last checkpoint was finished"},
      {"latency", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "2.8.13", kBySubcommand, "Delays of the server",
       latency_subcommands()},
      {"memory", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "4.0.0", kBySubcommand, "Use of memory",
       memory_subcommands()},
      {"module", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "4.0.0", kBySubcommand,
       "Modules, of which there is none", module_subcommands()},
      {"monitor", monitor, 1, kAdmin | kNoscript | kAnytime, 0, 0, 0, 0, kGroup, "1.0.0", "",
       "Shows every command from now on"},
      {"readonly", cluster_disabled, 1, kAnytime | kFast, 0, 0, 0, kCatConnection, "cluster", "3.0.0", "O(1)",
       "Refused, as there is no Redis Cluster"},
      {"readwrite", cluster_disabled, 1, kAnytime | kFast, 0, 0, 0, kCatConnection, "cluster", "3.0.0",
       "O(1)", "Refused, as there is no Redis Cluster"},
      {"role", role, 1, kNoscript | kAnytime | kFast, 0, 0, 0, kCatAdmin | kCatDangerous, kGroup, "2.8.12",
       "O(1)", "Answers master, with no replicas"},
      {"save", save, 1, kAdmin | kNoscript | kNoAsyncLoading | kNoMulti, 0, 0, 0, 0, kGroup, "1.0.0",
       "O(N) where N is the total number of keys in all databases",
       "Answers at once, since the log is always saved"},
      {"shutdown", shutdown, -1, kAdmin | kNoscript | kAnytime | kNoMulti | kAllowBusy, 0, 0, 0, 0, kGroup,
       "1.0.0",
       "O(N) when saving, where N is the total number of keys in all databases when saving data, otherwise "
       "O(1)",
       "Ends the server in good order"},
      {"slowlog", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "2.2.12", kBySubcommand, "The commands that took long",
       slowlog_subcommands()},
      {"time", time, 1, kAnytime | kFast, 0, 0, 0, 0, kGroup, "2.6.0", "O(1)",
       "Answers the time of the server"},
      {"wait", wait, 3, kNoscript, 0, 0, 0, kCatConnection, "generic", "3.0.0", "O(1)",
       "Answers how many replicas have the writes of this connection: none"},
  };
  return commands;
}

}  // namespace isthmus
