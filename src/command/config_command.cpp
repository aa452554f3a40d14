// CONFIG and its subcommands (https://redis.io/docs/latest/commands/config-set/ and its neighbours).
#include <algorithm>
#include <string>
#include <vector>

#include "src/command/call.hpp"
#include "src/command/config_parameters.hpp"
#include "src/command/containers.hpp"
#include "src/command/help.hpp"
#include "src/pubsub/glob.hpp"

namespace isthmus {
namespace {

struct Found {
  std::string_view name;  // as the reply writes it
  const Parameter* parameter;
};

void add_matches(std::string_view pattern, std::vector<Found>& found) {
  const auto add = [&](std::string_view name, const Parameter& parameter) {
    const auto same = [&](const Found& other) { return other.parameter == &parameter; };
    if (std::none_of(found.begin(), found.end(), same)) found.push_back({name, &parameter});
  };
  if (pattern.find_first_of("[*?") == std::string_view::npos) {
    if (const Parameter* parameter = find_parameter(pattern)) add(pattern, *parameter);
    return;
  }
  for (const Parameter& parameter : config_parameters()) {
    if (glob_match(pattern, parameter.name, true)) add(parameter.name, parameter);
  }
}

// CONFIG GET pattern …: a map of the parameters whose names match any of the globs, each once. A name that
// was asked for without a glob is answered in the letters of the question, as in Redis.
void config_get(Call& call) {
  std::vector<Found> found;
  for (const std::string_view pattern : call.args.subspan(2)) add_matches(pattern, found);
  call.reply.map(found.size());
  for (const auto& [name, parameter] : found) {
    call.reply.bulk(name);
    call.reply.bulk(parameter->show(call.services));
  }
}

void set_failed(Call& call, std::string_view name, std::string_view reason) {
  std::string text = "ERR CONFIG SET failed (possibly related to argument '";
  call.reply.error(text.append(name).append("') - ").append(reason));
}

// The parameters that CONFIG SET names; empty if the error has been replied. The errors name them in the
// client's letters, as Redis does here, and in no other place.
std::vector<const Parameter*> named_parameters(Call& call) {
  std::vector<const Parameter*> parameters;
  for (std::size_t i = 2; i < call.argc(); i += 2) {
    const Parameter* parameter = find_parameter(call.args[i]);
    if (parameter == nullptr) {
      std::string text = "ERR Unknown option or number of arguments for CONFIG SET - '";
      call.reply.error(text.append(call.args[i]).append("'"));
      return {};
    }
    if (parameter->read == nullptr) {
      set_failed(call, call.args[i], "can't set immutable config");
      return {};
    }
    if (std::find(parameters.begin(), parameters.end(), parameter) != parameters.end()) {
      set_failed(call, call.args[i], "duplicate parameter");
      return {};
    }
    parameters.push_back(parameter);
  }
  return parameters;
}

// CONFIG SET name value …: all of them or, at the first bad one, none.
void config_set(Call& call) {
  if (call.argc() % 2 != 0) {
    call.reply.error(error::kSyntax);
    return;
  }
  const auto parameters = named_parameters(call);
  if (parameters.empty()) return;
  std::vector<ParameterChange> changes;
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    changes.push_back(parameters[i]->read(call.services, call.args[2 * i + 3]));
    if (!changes.back().error.empty()) {
      set_failed(call, parameters[i]->name, changes.back().error);
      return;
    }
  }
  for (const ParameterChange& change : changes) change.apply(call.services);
  call.reply.ok();
}

// CONFIG RESETSTAT.
void resetstat(Call& call) {
  call.services.stats.reset();
  call.reply.ok();
}

// CONFIG REWRITE: the config file belongs to whoever wrote it.
void rewrite(Call& call) {
  if (call.services.config.config_file.empty()) {
    call.reply.error("ERR The server is running without a config file");
  } else {
    call.reply.error("ERR Rewriting config file: this server does not write its config file");
  }
}

// CONFIG HELP.
void help(Call& call) {
  reply_help(call, "CONFIG",
             {"GET <pattern> [<pattern> ...]", "    Show the parameters whose names match.", "RESETSTAT",
              "    Set the statistics of INFO to zero.", "REWRITE",
              "    Refused: the config file is not for the server to write.",
              "SET <parameter> <value> [<parameter> <value> ...]",
              "    Change parameters, all of them or none, until the server ends."});
}

constexpr std::uint32_t kFlags = kAdmin | kNoscript | kLoading | kStale;
constexpr std::string_view kGroup = "server";
constexpr std::string_view kPerParameter = "O(N) when N is the number of configuration parameters provided";

constexpr Command kSubcommands[] = {
    {"config|get", config_get, -3, kFlags, 0, 0, 0, 0, kGroup, "2.0.0", kPerParameter,
     "Shows the parameters whose names match"},
    {"config|help", help, 2, kLoading | kStale, 0, 0, 0, 0, kGroup, "5.0.0", "O(1)", "Lists the subcommands"},
    {"config|resetstat", resetstat, 2, kFlags, 0, 0, 0, 0, kGroup, "2.0.0", "O(1)",
     "Sets the statistics to zero"},
    {"config|rewrite", rewrite, 2, kFlags, 0, 0, 0, 0, kGroup, "2.8.0", "O(1)",
     "Refused, as the config file is not for the server to write"},
    {"config|set", config_set, -4, kFlags | kAllShards, 0, 0, 0, 0, kGroup, "2.0.0", kPerParameter,
     "Changes parameters, all of them or none"},
};

}  // namespace

std::span<const Command> config_subcommands() { return kSubcommands; }

}  // namespace isthmus
