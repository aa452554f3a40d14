// ISTHMUS HELLO, ISTHMUS FORWARD: between the servers of a site.
#include "src/command/forwarded.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>
#include <utility>
#include <vector>

#include "src/command/connection.hpp"
#include "src/command/sites.hpp"
#include "src/site/forwarder.hpp"
#include "src/site/site.hpp"

namespace isthmus {
namespace {

constexpr std::string_view kNotWriter = "NOTWRITER This server cannot write for its site now";
constexpr std::string_view kMalformed = "ERR Malformed request between servers";
constexpr std::string_view kOldConnection = "ERR A newer connection of this server is known";
constexpr std::string_view kUnknownHere =
    "-ERR The writer of this site does not know the command; is it of another version?\r\n";
// A sender whose feed is ahead of ours: so long we wait before we evaluate its command all the same.
constexpr std::int64_t kFeedPatienceMs = 1000;
// An answer is a bulk string, and Redis's are no longer.
constexpr std::size_t kReplyLimitBytes = std::size_t{512} << 20;
constexpr std::string_view kReplyTooLarge =
    "-ERR The command was done, but a reply over 512 MiB cannot come from another server\r\n";

void put_number(resp::Writer& out, std::uint64_t number) { out.bulk(std::to_string(number)); }

// Reads the words of a request between servers. After a word that is not what it should be, `ok` stays false.
class Words {
 public:
  explicit Words(std::span<const std::string_view> words) : words_(words) {}
  std::string_view text() {
    if (words_.empty()) ok = false;
    if (!ok) return {};
    const std::string_view word = words_.front();
    words_ = words_.subspan(1);
    return word;
  }
  template <class Number>
  Number number() {
    const std::string_view word = text();
    Number value{};
    const auto [end, problem] = std::from_chars(word.data(), word.data() + word.size(), value);
    ok &= problem == std::errc{} && end == word.data() + word.size();
    return value;
  }
  std::uint8_t db() {
    const auto value = number<std::uint8_t>();
    ok &= value < kDatabaseCount;
    return value;
  }
  std::span<const std::string_view> take(std::size_t count) {
    ok &= count <= words_.size();
    if (!ok) return {};
    const auto taken = words_.first(count);
    words_ = words_.subspan(count);
    return taken;
  }
  std::size_t left() const { return words_.size(); }
  bool ok = true;

 private:
  std::span<const std::string_view> words_;
};

const Command* look_up(std::span<const std::string_view> args) {
  if (args.empty()) return nullptr;
  const Command* command = find_command(args[0]);
  if (command == nullptr || command->subcommands.empty() || args.size() < 2) return command;
  return find_subcommand(*command, args[1]);
}

// "EXEC watched {db key version deadline} commands {words word …}": the proxy gets the queue and the watches.
// `known` becomes false if one of the commands cannot be evaluated here: the sender is of another version.
void read_exec(Words& words, ProxyClient& proxy, bool& known) {
  words.text();
  for (auto count = words.number<std::size_t>(); words.ok && count > 0; --count) {
    WatchedKey watched{};
    watched.db = words.db();
    watched.name = words.text();
    watched.fingerprint.version = words.number<backend::Version>();
    watched.fingerprint.deadline_ms = words.number<std::int64_t>();
    proxy.watched.push_back(std::move(watched));
  }
  for (auto count = words.number<std::size_t>(); words.ok && count > 0; --count) {
    const auto args = words.take(words.number<std::size_t>());
    const Command* command = look_up(args);
    known &= command != nullptr && can_be_forwarded(*command);
    proxy.queue.push_back({command, {args.begin(), args.end()}});
  }
  proxy.in_multi = true;
  words.ok &= words.left() == 0;
}

// What a command of the sender must find, and nothing of the one before it.
void reset(ProxyClient& proxy, std::uint8_t db, int protocol) {
  proxy.db.store(db, std::memory_order_relaxed);
  proxy.protocol = protocol;
  proxy.in_multi = proxy.multi_failed = proxy.in_exec = proxy.must_forward = false;
  proxy.queue.clear();
  proxy.queue_bytes = 0;
  proxy.watched.clear();
}

Outcome refuse(Services& services, Client& connection, resp::Writer& reply, std::string_view text) {
  reply.error(text);
  services.stats.count_error(text);
  connection.close_after_reply = true;
  return {};
}

// A `db` of -1: as before.
void put_answer(resp::Writer& reply, const ForwardedCommand& forwarded, int db, std::string_view answer) {
  reply.array(4);
  reply.integer(forwarded.lease);
  reply.integer(static_cast<std::int64_t>(forwarded.seq));
  reply.integer(db);
  reply.bulk(answer.size() > kReplyLimitBytes ? kReplyTooLarge : answer);
}

// A writer whose session broke may soon be no writer any more, or have a new session: the sender's clients
// wait for either, instead of getting an error.
bool can_write(const Services& services) {
  return services.site->is_writer() && services.journal.available();
}

// Whether the sender's client may have read what our feed has not brought yet. A feed that stays behind is
// waited for once, not for each command anew.
bool must_wait_for_feed(const Services& services, ForwardingPeer& peer, backend::Position position,
                        std::int64_t now_ms) {
  const backend::Position feed = services.site->feed_position();
  if (feed >= peer.waits_for) peer.waits_since_ms = 0;
  if (feed >= position) return false;
  if (peer.waits_since_ms == 0) {
    peer.waits_since_ms = now_ms;
    peer.waits_for = position;
  }
  return now_ms - peer.waits_since_ms < kFeedPatienceMs;
}

// ISTHMUS HELLO secret server epoch: [lease, seq], when everything that was evaluated for older connections
// of that server is in the log up to there.
void hello(Call& call) {
  Services& services = call.services;
  const auto server = parse_integer(call.args[3]);
  const auto epoch = parse_integer(call.args[4]);
  const auto fail = [&](std::string_view text) {
    call.reply.error(text);
    call.client.close_after_reply = true;
  };
  if (services.site == nullptr || services.forwarder == nullptr) {
    fail("ERR This server shares its log with nobody");
    return;
  }
  const std::string secret = services.site->log().secret();
  if (secret.empty() || !equal_secrets(call.args[2], secret)) {
    services.stats.auth_failures.fetch_add(1, std::memory_order_relaxed);
    fail("WRONGPASS The secret is not that of this site");
    return;
  }
  if (!server || !epoch || *epoch < 1 || call.client.peer != nullptr) {
    fail(kMalformed);
    return;
  }
  auto peer = std::make_shared<ForwardingPeer>();
  peer->server = *server;
  peer->epoch = static_cast<std::uint64_t>(*epoch);
  peer->requester = services.forwarder->requesters().find(*server);
  peer->proxy.authenticated = true;
  peer->proxy.address = call.client.address;
  peer->proxy.thread.store(call.client.thread);
  const std::lock_guard lock(peer->requester->mutex);
  if (!can_write(services)) {
    fail(kNotWriter);
    return;
  }
  if (peer->epoch <= peer->requester->epoch) {
    fail(kOldConnection);
    return;
  }
  peer->requester->epoch = peer->epoch;
  const Journal::LeaseStamp stamp = services.journal.lease_stamp();
  call.evaluation().touch_all();
  call.client.authenticated = true;
  call.client.peer = std::move(peer);
  set_client_name(call, "server:" + std::to_string(*server));
  call.reply.array(2);
  call.reply.integer(stamp.lease);
  call.reply.integer(static_cast<std::int64_t>(stamp.seq));
}

// The dispatcher takes these to evaluate_forwarded.
void forward(Call& call) { call.reply.error(kMalformed); }

constexpr std::string_view kGroup = "server";
constexpr std::uint32_t kBetween =
    kAdmin | kNoscript | kLoading | kStale | kNoMulti | kSkipMonitor | kSkipSlowlog | kInternal;

constexpr Command kSubcommands[] = {
    {"isthmus|forward", forward, -7, kBetween | kForwarded, 0, 0, 0, 0, kGroup, "7.0.0",
     "That of the command it carries", "Evaluates a command of another server's client"},
    {"isthmus|hello", hello, 5, kBetween | kNoAuth, 0, 0, 0, 0, kGroup, "7.0.0", "O(1)",
     "Makes this the connection over which another server forwards commands"},
    {"isthmus|help", isthmus_help, 2, kLoading | kStale | kInternal, 0, 0, 0, 0, kGroup, "7.0.0", "O(1)",
     "Lists the subcommands"},
    {"isthmus|peer", isthmus_peer, 4, kAdmin | kNoscript | kNoMulti | kInternal, 0, 0, 0, 0, kGroup, "7.0.0",
     "O(1)", "Forgets a linked site"},
    {"isthmus|sites", isthmus_sites, 2, kNoscript | kInternal, 0, 0, 0, 0, kGroup, "7.0.0",
     "O(N) where N is the number of linked sites", "Tells how the links to other sites are"},
};

constexpr Command kCommands[] = {
    {"isthmus", nullptr, -2, kInternal, 0, 0, 0, 0, kGroup, "7.0.0", "Depends on subcommand.",
     "What servers of a site say to each other", kSubcommands},
};

}  // namespace

KeyFingerprint fingerprint(Keyspace& keyspace, const Key& key, std::int64_t now_ms) {
  const Node* node = keyspace.find(key, now_ms);
  if (node == nullptr) return {};
  // Counting leaves the register of the key as it is.
  const Version version = node->counted ? keyspace.highest_version(key, node) : node->version;
  return {version, node->deadline()};
}

bool can_be_forwarded(const Command& command) {
  if (command.has(kWrite | kReadonly)) return true;
  // COMMAND and its subcommands say the same on every server of a version.
  if (command.name == "command" || command.name.starts_with("command|")) return true;
  constexpr std::array<std::string_view, 7> kHarmless{"echo",     "ping", "publish", "select",
                                                      "spublish", "time", "unwatch"};
  return std::find(kHarmless.begin(), kHarmless.end(), command.name) != kHarmless.end();
}

ForwardRequest forward_request(const Services& services, const Client& client,
                               std::span<const std::string_view> args) {
  ForwardRequest request;
  request.db = client.db.load(std::memory_order_relaxed);
  request.protocol = client.protocol;
  request.position = services.site->foreign_position();
  resp::Writer out(request.args);
  request.argc = args.size();
  for (const std::string_view arg : args) out.bulk(arg);
  if (!client.in_multi) return request;
  put_number(out, client.watched.size());
  for (const WatchedKey& watched : client.watched) {
    put_number(out, watched.db);
    out.bulk(watched.name);
    put_number(out, watched.fingerprint.version);
    out.bulk(std::to_string(watched.fingerprint.deadline_ms));
  }
  put_number(out, client.queue.size());
  request.argc += 2 + 4 * client.watched.size();
  for (const QueuedCommand& queued : client.queue) {
    put_number(out, queued.args.size());
    for (const std::string& arg : queued.args) out.bulk(arg);
    request.argc += 1 + queued.args.size();
  }
  return request;
}

Outcome evaluate_forwarded(Services& services, Client& connection, std::span<const std::string_view> args,
                           resp::Writer& reply, std::int64_t now_ms) {
  if (connection.peer == nullptr || services.site == nullptr) {
    return refuse(services, connection, reply, "NOAUTH ISTHMUS HELLO comes first");
  }
  ForwardingPeer& peer = *connection.peer;
  Words words(args.subspan(2));
  ForwardedCommand forwarded{.requester = peer.server, .number = words.number<std::uint64_t>()};
  forwarded.db = words.db();
  const int protocol = words.number<int>();
  const auto position = words.number<backend::Position>();
  if (!words.ok) return refuse(services, connection, reply, kMalformed);
  if (!can_write(services)) return refuse(services, connection, reply, kNotWriter);
  if (must_wait_for_feed(services, peer, position, now_ms)) return {.postponed = true};

  std::span<const std::string_view> command_args = args.subspan(6);
  const Command* command = look_up(command_args);
  bool known = command != nullptr && (command->has(kWrite) || command->name == "exec");
  reset(peer.proxy, forwarded.db, protocol);
  if (known && command->name == "exec") {
    read_exec(words, peer.proxy, known);
    if (!words.ok) return refuse(services, connection, reply, kMalformed);
    command_args = command_args.first(1);
  }
  if (!known) {
    put_answer(reply, forwarded, -1, kUnknownHere);
    return {};
  }

  const std::lock_guard lock(peer.requester->mutex);
  if (peer.requester->epoch != peer.epoch) return refuse(services, connection, reply, kOldConnection);
  std::string answer;
  resp::Writer inner(answer, protocol);
  peer.proxy.forwarded = &forwarded;
  const Outcome outcome = dispatch(services, peer.proxy, command_args, inner, now_ms);
  peer.proxy.forwarded = nullptr;
  if (outcome.postponed) return outcome;
  if (outcome.forward) return refuse(services, connection, reply, kNotWriter);
  services.site->stats().served_commands.fetch_add(1, std::memory_order_relaxed);
  put_answer(reply, forwarded, peer.proxy.db.load(std::memory_order_relaxed), answer);
  return {.gate = outcome.gate};
}

std::string forwarded_error(std::string_view error) {
  std::string answer;
  resp::Writer out(answer);
  put_answer(out, {}, -1, error);
  return answer;
}

// The reply may show what others have done and not committed yet, so it depends on the lease's last row, not
// on the command's own; but one that says that the log takes no rows depends on none.
void note_forwarded_answer(Call& call, std::string_view reply) {
  if (reply.starts_with("-CLUSTERDOWN")) return;
  ForwardedCommand& forwarded = *call.client.forwarded;
  const std::uint8_t db = call.db();
  const auto changed = db == forwarded.db ? std::nullopt : std::optional(db);
  Journal::Group& group = call.evaluation().group();
  group.answer(forwarded.requester, forwarded.number, row_answer(changed, reply, Journal::kAnswerLimitBytes));
  group.close();
  const Journal::LeaseStamp stamp = call.services.journal.lease_stamp();
  forwarded.lease = stamp.lease;
  forwarded.seq = stamp.seq;
}

std::span<const Command> forwarding_commands() { return kCommands; }

}  // namespace isthmus
