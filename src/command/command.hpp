// One row of the command table: what a command is called, takes, locks and may do.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace isthmus {

class Call;

/// Evaluates one command whose arity, flags and locks have been seen to. Replies exactly once.
using Handler = void (*)(Call&);

/// Redis's command flags (https://redis.io/docs/latest/commands/command/), and what our dispatcher needs
/// besides.
enum CommandFlag : std::uint32_t {
  kWrite = 1 << 0,
  kReadonly = 1 << 1,
  kDenyOom = 1 << 2,
  kAdmin = 1 << 3,
  kPubsub = 1 << 4,
  kNoscript = 1 << 5,
  kLoading = 1 << 6,
  kStale = 1 << 7,
  kSkipMonitor = 1 << 8,
  kSkipSlowlog = 1 << 9,
  kFast = 1 << 10,
  kNoAuth = 1 << 11,
  kNoMulti = 1 << 12,
  kMovableKeys = 1 << 13,
  kAllowBusy = 1 << 14,
  kBlocking = 1 << 15,
  kNoAsyncLoading = 1 << 16,
  kMayReplicate = 1 << 17,
  kNoMandatoryKeys = 1 << 18,
  kTouchesArbitraryKeys = 1 << 19,
  kProtected = 1 << 20,
  // Ours:
  kAllShards = 1 << 24,       ///< evaluated with every shard locked
  kWalksShards = 1 << 27,     ///< locks shards one at a time through Call::with_shard; EXEC locks all for it
  kOwnLocks = 1 << 28,        ///< locks what it needs itself (EXEC)
  kInMulti = 1 << 25,         ///< evaluated at once inside MULTI instead of queued
  kWhenSubscribed = 1 << 26,  ///< allowed on a RESP2 connection with subscriptions
  kInternal = 1 << 29,        ///< between servers: COMMAND neither lists nor counts it
  kForwarded = 1 << 30,       ///< carries a command of another server's client, which is evaluated instead
  kCountedKeys = 1U << 31,    ///< args[1] says how many keys follow (SINTERCARD)
};

/// ACL categories as COMMAND INFO lists them, beyond those that follow from the flags.
enum CommandCategory : std::uint32_t {
  kCatKeyspace = 1 << 0,
  kCatString = 1 << 1,
  kCatHash = 1 << 2,
  kCatPubsub = 1 << 3,
  kCatTransaction = 1 << 4,
  kCatConnection = 1 << 5,
  kCatDangerous = 1 << 6,
  kCatAdmin = 1 << 7,  ///< without the flag (LASTSAVE, ROLE)
  kCatSet = 1 << 8,
};

struct Command {
  std::string_view name;  ///< lower case; a subcommand as "client|list"
  Handler handler = nullptr;
  int arity = 0;  ///< with the name; negative: at least so many
  std::uint32_t flags = 0;
  int first_key = 0, last_key = 0, key_step = 0;  ///< as in COMMAND INFO
  std::uint32_t categories = 0;
  std::string_view group;       ///< as COMMAND DOCS names it: string, hash, generic, …
  std::string_view since;       ///< the Redis version that brought it
  std::string_view complexity;  ///< as COMMAND DOCS has it
  std::string_view summary;     ///< one short sentence of ours for COMMAND DOCS
  std::span<const Command> subcommands = {};

  bool has(std::uint32_t flag) const { return (flags & flag) != 0; }
};

/// The groups, each in a file of its own, or two.
std::span<const Command> string_commands();
std::span<const Command> hash_commands();
std::span<const Command> set_commands();
std::span<const Command> set_algebra_commands();
std::span<const Command> dump_commands();
std::span<const Command> key_commands();
std::span<const Command> pubsub_commands();
std::span<const Command> transaction_commands();
std::span<const Command> connection_commands();
std::span<const Command> server_commands();
std::span<const Command> forwarding_commands();

/// The keys of a command with kCountedKeys: the arguments behind their number. Nothing if that is no number,
/// is below 1, or more than there are arguments.
std::optional<std::span<const std::string_view>> counted_keys(std::span<const std::string_view> args);

/// The command of that name in any letter case, or null. Containers only, not their subcommands.
const Command* find_command(std::string_view name);
/// The subcommand of a container by its own name ("list") in any letter case, or null.
const Command* find_subcommand(const Command& container, std::string_view name);
/// All commands but internal ones, containers once, by name.
const std::vector<const Command*>& all_commands();
/// A dense number for statistics: commands and subcommands, 0 … command_count() - 1.
std::size_t command_index(const Command& command);
std::size_t command_count();
const Command& command_at(std::size_t index);

}  // namespace isthmus
