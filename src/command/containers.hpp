// The subcommand tables of the connection and server groups, each in the file of its command.
#pragma once

#include <span>

#include "src/command/command.hpp"

namespace isthmus {

std::span<const Command> client_subcommands();
std::span<const Command> command_subcommands();
std::span<const Command> config_subcommands();
std::span<const Command> slowlog_subcommands();
std::span<const Command> latency_subcommands();
std::span<const Command> memory_subcommands();
std::span<const Command> cluster_subcommands();
std::span<const Command> acl_subcommands();
std::span<const Command> module_subcommands();

/// What belongs to Redis Cluster, of which this is none.
void cluster_disabled(Call& call);
/// COMMAND without a subcommand.
void describe_all_commands(Call& call);
/// DEBUG, which finds its subcommands itself, as in Redis.
void debug(Call& call);

}  // namespace isthmus
