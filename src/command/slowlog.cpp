// SLOWLOG and LATENCY (https://redis.io/docs/latest/commands/slowlog/, …/latency/).
#include <string>

#include "src/command/containers.hpp"
#include "src/command/help.hpp"

namespace isthmus {
namespace {

constexpr std::int64_t kDefaultEntries = 10;

// SLOWLOG GET [count]: the newest entries, ten or so many; -1 is all.
void slowlog_get(Call& call) {
  std::int64_t count = kDefaultEntries;
  if (call.argc() > 3) {
    reply_subcommand_error(call, "SLOWLOG");
    return;
  }
  if (call.argc() == 3) {
    const auto number = parse_integer(call.args[2]);
    if (!number || *number < -1) {
      call.reply.error("ERR count should be greater than or equal to -1");
      return;
    }
    count = *number;
  }
  const auto entries = call.services.stats.slow(count);
  call.reply.array(entries.size());
  for (const SlowlogEntry& entry : entries) {
    call.reply.array(6);
    call.reply.integer(static_cast<std::int64_t>(entry.id));
    call.reply.integer(entry.time_s);
    call.reply.integer(entry.duration_us);
    call.reply.array(entry.args.size());
    for (const std::string& arg : entry.args) call.reply.bulk(arg);
    call.reply.bulk(entry.client_address);
    call.reply.bulk(entry.client_name);
  }
}

// SLOWLOG LEN.
void slowlog_len(Call& call) {
  call.reply.integer(static_cast<std::int64_t>(call.services.stats.slow_length()));
}

// SLOWLOG RESET.
void slowlog_reset(Call& call) {
  call.services.stats.reset_slow();
  call.reply.ok();
}

// SLOWLOG HELP.
void slowlog_help(Call& call) {
  reply_help(call, "SLOWLOG",
             {"GET [<count>]", "    Show the newest entries (default: 10, -1 means all): number, Unix time,",
              "    microseconds, the command, the client's address and its name.", "LEN",
              "    Show how many entries there are.", "RESET", "    Forget all entries."});
}

// LATENCY LATEST: no events are gathered here, so there are none.
void latency_latest(Call& call) { call.reply.array(0); }

// LATENCY HISTORY event.
void latency_history(Call& call) { call.reply.array(0); }

// LATENCY RESET [event …]: how many events were forgotten.
void latency_reset(Call& call) { call.reply.integer(0); }

// LATENCY GRAPH event: always the error for an event that has not been seen.
void latency_graph(Call& call) {
  std::string text = "ERR No samples available for event '";
  call.reply.error(text.append(call.args[2]).append("'"));
}

// LATENCY HISTOGRAM [command …]: a map of those that have samples, so an empty one.
void latency_histogram(Call& call) { call.reply.map(0); }

// LATENCY DOCTOR.
void latency_doctor(Call& call) {
  call.reply.verbatim(
      "txt",
      "This server gathers no latency events. See SLOWLOG for commands that took long, and the section "
      "commandstats of INFO for the mean time of each command.\n");
}

// LATENCY HELP.
void latency_help(Call& call) {
  reply_help(
      call, "LATENCY",
      {"DOCTOR", "    Say where to look.", "GRAPH <event>", "    Refused: there are no samples.",
       "HISTOGRAM [<command> ...]", "    Show the spread of each command's time: empty.", "HISTORY <event>",
       "    Show the delays of an event: none.", "LATEST", "    Show the last delay of each event: none.",
       "RESET [<event> ...]", "    Forget the delays of events: 0."});
}

constexpr std::string_view kGroup = "server";
constexpr std::uint32_t kSlowlog = kAdmin | kLoading | kStale;
constexpr std::uint32_t kLatency = kAdmin | kNoscript | kLoading | kStale;

constexpr Command kSlowlogSubcommands[] = {
    {"slowlog|get", slowlog_get, -2, kSlowlog, 0, 0, 0, 0, kGroup, "2.2.12",
     "O(N) where N is the number of entries returned", "Shows the newest entries"},
    {"slowlog|help", slowlog_help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "6.2.0", "O(1)",
     "Lists the subcommands"},
    {"slowlog|len", slowlog_len, 2, kSlowlog, 0, 0, 0, 0, kGroup, "2.2.12", "O(1)",
     "Answers how many entries there are"},
    {"slowlog|reset", slowlog_reset, 2, kSlowlog, 0, 0, 0, 0, kGroup, "2.2.12",
     "O(N) where N is the number of entries in the slowlog", "Forgets all entries"},
};

constexpr Command kLatencySubcommands[] = {
    {"latency|doctor", latency_doctor, 2, kLatency, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Says where to look"},
    {"latency|graph", latency_graph, 3, kLatency, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Draws the delays of an event"},
    {"latency|help", latency_help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Lists the subcommands"},
    {"latency|histogram", latency_histogram, -2, kLatency, 0, 0, 0, 0, kGroup, "7.0.0",
     "O(N) where N is the number of commands with latency information being retrieved.",
     "Shows how the times of commands are spread"},
    {"latency|history", latency_history, 3, kLatency, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Lists the delays of an event"},
    {"latency|latest", latency_latest, 2, kLatency, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Lists the last delay of each event"},
    {"latency|reset", latency_reset, -2, kLatency, 0, 0, 0, 0, kGroup, "2.8.13", "O(1)",
     "Forgets the delays of events"},
};

}  // namespace

std::span<const Command> slowlog_subcommands() { return kSlowlogSubcommands; }
std::span<const Command> latency_subcommands() { return kLatencySubcommands; }

}  // namespace isthmus
