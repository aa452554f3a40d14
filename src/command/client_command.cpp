// CLIENT and its subcommands (https://redis.io/docs/latest/commands/client/).
#include "src/command/client_command.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <optional>
#include <vector>

#include "src/command/connection.hpp"
#include "src/command/containers.hpp"
#include "src/command/help.hpp"
#include "src/command/info.hpp"

namespace isthmus {
namespace {

constexpr std::string_view kNoTracking =
    "ERR client side caching (CLIENT TRACKING ON) is not supported by this server";

// Redis's classes of connections. There are no replicas and no masters here, but they may be asked for.
enum class ClientType { normal, pubsub, replica, master };

std::optional<ClientType> client_type(std::string_view name) {
  const std::string type = lower(name);
  if (type == "normal") return ClientType::normal;
  if (type == "pubsub") return ClientType::pubsub;
  if (type == "replica" || type == "slave") return ClientType::replica;
  if (type == "master") return ClientType::master;
  return std::nullopt;
}

std::uint32_t shown_subscriptions(const Client& client) {
  return client.shown_subscriptions.load(std::memory_order_relaxed) +
         client.shown_patterns.load(std::memory_order_relaxed) +
         client.shown_shard_subscriptions.load(std::memory_order_relaxed);
}

ClientType type_of(const Client& client) {
  return shown_subscriptions(client) == 0 ? ClientType::normal : ClientType::pubsub;
}

std::optional<ClientType> type_argument(Call& call, std::size_t index) {
  const auto type = client_type(call.args[index]);
  if (!type) {
    std::string text = "ERR Unknown client type '";
    call.reply.error(text.append(call.args[index]).append("'"));
  }
  return type;
}

// The letters of CLIENT LIST that can apply here.
std::string flags_text(const Client& client) {
  std::string flags;
  if (client.monitors.load(std::memory_order_relaxed)) flags += 'O';
  if (shown_subscriptions(client) != 0) flags += 'P';
  if (client.shown_multi.load(std::memory_order_relaxed) >= 0) flags += 'x';
  if (client.killed.load(std::memory_order_relaxed)) flags += 'A';
  if (client.no_evict.load(std::memory_order_relaxed)) flags += 'e';
  if (client.no_touch.load(std::memory_order_relaxed)) flags += 'T';
  return flags.empty() ? "N" : flags;
}

class Line {
 public:
  Line& text(std::string_view name, std::string_view value) {
    if (!out_.empty()) out_ += ' ';
    out_.append(name).append(1, '=').append(value);
    return *this;
  }
  template <class Integer>
  Line& number(std::string_view name, Integer value) {
    return text(name, std::to_string(value));
  }
  std::string take() { return std::move(out_); }

 private:
  std::string out_;
};

void reply_lines(Call& call, const std::string& lines) { call.reply.verbatim("txt", lines); }

// CLIENT ID.
void id(Call& call) { call.reply.integer(static_cast<std::int64_t>(call.client.id)); }

// CLIENT GETNAME: the name, or null.
void getname(Call& call) {
  // Only this connection's own thread writes its name, so it may read it without the lock.
  if (call.client.name.empty()) {
    call.reply.null();
  } else {
    call.reply.bulk(call.client.name);
  }
}

// CLIENT SETNAME name. An empty name is none.
void setname(Call& call) {
  if (set_client_name(call, call.args[2])) call.reply.ok();
}

// CLIENT SETINFO LIB-NAME|LIB-VER text, as Redis has it since 7.2.
void setinfo(Call& call) {
  const bool is_name = call.is(2, "lib-name");
  if (!is_name && !call.is(2, "lib-ver")) {
    std::string text = "ERR Unrecognized option '";
    call.reply.error(text.append(call.args[2]).append("'"));
    return;
  }
  if (!is_client_attribute(call.args[3])) {
    std::string text = "ERR ";
    call.reply.error(
        text.append(call.args[2]).append(" cannot contain spaces, newlines or special characters."));
    return;
  }
  call.services.clients.update(
      [&] { (is_name ? call.client.library : call.client.library_version) = call.args[3]; });
  call.reply.ok();
}

// CLIENT INFO: the connection's own line.
void info(Call& call) { reply_lines(call, client_line(call.client, steady_clock_ms()) + "\n"); }

void list_by_id(Call& call) {
  std::vector<std::uint64_t> wanted;
  for (std::size_t i = 3; i < call.argc(); ++i) {
    const auto number = call.integer(i, "ERR Invalid client ID");
    if (!number) return;
    wanted.push_back(static_cast<std::uint64_t>(*number));
  }
  std::map<std::uint64_t, std::string> lines;
  for (const std::uint64_t number : wanted) lines[number];
  call.services.clients.for_each([&](const Client& client) {
    const auto it = lines.find(client.id);
    if (it != lines.end()) it->second = client_line(client, steady_clock_ms()) + "\n";
  });
  std::string text;
  for (const std::uint64_t number : wanted) text += lines[number];
  reply_lines(call, text);
}

// CLIENT LIST [TYPE type | ID id …]: a line for each connection; of those of one type; of those ids, in their
// order.
void list(Call& call) {
  std::optional<ClientType> type;
  if (call.argc() >= 4 && call.is(2, "id")) {
    list_by_id(call);
    return;
  }
  if (call.argc() == 4 && call.is(2, "type")) {
    type = type_argument(call, 3);
    if (!type) return;
  } else if (call.argc() != 2) {
    call.reply.error(error::kSyntax);
    return;
  }
  std::string text;
  call.services.clients.for_each([&](const Client& client) {
    if (!type || type_of(client) == *type) text += client_line(client, steady_clock_ms()) + "\n";
  });
  reply_lines(call, text);
}

// What CLIENT KILL chooses by.
struct KillFilter {
  std::optional<std::uint64_t> id;
  std::optional<ClientType> type;
  std::optional<std::string> address, local_address;
  bool skip_caller = true;

  bool matches(const Client& client, const Client& caller) const {
    if (id && client.id != *id) return false;
    if (type && type_of(client) != *type) return false;
    if (address && client.address != *address) return false;
    if (local_address && client.local_address != *local_address) return false;
    return !skip_caller || &client != &caller;
  }
};

// One pair of CLIENT KILL's newer form. False if the error has been replied.
bool read_kill_option(Call& call, std::size_t i, KillFilter& filter) {
  if (i + 1 >= call.argc()) {
    call.reply.error(error::kSyntax);
    return false;
  }
  const std::string_view value = call.args[i + 1];
  if (call.is(i, "id")) {
    const auto number = parse_integer(value);
    if (!number || *number < 1) {
      call.reply.error("ERR client-id should be greater than 0");
      return false;
    }
    filter.id = static_cast<std::uint64_t>(*number);
  } else if (call.is(i, "type")) {
    filter.type = type_argument(call, i + 1);
    return filter.type.has_value();
  } else if (call.is(i, "addr")) {
    filter.address = value;
  } else if (call.is(i, "laddr")) {
    filter.local_address = value;
  } else if (call.is(i, "user")) {
    if (value != "default") {
      std::string text = "ERR No such user '";
      call.reply.error(text.append(value).append("'"));
      return false;
    }
  } else if (call.is(i, "skipme") && (call.is(i + 1, "yes") || call.is(i + 1, "no"))) {
    filter.skip_caller = call.is(i + 1, "yes");
  } else {
    call.reply.error(error::kSyntax);
    return false;
  }
  return true;
}

// CLIENT KILL address: OK. CLIENT KILL filter value …: how many were closed. The caller's own connection gets
// its reply first.
void kill(Call& call) {
  KillFilter filter;
  const bool old_form = call.argc() == 3;
  if (old_form) {
    filter.address = call.args[2];
    filter.skip_caller = false;
  }
  for (std::size_t i = 2; !old_form && i < call.argc(); i += 2) {
    if (!read_kill_option(call, i, filter)) return;
  }
  const std::size_t killed = call.services.clients.kill(
      [&](const Client& client) { return filter.matches(client, call.client); }, call.client);
  if (!old_form) {
    call.reply.integer(static_cast<std::int64_t>(killed));
  } else if (killed == 0) {
    call.reply.error("ERR No such client");
  } else {
    call.reply.ok();
  }
}

// ON or OFF at args[2]; nothing if the error has been replied.
std::optional<bool> on_or_off(Call& call) {
  if (call.is(2, "on")) return true;
  if (call.is(2, "off")) return false;
  call.reply.error(error::kSyntax);
  return std::nullopt;
}

// CLIENT NO-EVICT ON|OFF. Shown only: nothing is ever evicted here.
void no_evict(Call& call) {
  const auto on = on_or_off(call);
  if (!on) return;
  call.client.no_evict.store(*on, std::memory_order_relaxed);
  call.reply.ok();
}

// CLIENT NO-TOUCH ON|OFF, as Redis has it since 7.2. Shown only: reads leave no trace here.
void no_touch(Call& call) {
  const auto on = on_or_off(call);
  if (!on) return;
  call.client.no_touch.store(*on, std::memory_order_relaxed);
  call.reply.ok();
}

// CLIENT REPLY ON|OFF|SKIP. Only ON is replied to.
void reply_mode(Call& call) {
  if (call.is(2, "on")) {
    call.client.reply_mode = ReplyMode::on;
    call.reply.ok();
  } else if (call.is(2, "off")) {
    call.client.reply_mode = ReplyMode::off;
  } else if (!call.is(2, "skip")) {
    call.reply.error(error::kSyntax);
  } else if (call.client.reply_mode != ReplyMode::off) {
    call.client.reply_mode = ReplyMode::skip_next;
  }
}

// CLIENT PAUSE milliseconds [WRITE|ALL]. A pause that is there already is not shortened, and not narrowed to
// writes.
void pause(Call& call) {
  if (call.argc() > 4) {
    reply_subcommand_error(call, "CLIENT");
    return;
  }
  const bool writes_only = call.argc() == 4 && call.is(3, "write");
  if (call.argc() == 4 && !writes_only && !call.is(3, "all")) {
    call.reply.error("ERR CLIENT PAUSE mode must be WRITE or ALL");
    return;
  }
  const auto timeout = call.integer(2, "ERR timeout is not an integer or out of range");
  if (!timeout) return;
  if (*timeout < 0) {
    call.reply.error("ERR timeout is negative");
    return;
  }
  if (*timeout > std::numeric_limits<std::int64_t>::max() - call.now_ms()) {
    call.reply.error("ERR timeout is out of range");
    return;
  }
  Pause& shared = call.services.pause;
  const std::int64_t before = shared.until_ms.load();
  const bool running = before > call.now_ms();
  shared.writes_only.store(writes_only && (!running || shared.writes_only.load()));
  shared.until_ms.store(std::max(running ? before : 0, call.now_ms() + *timeout));
  call.reply.ok();
}

// CLIENT UNPAUSE.
void unpause(Call& call) {
  call.services.pause.until_ms.store(0);
  call.reply.ok();
}

// CLIENT GETREDIR: -1, as tracking is off.
void getredir(Call& call) { call.reply.integer(-1); }

// CLIENT TRACKINGINFO: what Redis says when tracking is off.
void trackinginfo(Call& call) {
  call.reply.map(3);
  call.reply.bulk("flags");
  call.reply.set(1);
  call.reply.bulk("off");
  call.reply.bulk("redirect");
  call.reply.integer(-1);
  call.reply.bulk("prefixes");
  call.reply.array(0);
}

// CLIENT CACHING YES|NO: always Redis's error for a connection without tracking.
void caching(Call& call) {
  call.reply.error(
      "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode "
      "enabled");
}

// Whether the words behind TRACKING ON|OFF are options of Redis's. If not, the error has been replied.
bool tracking_options_fit(Call& call) {
  for (std::size_t i = 3; i < call.argc(); ++i) {
    const bool has_value = i + 1 < call.argc();
    if (call.is(i, "redirect") && has_value) {
      if (!call.integer(++i)) return false;
    } else if (call.is(i, "prefix") && has_value) {
      ++i;
    } else if (!call.is(i, "bcast") && !call.is(i, "optin") && !call.is(i, "optout") &&
               !call.is(i, "noloop")) {
      call.reply.error(error::kSyntax);
      return false;
    }
  }
  return true;
}

// CLIENT TRACKING ON|OFF [options]. OFF is what it always is; ON is refused, and clients go on without their
// cache.
void tracking(Call& call) {
  if (!tracking_options_fit(call)) return;
  const auto on = on_or_off(call);
  if (!on) return;
  if (*on) {
    call.reply.error(kNoTracking);
  } else {
    call.reply.ok();
  }
}

// CLIENT UNBLOCK id [TIMEOUT|ERROR]: 0, as no command blocks here.
void unblock(Call& call) {
  if (call.argc() > 4) {
    reply_subcommand_error(call, "CLIENT");
    return;
  }
  if (call.argc() == 4 && !call.is(3, "timeout") && !call.is(3, "error")) {
    call.reply.error("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR");
    return;
  }
  if (call.integer(2)) call.reply.integer(0);
}

// CLIENT HELP.
void help(Call& call) {
  reply_help(call, "CLIENT",
             {"CACHING (YES|NO)",
              "    Refused: there is no client side caching.",
              "GETNAME",
              "    Show the name of this connection.",
              "GETREDIR",
              "    -1, since there is no client side caching.",
              "ID",
              "    Show the number of this connection.",
              "INFO",
              "    Show this connection as LIST does.",
              "KILL <ip:port>",
              "    Close the connection from that address.",
              "KILL <filter> <value> [<filter> <value> [...]]",
              "    Close all connections that every filter fits. Filters are:",
              "    * ID <id>, ADDR <ip:port>, LADDR <ip:port>, USER <name>",
              "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
              "    * SKIPME (YES|NO): spare this connection (default: yes)",
              "LIST [TYPE (NORMAL|MASTER|REPLICA|PUBSUB) | ID <id> [<id> ...]]",
              "    Show the connections, one a line.",
              "NO-EVICT (ON|OFF)",
              "    Accepted and shown in LIST.",
              "NO-TOUCH (ON|OFF)",
              "    Accepted and shown in LIST.",
              "PAUSE <milliseconds> [WRITE|ALL]",
              "    Hold back writes, or everything, for so long.",
              "REPLY (ON|OFF|SKIP)",
              "    Whether this connection gets replies; SKIP leaves out the next one.",
              "SETINFO (LIB-NAME|LIB-VER) <text>",
              "    Name the library of this connection, or its version.",
              "SETNAME <name>",
              "    Name this connection.",
              "TRACKING (ON|OFF) [...]",
              "    OFF is accepted; there is no client side caching.",
              "TRACKINGINFO",
              "    Show the state of client side caching: off.",
              "UNBLOCK <id> [TIMEOUT|ERROR]",
              "    0, since no command blocks here.",
              "UNPAUSE",
              "    End PAUSE."});
}

constexpr std::uint32_t kOwn = kNoscript | kLoading | kStale;
constexpr std::uint32_t kOthers = kAdmin | kNoscript | kLoading | kStale;
constexpr std::string_view kGroup = "connection";

constexpr Command kSubcommands[] = {
    {"client|caching", caching, 3, kOwn, 0, 0, 0, kCatConnection, kGroup, "6.0.0", "O(1)",
     "Belongs to client side caching, which is not there"},
    {"client|getname", getname, 2, kOwn, 0, 0, 0, kCatConnection, kGroup, "2.6.9", "O(1)",
     "Answers the name of this connection"},
    {"client|getredir", getredir, 2, kOwn, 0, 0, 0, kCatConnection, kGroup, "6.0.0", "O(1)",
     "Answers where invalidations go: nowhere"},
    {"client|help", help, 2, kLoading | kStale, 0, 0, 0, kCatConnection, kGroup, "5.0.0", "O(1)",
     "Lists the subcommands"},
    {"client|id", id, 2, kOwn, 0, 0, 0, kCatConnection, kGroup, "5.0.0", "O(1)",
     "Answers the number of this connection"},
    {"client|info", info, 2, kOwn, 0, 0, 0, kCatConnection, kGroup, "6.2.0", "O(1)",
     "Shows this connection as CLIENT LIST does"},
    {"client|kill", kill, -3, kOthers, 0, 0, 0, kCatConnection, kGroup, "2.4.0",
     "O(N) where N is the number of client connections", "Closes connections"},
    {"client|list", list, -2, kOthers, 0, 0, 0, kCatConnection, kGroup, "2.4.0",
     "O(N) where N is the number of client connections", "Shows connections"},
    {"client|no-evict", no_evict, 3, kOthers, 0, 0, 0, kCatConnection, kGroup, "7.0.0", "O(1)",
     "Marks this connection as one to keep when memory is short"},
    {"client|no-touch", no_touch, 3, kOwn, 0, 0, 0, kCatConnection, kGroup, "7.2.0", "O(1)",
     "Marks this connection as one whose reads leave no trace"},
    {"client|pause", pause, -3, kOthers, 0, 0, 0, kCatConnection, kGroup, "2.9.50", "O(1)",
     "Holds back all commands, or writes, for a while"},
    {"client|reply", reply_mode, 3, kOwn, 0, 0, 0, kCatConnection, kGroup, "3.2.0", "O(1)",
     "Says whether this connection gets replies"},
    {"client|setinfo", setinfo, 4, kOwn, 0, 0, 0, kCatConnection, kGroup, "7.2.0", "O(1)",
     "Names the library of this connection, or its version"},
    {"client|setname", setname, 3, kOwn, 0, 0, 0, kCatConnection, kGroup, "2.6.9", "O(1)",
     "Names this connection"},
    {"client|tracking", tracking, -3, kOwn, 0, 0, 0, kCatConnection, kGroup, "6.0.0",
     "O(1). Some options may introduce additional complexity.",
     "Switches client side caching, which can only be off"},
    {"client|trackinginfo", trackinginfo, 2, kOwn, 0, 0, 0, kCatConnection, kGroup, "6.2.0", "O(1)",
     "Shows the state of client side caching"},
    {"client|unblock", unblock, -3, kOthers, 0, 0, 0, kCatConnection, kGroup, "5.0.0",
     "O(log N) where N is the number of client connections",
     "Wakes a connection that waits in a blocking command"},
    {"client|unpause", unpause, 2, kOthers, 0, 0, 0, kCatConnection, kGroup, "6.2.0",
     "O(N) Where N is the number of paused clients", "Ends CLIENT PAUSE"},
};

}  // namespace

std::string client_line(const Client& client, std::int64_t now_ms) {
  constexpr auto kRelaxed = std::memory_order_relaxed;
  const auto seconds_since = [now_ms](std::int64_t then_ms) {
    return std::max<std::int64_t>(now_ms - then_ms, 0) / 1000;
  };
  const std::uint64_t output = client.output_bytes.load(kRelaxed);
  const Command* command = client.last_command.load(kRelaxed);
  Line line;
  line.number("id", client.id)
      .text("addr", client.address)
      .text("laddr", client.local_address)
      .number("fd", client.fd);
  line.text("name", client.name).number("age", seconds_since(client.created_ms));
  line.number("idle", seconds_since(client.last_active_ms.load(kRelaxed))).text("flags", flags_text(client));
  line.number("db", static_cast<int>(client.db.load(kRelaxed)));
  line.number("sub", client.shown_subscriptions.load(kRelaxed))
      .number("psub", client.shown_patterns.load(kRelaxed));
  line.number("ssub", client.shown_shard_subscriptions.load(kRelaxed));
  line.number("multi", client.shown_multi.load(kRelaxed)).number("qbuf", client.input_bytes.load(kRelaxed));
  line.number("qbuf-free", 0).number("argv-mem", 0).number("multi-mem", 0).number("rbs", 0).number("rbp", 0);
  line.number("obl", 0).number("oll", client.queued_messages.load(kRelaxed)).number("omem", output);
  line.number("tot-mem", connection_bytes(client)).text("events", output == 0 ? "r" : "rw");
  line.text("cmd", command == nullptr ? "NULL" : command->name).text("user", "default").number("redir", -1);
  line.number("resp", client.shown_protocol.load(kRelaxed));
  line.text("lib-name", client.library).text("lib-ver", client.library_version);
  return line.take();
}

std::span<const Command> client_subcommands() { return kSubcommands; }

}  // namespace isthmus
