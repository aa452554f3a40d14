// MEMORY and its subcommands (https://redis.io/docs/latest/commands/memory-usage/ and its neighbours).
#include <algorithm>
#include <string>

#include "src/command/containers.hpp"
#include "src/command/help.hpp"
#include "src/command/info.hpp"
#include "src/observe/allocator.hpp"

namespace isthmus {
namespace {

constexpr std::int64_t kDefaultSamples = 5;  // as Redis: fields of a hash that are looked at

// MEMORY USAGE key [SAMPLES n]: bytes of the key with its value and its place in the table, or null. Fields
// of a large hash are estimated from n of them, 0 = all. O(n).
void usage(Call& call) {
  std::int64_t samples = kDefaultSamples;
  for (std::size_t i = 3; i < call.argc(); i += 2) {
    if (!call.is(i, "samples") || i + 1 >= call.argc()) {
      call.reply.error(error::kSyntax);
      return;
    }
    const auto number = call.integer(i + 1);
    if (!number) return;
    if (*number < 0) {
      call.reply.error(error::kSyntax);
      return;
    }
    samples = *number;
  }
  const Node* node = call.find_for_write(call.key(2));
  if (node == nullptr) {
    call.reply.null();
    return;
  }
  const std::size_t bytes =
      allocated_bytes(node) + hash_bytes(*node, static_cast<std::size_t>(samples)) + sizeof(Node*);
  call.reply.integer(static_cast<std::int64_t>(bytes));
}

double ratio(std::uint64_t a, std::uint64_t b) {
  return b == 0 ? 0 : static_cast<double>(a) / static_cast<double>(b);
}

// What MEMORY STATS shows, read once.
struct Figures {
  explicit Figures(Services& services)
      : used(used_memory_bytes(services)),
        peak(services.stats.peak_memory_bytes.load()),
        dataset(services.keyspace.used_bytes()),
        resident(resident_bytes()),
        allocator(allocator_bytes()) {
    services.clients.for_each([&](const Client& client) { connections += connection_bytes(client); });
    for (std::size_t db = 0; db < kDatabaseCount; ++db)
      keys += services.keyspace.size(static_cast<std::uint8_t>(db));
  }
  std::uint64_t used, peak, dataset, resident;
  AllocatorBytes allocator;
  std::uint64_t connections = 0, keys = 0;
};

void integer_field(Call& call, std::string_view name, std::uint64_t value) {
  call.reply.bulk(name);
  call.reply.integer(static_cast<std::int64_t>(value));
}

void signed_field(Call& call, std::string_view name, std::uint64_t a, std::uint64_t b) {
  call.reply.bulk(name);
  call.reply.integer(static_cast<std::int64_t>(a) - static_cast<std::int64_t>(b));
}

void number_field(Call& call, std::string_view name, double value) {
  call.reply.bulk(name);
  call.reply.dbl(value);
}

// MEMORY STATS: Redis's fields, without those for each database.
void stats(Call& call) {
  const Figures figures(call.services);
  const AllocatorBytes& allocator = figures.allocator;
  call.reply.map(27);
  integer_field(call, "peak.allocated", figures.peak);
  integer_field(call, "total.allocated", figures.used);
  integer_field(call, "startup.allocated", 0);
  integer_field(call, "replication.backlog", 0);
  integer_field(call, "clients.slaves", 0);
  integer_field(call, "clients.normal", figures.connections);
  integer_field(call, "cluster.links", 0);
  integer_field(call, "aof.buffer", call.services.journal.backlog_bytes());
  integer_field(call, "lua.caches", 0);
  integer_field(call, "functions.caches", 0);
  integer_field(call, "overhead.total", figures.used - std::min(figures.used, figures.dataset));
  integer_field(call, "keys.count", figures.keys);
  integer_field(call, "keys.bytes-per-key", figures.keys == 0 ? 0 : figures.dataset / figures.keys);
  integer_field(call, "dataset.bytes", figures.dataset);
  number_field(call, "dataset.percentage", ratio(figures.dataset, figures.used) * 100);
  number_field(call, "peak.percentage", ratio(figures.used, figures.peak) * 100);
  integer_field(call, "allocator.allocated", allocator.allocated);
  integer_field(call, "allocator.active", allocator.active);
  integer_field(call, "allocator.resident", allocator.resident);
  number_field(call, "allocator-fragmentation.ratio", ratio(allocator.active, allocator.allocated));
  signed_field(call, "allocator-fragmentation.bytes", allocator.active, allocator.allocated);
  number_field(call, "allocator-rss.ratio", ratio(allocator.resident, allocator.active));
  signed_field(call, "allocator-rss.bytes", allocator.resident, allocator.active);
  number_field(call, "rss-overhead.ratio", ratio(figures.resident, allocator.resident));
  signed_field(call, "rss-overhead.bytes", figures.resident, allocator.resident);
  number_field(call, "fragmentation", ratio(figures.resident, figures.used));
  signed_field(call, "fragmentation.bytes", figures.resident, figures.used);
}

// MEMORY DOCTOR: a sentence on what looks wrong, or that nothing does.
void doctor(Call& call) {
  constexpr std::uint64_t kSmallBytes = 5 << 20;  // below this ratios say nothing
  constexpr double kHighRatio = 1.4;              // where Redis's doctor begins to complain too
  const Figures figures(call.services);
  std::string text;
  const std::uint64_t limit = call.services.settings.maxmemory_bytes.load();
  if (limit != 0 && figures.used > limit) {
    text += "Memory in use is above maxmemory: commands that need more are refused. ";
  }
  if (figures.resident > kSmallBytes && figures.allocator.allocated != 0) {
    if (ratio(figures.allocator.active, figures.allocator.allocated) > kHighRatio) {
      text += "Much of the allocator's memory is fragmented; MEMORY PURGE gives back what can be. ";
    }
    if (figures.peak > figures.used + figures.used / 2) {
      text += "There was a peak well above what is in use now, which may explain a large resident size. ";
    }
  }
  if (text.empty()) text = "Nothing about the memory of this server looks unusual. ";
  text.back() = '\n';
  call.reply.verbatim("txt", text);
}

// MEMORY MALLOC-STATS: the allocator's own report.
void malloc_stats(Call& call) {
  const std::string report = allocator_report();
  call.reply.verbatim("txt", report.empty() ? "Stats not supported for the current allocator" : report);
}

// MEMORY PURGE.
void purge(Call& call) {
  purge_allocator();
  call.reply.ok();
}

// MEMORY HELP.
void help(Call& call) {
  reply_help(call, "MEMORY",
             {"DOCTOR", "    Say what looks wrong with the use of memory.", "MALLOC-STATS",
              "    Show the report of the allocator.", "PURGE",
              "    Let the allocator give unused memory back to the system.", "STATS",
              "    Show what memory is used for.", "USAGE <key> [SAMPLES <count>]",
              "    Show the bytes of a key and its value. Large hashes are estimated from",
              "    <count> fields (default: 5, 0 means all)."});
}

constexpr std::string_view kGroup = "server";

constexpr Command kSubcommands[] = {
    {"memory|doctor", doctor, 2, 0, 0, 0, 0, 0, kGroup, "4.0.0", "O(1)",
     "Says in words whether the use of memory looks right"},
    {"memory|help", help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "4.0.0", "O(1)", "Lists the subcommands"},
    {"memory|malloc-stats", malloc_stats, 2, 0, 0, 0, 0, 0, kGroup, "4.0.0",
     "Depends on how much memory is allocated, could be slow", "Answers what the allocator says of itself"},
    {"memory|purge", purge, 2, 0, 0, 0, 0, 0, kGroup, "4.0.0",
     "Depends on how much memory is allocated, could be slow", "Asks the allocator to give memory back"},
    {"memory|stats", stats, 2, 0, 0, 0, 0, 0, kGroup, "4.0.0", "O(1)", "Answers what memory is used for"},
    {"memory|usage", usage, -3, kReadonly, 2, 2, 1, 0, kGroup, "4.0.0",
     "O(N) where N is the number of samples.", "Answers the bytes that a key takes"},
};

}  // namespace

std::span<const Command> memory_subcommands() { return kSubcommands; }

}  // namespace isthmus
