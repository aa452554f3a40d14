// PING ECHO QUIT RESET AUTH HELLO SELECT (https://redis.io/docs/latest/commands/?group=connection).
#include "src/command/connection.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "src/command/containers.hpp"
#include "src/command/info.hpp"
#include "src/command/keys.hpp"
#include "src/command/transactions.hpp"

namespace isthmus {
namespace {

constexpr std::string_view kWrongPassword = "WRONGPASS invalid username-password pair or user is disabled.";
constexpr std::string_view kNoPassword =
    "ERR AUTH <password> called without any password configured for the default user. Are you sure your "
    "configuration "
    "is correct?";
constexpr std::string_view kHelloNeedsAuth =
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> "
    "<pass> option "
    "can be used to authenticate the client and select the RESP protocol version at the same time";
constexpr std::string_view kDefaultUser = "default";  // the only one

// PING [message]: PONG or the message; with subscriptions in RESP2 an array, as pushes have no mark of their
// own there.
void ping(Call& call) {
  if (call.argc() > 2) {
    call.wrong_arity();
    return;
  }
  const std::string_view message = call.argc() == 2 ? call.args[1] : std::string_view{};
  if (call.client.protocol == 2 && call.client.in_subscribed_mode()) {
    call.reply.array(2);
    call.reply.bulk("pong");
    call.reply.bulk(message);
  } else if (call.argc() == 1) {
    call.reply.simple("PONG");
  } else {
    call.reply.bulk(message);
  }
}

// ECHO message.
void echo(Call& call) { call.reply.bulk(call.args[1]); }

// QUIT: OK, then the end of the connection.
void quit(Call& call) {
  call.reply.ok();
  call.client.close_after_reply = true;
}

void set_protocol(Call& call, int version) {
  call.client.protocol = version;
  call.client.shown_protocol.store(version, std::memory_order_relaxed);
  call.reply.set_protocol(version);
}

void unsubscribe_all(Client& client) {
  for (const ChannelKind kind :
       {ChannelKind::channel, ChannelKind::pattern, ChannelKind::shard, ChannelKind::monitor}) {
    const auto& names = client.subscriptions(kind);
    for (const std::string& name : std::vector<std::string>(names.begin(), names.end()))
      client.unsubscribe(kind, name);
  }
  client.monitors.store(false, std::memory_order_relaxed);
}

// RESET: everything as on a new connection, without confirmations for the subscriptions that end. What stays
// is what CLIENT NO-EVICT and NO-TOUCH said.
void reset(Call& call) {
  Client& client = call.client;
  discard_transaction(call);
  unsubscribe_all(client);
  client.db.store(0, std::memory_order_relaxed);
  client.authenticated = !call.services.settings.has_password();
  client.reply_mode = ReplyMode::on;
  set_client_name(call, {});
  set_protocol(call, 2);
  call.reply.simple("RESET");
}

// Without a configured password every password will do, as for Redis's `nopass`.
bool authenticate(Call& call, std::string_view user, std::string_view password) {
  const Settings& settings = call.services.settings;
  const bool right =
      user == kDefaultUser && (!settings.has_password() || equal_secrets(password, settings.password()));
  if (right) {
    call.client.authenticated = true;
  } else {
    call.services.stats.auth_failures.fetch_add(1, std::memory_order_relaxed);
    call.reply.error(kWrongPassword);
  }
  return right;
}

// AUTH [user] password.
void auth(Call& call) {
  if (call.argc() > 3) {
    call.reply.error(error::kSyntax);
    return;
  }
  if (call.argc() == 2 && !call.services.settings.has_password()) {
    call.reply.error(kNoPassword);
    return;
  }
  if (authenticate(call, call.argc() == 2 ? kDefaultUser : call.args[1], call.args.back())) call.reply.ok();
}

void describe_server(Call& call) {
  call.reply.map(7);
  call.reply.bulk("server");
  call.reply.bulk("redis");
  call.reply.bulk("version");
  call.reply.bulk(kRedisVersion);
  call.reply.bulk("proto");
  call.reply.integer(call.client.protocol);
  call.reply.bulk("id");
  call.reply.integer(static_cast<std::int64_t>(call.client.id));
  call.reply.bulk("mode");
  call.reply.bulk("standalone");
  call.reply.bulk("role");
  call.reply.bulk("master");
  call.reply.bulk("modules");
  call.reply.array(0);
}

// The options of HELLO behind the version, each done when it is read. False if the error has been replied.
bool hello_options(Call& call) {
  for (std::size_t i = 2; i < call.argc(); ++i) {
    const std::size_t more = call.argc() - 1 - i;
    if (call.is(i, "auth") && more >= 2) {
      if (!authenticate(call, call.args[i + 1], call.args[i + 2])) return false;
      i += 2;
    } else if (call.is(i, "setname") && more >= 1) {
      if (!set_client_name(call, call.args[++i])) return false;
    } else {
      std::string text = "ERR Syntax error in HELLO option '";
      call.reply.error(text.append(call.args[i]).append("'"));
      return false;
    }
  }
  return true;
}

// HELLO [version [AUTH user password] [SETNAME name]]: a map that describes the server.
void hello(Call& call) {
  int version = 0;
  if (call.argc() > 1) {
    const auto number = call.integer(1, "ERR Protocol version is not an integer or out of range");
    if (!number) return;
    if (*number < 2 || *number > 3) {
      call.reply.error("NOPROTO unsupported protocol version");
      return;
    }
    version = static_cast<int>(*number);
  }
  if (!hello_options(call)) return;
  if (!call.client.authenticated) {
    call.reply.error(kHelloNeedsAuth);
    return;
  }
  if (version != 0) set_protocol(call, version);
  describe_server(call);
}

// SELECT index.
void select(Call& call) {
  const auto index = database_argument(call, 1);
  if (!index) return;
  call.client.db.store(*index, std::memory_order_relaxed);
  call.reply.ok();
}

}  // namespace

bool equal_secrets(std::string_view a, std::string_view b) {
  unsigned difference = a.size() == b.size() ? 0 : 1;
  const std::size_t length = std::min(a.size(), b.size());
  for (std::size_t i = 0; i < length; ++i) {
    // volatile, or the compiler may stop at the first difference.
    const volatile unsigned byte = static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
    difference |= byte;
  }
  return difference == 0;
}

bool is_client_attribute(std::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= '!' && c <= '~'; });
}

bool set_client_name(Call& call, std::string_view name) {
  if (!is_client_attribute(name)) {
    call.reply.error("ERR Client names cannot contain spaces, newlines or special characters.");
    return false;
  }
  call.services.clients.update([&] { call.client.name = name; });
  return true;
}

std::span<const Command> connection_commands() {
  constexpr std::uint32_t kAnytime = kNoscript | kLoading | kStale | kFast | kNoAuth | kAllowBusy;
  constexpr std::string_view kGroup = "connection";
  static const Command commands[] = {
      {"auth", auth, -2, kAnytime, 0, 0, 0, kCatConnection, kGroup, "1.0.0",
       "O(N) where N is the number of passwords defined for the user", "Gives the password"},
      {"client", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "2.4.0", "Depends on subcommand.",
       "Everything about connections", client_subcommands()},
      {"echo", echo, 2, kLoading | kStale | kFast, 0, 0, 0, kCatConnection, kGroup, "1.0.0", "O(1)",
       "Answers its argument"},
      {"hello", hello, -1, kAnytime, 0, 0, 0, kCatConnection, kGroup, "6.0.0", "O(1)",
       "Chooses the protocol version, and answers what server this is"},
      {"ping", ping, -1, kFast | kWhenSubscribed, 0, 0, 0, kCatConnection, kGroup, "1.0.0", "O(1)",
       "Answers PONG, or the message it was given"},
      {"quit", quit, -1, kAnytime | kInMulti | kWhenSubscribed, 0, 0, 0, kCatConnection, kGroup, "1.0.0",
       "O(1)", "Closes the connection after what is still to be replied"},
      {"reset", reset, 1, kAnytime | kInMulti | kWhenSubscribed, 0, 0, 0, kCatConnection, kGroup, "6.2.0",
       "O(1)", "Puts the connection into the state of a new one"},
      {"select", select, 2, kLoading | kStale | kFast, 0, 0, 0, kCatConnection, kGroup, "1.0.0", "O(1)",
       "Chooses the database of the connection"},
  };
  return commands;
}

}  // namespace isthmus
