// SUBSCRIBE and its family, PUBLISH, PUBSUB (https://redis.io/docs/latest/develop/interact/pubsub/).
#include <algorithm>

#include "src/command/call.hpp"
#include "src/pubsub/glob.hpp"

namespace isthmus {
namespace {

struct Words {
  ChannelKind kind;
  std::string_view subscribe, unsubscribe;
};
constexpr Words kChannelWords{ChannelKind::channel, "subscribe", "unsubscribe"};
constexpr Words kPatternWords{ChannelKind::pattern, "psubscribe", "punsubscribe"};
constexpr Words kShardWords{ChannelKind::shard, "ssubscribe", "sunsubscribe"};

std::int64_t shown_count(const Client& client, ChannelKind kind) {
  return static_cast<std::int64_t>(kind == ChannelKind::shard ? client.shard_subscription_count()
                                                              : client.subscription_count());
}

// One push a name; a repeated name is answered again.
void subscribe_to(Call& call, const Words& words) {
  for (std::size_t i = 1; i < call.argc(); ++i) {
    call.client.subscribe(words.kind, call.args[i]);
    call.reply.push(3);
    call.reply.bulk(words.subscribe);
    call.reply.bulk(call.args[i]);
    call.reply.integer(shown_count(call.client, words.kind));
  }
}

void confirm_unsubscribe(Call& call, const Words& words, const std::string_view* name) {
  call.reply.push(3);
  call.reply.bulk(words.unsubscribe);
  if (name == nullptr) {
    call.reply.null();
  } else {
    call.reply.bulk(*name);
  }
  call.reply.integer(shown_count(call.client, words.kind));
}

// What is not subscribed is confirmed all the same; without names, everything of the kind.
void unsubscribe_from(Call& call, const Words& words) {
  for (std::size_t i = 1; i < call.argc(); ++i) {
    call.client.unsubscribe(words.kind, call.args[i]);
    confirm_unsubscribe(call, words, &call.args[i]);
  }
  if (call.argc() > 1) return;
  const auto& names = call.client.subscriptions(words.kind);
  if (names.empty()) confirm_unsubscribe(call, words, nullptr);
  const std::vector<std::string> all(names.begin(), names.end());
  for (const std::string& name : all) {
    const std::string_view view = name;
    call.client.unsubscribe(words.kind, name);
    confirm_unsubscribe(call, words, &view);
  }
}

void subscribe(Call& call) { subscribe_to(call, kChannelWords); }
void psubscribe(Call& call) { subscribe_to(call, kPatternWords); }
// Unlike its kin it is no part of a transaction in Redis.
void ssubscribe(Call& call) {
  if (call.client.in_exec) {
    call.reply.error("ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client");
    return;
  }
  subscribe_to(call, kShardWords);
}
void unsubscribe(Call& call) { unsubscribe_from(call, kChannelWords); }
void punsubscribe(Call& call) { unsubscribe_from(call, kPatternWords); }
void sunsubscribe(Call& call) { unsubscribe_from(call, kShardWords); }

std::size_t send(PubSub& pubsub, bool shard, std::string_view channel, std::string_view payload) {
  return shard ? pubsub.publish_to_shard(channel, payload) : pubsub.publish(channel, payload);
}

}  // namespace

bool is_stale(const Services& services, std::int64_t sent_at_ms) {
  if (services.site->database_now_ms() - sent_at_ms <= services.config.message_max_age_ms) return false;
  services.site->stats().stale_messages.fetch_add(1, std::memory_order_relaxed);
  return true;
}

namespace {

// Inside an EXEC of the writer a message is one of its effects: it goes into the log and out with them, or
// not at all.
void publish_with_effects(Call& call, backend::Row& row, std::size_t receivers) {
  Services& services = call.services;
  call.evaluation().raise_gate(call.evaluation().group().add(row, call.now_ms(), 0));
  if (receivers == 0) return;
  call.evaluation().group().after_commit([&services, sent_at = row.sent_at,
                                          shard = row.kind == backend::RowKind::spublish,
                                          channel = std::string(row.key), payload = std::string(row.value)] {
    if (!is_stale(services, sent_at)) send(services.pubsub, shard, channel, payload);
  });
}

// Other servers read the log, so the message goes into it, and its reply waits for the commit unless
// --publish-ack says otherwise. The subscribers of this server get it at once, or behind the uncommitted
// writes of the same connection.
void publish_to_all(Call& call, bool shard) {
  Services& services = call.services;
  if (!call.fits(call.args[1].size() + call.args[2].size())) return;
  const std::size_t receivers = services.pubsub.receivers(shard, call.args[1]);
  const bool available = services.journal.available();
  const std::size_t elsewhere = available ? services.pubsub.others().receivers(shard, call.args[1]) : 0;
  call.reply.integer(static_cast<std::int64_t>(receivers + elsewhere));
  backend::Row row;
  row.kind = shard ? backend::RowKind::spublish : backend::RowKind::publish;
  row.key = call.args[1];
  row.value = call.args[2];
  row.sent_at = call.now_ms() + services.site->clock_offset_ms();
  if (call.client.in_exec && services.site->is_writer()) {
    publish_with_effects(call, row, receivers);
    return;
  }
  const backend::Seq gate = std::max(call.client.last_gate, call.evaluation().gate());
  const bool waits = gate > services.journal.committed() && available;
  backend::Seq place = 0;
  if (available || services.journal.backlog_bytes() < Journal::kBacklogLimitBytes / 2) {
    place = call.evaluation().group().add_message(row);
  } else {
    services.site->stats().dropped_messages.fetch_add(1, std::memory_order_relaxed);
  }
  if (available && (waits || !services.config.publish_ack_accept)) call.evaluation().raise_gate(place);
  call.client.last_message = std::max(call.client.last_message, place);
  if (receivers == 0) return;
  if (!waits) {
    send(services.pubsub, shard, call.args[1], call.args[2]);
    return;
  }
  call.evaluation().group().after_commit(
      [&pubsub = services.pubsub, shard, channel = std::string(call.args[1]),
       payload = std::string(call.args[2])] { send(pubsub, shard, channel, payload); },
      Journal::Deferral::message);
}

// On a log that nobody else reads a message needs no commit. Behind an uncommitted write of the same
// connection, or inside a transaction that writes, it waits for that commit, so that a connection's effects
// are seen in its order; not while the backend is down: then local pub/sub goes on.
void publish_message(Call& call, bool shard) {
  Services& services = call.services;
  services.stats.published_messages.fetch_add(1, std::memory_order_relaxed);
  if (services.site != nullptr) {
    publish_to_all(call, shard);
    return;
  }
  const backend::Seq gate = std::max(call.client.last_gate, call.evaluation().gate());
  const bool waits =
      services.journal.durable() && gate > services.journal.committed() && services.journal.available();
  if (!waits) {
    call.reply.integer(static_cast<std::int64_t>(send(services.pubsub, shard, call.args[1], call.args[2])));
    return;
  }
  const std::size_t receivers = services.pubsub.receivers(shard, call.args[1]);
  if (receivers != 0) {
    call.evaluation().group().after_commit(
        [&pubsub = services.pubsub, shard, channel = std::string(call.args[1]),
         payload = std::string(call.args[2])] { send(pubsub, shard, channel, payload); },
        Journal::Deferral::message);
  }
  call.evaluation().raise_gate(gate);
  call.reply.integer(static_cast<std::int64_t>(receivers));
}

// PUBLISH channel message, SPUBLISH shardchannel message → number of receivers on all live servers.
void publish(Call& call) { publish_message(call, false); }
void spublish(Call& call) { publish_message(call, true); }

// Names with subscribers at any server, each once.
std::vector<std::string> names_everywhere(const PubSub& pubsub, ChannelKind kind,
                                          std::optional<std::string_view> pattern) {
  std::vector<std::string> names = pubsub.channels(kind, pattern);
  if (pubsub.others().empty()) return names;
  pubsub.others().for_each_name(kind, [&](std::string_view name) {
    if (!pattern || glob_match(*pattern, name)) names.emplace_back(name);
  });
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

void reply_names(Call& call, ChannelKind kind) {
  if (call.argc() > 3) {
    call.reply.error("ERR unknown subcommand or wrong number of arguments for '" + std::string(call.args[1]) +
                     "'. Try PUBSUB HELP.");
    return;
  }
  const auto names = names_everywhere(call.services.pubsub, kind,
                                      call.argc() > 2 ? std::optional(call.args[2]) : std::nullopt);
  call.reply.array(names.size());
  for (const std::string& name : names) call.reply.bulk(name);
}

void reply_counts(Call& call, ChannelKind kind) {
  call.reply.array((call.argc() - 2) * 2);
  for (std::size_t i = 2; i < call.argc(); ++i) {
    call.reply.bulk(call.args[i]);
    const PubSub& pubsub = call.services.pubsub;
    call.reply.integer(static_cast<std::int64_t>(pubsub.subscribers(kind, call.args[i]) +
                                                 pubsub.others().subscribers(kind, call.args[i])));
  }
}

void pubsub_channels(Call& call) { reply_names(call, ChannelKind::channel); }
void pubsub_shardchannels(Call& call) { reply_names(call, ChannelKind::shard); }
void pubsub_numsub(Call& call) { reply_counts(call, ChannelKind::channel); }
void pubsub_shardnumsub(Call& call) { reply_counts(call, ChannelKind::shard); }
void pubsub_numpat(Call& call) {
  const PubSub& pubsub = call.services.pubsub;
  const bool alone = pubsub.others().empty();
  call.reply.integer(static_cast<std::int64_t>(
      alone ? pubsub.patterns() : names_everywhere(pubsub, ChannelKind::pattern, std::nullopt).size()));
}
void pubsub_help(Call& call) {
  constexpr std::string_view kLines[] = {
      "PUBSUB <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
      "CHANNELS [<pattern>]",
      "    Lists the channels that somebody is subscribed to (all of them, or those that match).",
      "NUMPAT",
      "    Tells how many patterns are subscribed to.",
      "NUMSUB [<channel> ...]",
      "    Tells for each channel how many are subscribed to it, patterns left out.",
      "SHARDCHANNELS [<pattern>]",
      "    Lists the shard channels that somebody is subscribed to.",
      "SHARDNUMSUB [<shardchannel> ...]",
      "    Tells for each shard channel how many are subscribed to it.",
      "HELP",
      "    Prints this help."};
  call.reply.array(std::size(kLines));
  for (const std::string_view line : kLines) call.reply.simple(line);
}

constexpr std::string_view kGroup = "pubsub";
constexpr std::uint32_t kSubscribing = kPubsub | kNoscript | kLoading | kStale | kWhenSubscribed;
constexpr std::uint32_t kAsking = kPubsub | kLoading | kStale;

constexpr Command kPubsubSubcommands[] = {
    {"pubsub|channels", pubsub_channels, -2, kAsking, 0, 0, 0, 0, kGroup, "2.8.0",
     "O(N) with N the number of channels", "Lists channels with subscribers"},
    {"pubsub|help", pubsub_help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "6.2.0", "O(1)", "Prints help"},
    {"pubsub|numpat", pubsub_numpat, 2, kAsking, 0, 0, 0, 0, kGroup, "2.8.0", "O(1)",
     "Counts subscribed patterns"},
    {"pubsub|numsub", pubsub_numsub, -2, kAsking, 0, 0, 0, 0, kGroup, "2.8.0",
     "O(N) with N the channels asked for", "Counts the subscribers of channels"},
    {"pubsub|shardchannels", pubsub_shardchannels, -2, kAsking, 0, 0, 0, 0, kGroup, "7.0.0",
     "O(N) with N the number of shard channels", "Lists shard channels with subscribers"},
    {"pubsub|shardnumsub", pubsub_shardnumsub, -2, kAsking, 0, 0, 0, 0, kGroup, "7.0.0",
     "O(N) with N the channels asked for", "Counts the subscribers of shard channels"},
};

constexpr Command kCommands[] = {
    {"psubscribe", psubscribe, -2, kSubscribing, 0, 0, 0, 0, kGroup, "2.0.0",
     "O(N) with N the patterns of this client", "Listens to all channels that match patterns"},
    {"publish", publish, 3, kPubsub | kLoading | kStale | kFast | kMayReplicate, 0, 0, 0, 0, kGroup, "2.0.0",
     "O(N+M) with N the channel's subscribers and M all patterns", "Sends a message to a channel"},
    {"pubsub", nullptr, -2, 0, 0, 0, 0, 0, kGroup, "2.8.0", "Depends on the subcommand",
     "Holds the commands that tell about subscriptions", kPubsubSubcommands},
    {"punsubscribe", punsubscribe, -1, kSubscribing, 0, 0, 0, 0, kGroup, "2.0.0",
     "O(N) with N the patterns given", "Stops listening to patterns"},
    {"spublish", spublish, 3, kPubsub | kLoading | kStale | kFast | kMayReplicate, 1, 1, 1, 0, kGroup,
     "7.0.0", "O(N) with N the channel's subscribers", "Sends a message to a shard channel"},
    {"ssubscribe", ssubscribe, -2, kSubscribing, 1, -1, 1, 0, kGroup, "7.0.0",
     "O(N) with N the channels given", "Listens to shard channels"},
    {"subscribe", subscribe, -2, kSubscribing, 0, 0, 0, 0, kGroup, "2.0.0", "O(N) with N the channels given",
     "Listens to channels"},
    {"sunsubscribe", sunsubscribe, -1, kSubscribing, 1, -1, 1, 0, kGroup, "7.0.0",
     "O(N) with N the channels given", "Stops listening to shard channels"},
    {"unsubscribe", unsubscribe, -1, kSubscribing, 0, 0, 0, 0, kGroup, "2.0.0",
     "O(N) with N the channels given", "Stops listening to channels"},
};

}  // namespace

std::span<const Command> pubsub_commands() { return kCommands; }

}  // namespace isthmus
