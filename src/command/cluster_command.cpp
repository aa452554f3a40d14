// CLUSTER, which this server is not: every subcommand is refused in Redis's words.
#include "src/command/call.hpp"
#include "src/command/containers.hpp"

namespace isthmus {
namespace {

constexpr std::uint32_t kChange = kAdmin | kStale | kNoAsyncLoading;

constexpr auto disabled = cluster_disabled;

constexpr Command kSubcommands[] = {
    {"cluster|addslots", disabled, -3, kChange, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the total number of hash slot arguments", "Refused, as there is no Redis Cluster"},
    {"cluster|addslotsrange", disabled, -4, kChange, 0, 0, 0, 0, "cluster", "7.0.0",
     "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
     "Refused, as there is no Redis Cluster"},
    {"cluster|bumpepoch", disabled, 2, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|count-failure-reports", disabled, 3, kAdmin | kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the number of failure reports", "Refused, as there is no Redis Cluster"},
    {"cluster|countkeysinslot", disabled, 3, kStale, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|delslots", disabled, -3, kChange, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the total number of hash slot arguments", "Refused, as there is no Redis Cluster"},
    {"cluster|delslotsrange", disabled, -4, kChange, 0, 0, 0, 0, "cluster", "7.0.0",
     "O(N) where N is the total number of the slots between the start slot and end slot arguments.",
     "Refused, as there is no Redis Cluster"},
    {"cluster|failover", disabled, -2, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|flushslots", disabled, 2, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|forget", disabled, 3, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|getkeysinslot", disabled, 4, kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(log(N)) where N is the number of requested keys", "Refused, as there is no Redis Cluster"},
    {"cluster|help", disabled, 2, kLoading | kStale, 0, 0, 0, 0, "cluster", "5.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|info", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|keyslot", disabled, 3, kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the number of bytes in the key", "Refused, as there is no Redis Cluster"},
    {"cluster|links", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "7.0.0",
     "O(N) where N is the total number of Cluster nodes", "Refused, as there is no Redis Cluster"},
    {"cluster|meet", disabled, -4, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|myid", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|nodes", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the total number of Cluster nodes", "Refused, as there is no Redis Cluster"},
    {"cluster|replicas", disabled, 3, kAdmin | kStale, 0, 0, 0, 0, "cluster", "5.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|replicate", disabled, 3, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|reset", disabled, -2, kAdmin | kNoscript | kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the number of known nodes. The command may execute a FLUSHALL as a side effect.",
     "Refused, as there is no Redis Cluster"},
    {"cluster|saveconfig", disabled, 2, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|set-config-epoch", disabled, 3, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|setslot", disabled, -4, kChange, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|shards", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "7.0.0",
     "O(N) where N is the total number of cluster nodes", "Refused, as there is no Redis Cluster"},
    {"cluster|slaves", disabled, 3, kAdmin | kStale, 0, 0, 0, 0, "cluster", "3.0.0", "O(1)",
     "Refused, as there is no Redis Cluster"},
    {"cluster|slots", disabled, 2, kStale, 0, 0, 0, 0, "cluster", "3.0.0",
     "O(N) where N is the total number of Cluster nodes", "Refused, as there is no Redis Cluster"},
};

}  // namespace

// Any subcommand of CLUSTER; ASKING, READONLY, READWRITE.
void cluster_disabled(Call& call) { call.reply.error("ERR This instance has cluster support disabled"); }

std::span<const Command> cluster_subcommands() { return kSubcommands; }

}  // namespace isthmus
