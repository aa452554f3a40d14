// COMMAND and its subcommands (https://redis.io/docs/latest/commands/command/).
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "src/command/call.hpp"
#include "src/command/command_arguments.hpp"
#include "src/command/command_facts.hpp"
#include "src/command/containers.hpp"
#include "src/command/help.hpp"
#include "src/pubsub/glob.hpp"

namespace isthmus {
namespace {

// The command of "get" or of "config|get", or null.
const Command* find_by_whole_name(std::string_view name) {
  const std::size_t bar = name.find('|');
  const Command* command = find_command(name.substr(0, bar));
  if (command == nullptr || bar == std::string_view::npos) return command;
  return find_subcommand(*command, name.substr(bar + 1));
}

void simple_set(Call& call, const std::vector<std::string_view>& words, std::string_view mark = {}) {
  call.reply.set(words.size());
  for (const std::string_view word : words) call.reply.simple(std::string(mark).append(word));
}

void typed_map(Call& call, std::string_view type, std::size_t fields) {
  call.reply.map(2);
  call.reply.bulk("type");
  call.reply.bulk(type);
  call.reply.bulk("spec");
  call.reply.map(fields);
}

void field(Call& call, std::string_view name, std::int64_t value) {
  call.reply.bulk(name);
  call.reply.integer(value);
}

void describe_key_spec(Call& call, const KeySpec& spec) {
  call.reply.map(spec.notes.empty() ? 3 : 4);
  if (!spec.notes.empty()) {
    call.reply.bulk("notes");
    call.reply.bulk(spec.notes);
  }
  call.reply.bulk("flags");
  simple_set(call, spec.flags);
  call.reply.bulk("begin_search");
  typed_map(call, "index", 1);
  field(call, "index", spec.begin);
  call.reply.bulk("find_keys");
  if (spec.counted) {
    typed_map(call, "keynum", 3);
    field(call, "keynumidx", 0);
    field(call, "firstkey", 1);
    field(call, "keystep", 1);
    return;
  }
  typed_map(call, "range", 3);
  field(call, "lastkey", spec.last);
  field(call, "keystep", spec.step);
  field(call, "limit", 0);
}

// The ten elements of COMMAND INFO; null for no command.
void describe(Call& call, const Command* command) {
  if (command == nullptr) {
    call.reply.null();
    return;
  }
  call.reply.array(10);
  call.reply.bulk(command->name);
  call.reply.integer(command->arity);
  simple_set(call, flag_names(*command));
  call.reply.integer(command->first_key);
  call.reply.integer(command->last_key);
  call.reply.integer(command->key_step);
  simple_set(call, category_names(*command), "@");
  const auto tips = command_tips(*command);
  call.reply.set(tips.size());
  for (const std::string_view tip : tips) call.reply.bulk(tip);
  const auto specs = key_specs(*command);
  call.reply.set(specs.size());
  for (const KeySpec& spec : specs) describe_key_spec(call, spec);
  command->subcommands.empty() ? call.reply.set(0) : call.reply.array(command->subcommands.size());
  for (const Command& subcommand : command->subcommands) describe(call, &subcommand);
}

// COMMAND COUNT.
void count(Call& call) { call.reply.integer(static_cast<std::int64_t>(all_commands().size())); }

// COMMAND INFO [name …]: for each name what COMMAND says, or null; no name means all.
void info(Call& call) {
  if (call.argc() == 2) {
    describe_all_commands(call);
    return;
  }
  call.reply.array(call.argc() - 2);
  for (const std::string_view name : call.args.subspan(2)) describe(call, find_by_whole_name(name));
}

void text_field(Call& call, std::string_view name, std::string_view text) {
  call.reply.bulk(name);
  call.reply.bulk(text);
}

void describe_arguments(Call& call, const std::vector<Argument>& arguments);

void describe_argument(Call& call, const Argument& argument) {
  std::vector<std::string_view> flags;
  if (argument.optional) flags.push_back("optional");
  if (argument.multiple) flags.push_back("multiple");
  if (argument.multiple_token) flags.push_back("multiple_token");
  std::size_t fields = 2;
  fields += (argument.key_spec >= 0) + !argument.token.empty() + !argument.since.empty();
  fields += !argument.deprecated_since.empty() + !flags.empty() + !argument.arguments.empty();
  call.reply.map(fields);
  text_field(call, "name", argument.name);
  text_field(call, "type", argument.type);
  if (argument.key_spec >= 0) field(call, "key_spec_index", argument.key_spec);
  if (!argument.token.empty()) text_field(call, "token", argument.token);
  if (!argument.since.empty()) text_field(call, "since", argument.since);
  if (!argument.deprecated_since.empty()) text_field(call, "deprecated_since", argument.deprecated_since);
  if (!flags.empty()) {
    call.reply.bulk("flags");
    simple_set(call, flags);
  }
  if (!argument.arguments.empty()) describe_arguments(call, argument.arguments);
}

void describe_arguments(Call& call, const std::vector<Argument>& arguments) {
  call.reply.bulk("arguments");
  call.reply.array(arguments.size());
  for (const Argument& argument : arguments) describe_argument(call, argument);
}

void document(Call& call, const Command& command) {
  const std::vector<Argument> arguments = command_arguments(command);
  std::size_t fields = 3;
  fields += !command.complexity.empty() + !arguments.empty() + !command.subcommands.empty();
  call.reply.bulk(command.name);
  call.reply.map(fields);
  text_field(call, "summary", command.summary);
  text_field(call, "since", command.since);
  text_field(call, "group", command.group);
  if (!command.complexity.empty()) text_field(call, "complexity", command.complexity);
  if (!arguments.empty()) describe_arguments(call, arguments);
  if (command.subcommands.empty()) return;
  call.reply.bulk("subcommands");
  call.reply.map(command.subcommands.size());
  for (const Command& subcommand : command.subcommands) document(call, subcommand);
}

// COMMAND DOCS [name …]: a map from names to what is known of them, without names that are none; no name
// means all.
void docs(Call& call) {
  std::vector<const Command*> commands;
  if (call.argc() == 2) commands = all_commands();
  for (const std::string_view name : call.args.subspan(2)) {
    if (const Command* command = find_by_whole_name(name)) commands.push_back(command);
  }
  call.reply.map(commands.size());
  for (const Command* command : commands) document(call, *command);
}

// COMMAND LIST [FILTERBY MODULE name | ACLCAT category | PATTERN glob]: names, subcommands too.
void list(Call& call) {
  enum class Filter { none, nothing, category, pattern } filter = Filter::none;
  if (call.argc() == 5 && call.is(2, "filterby")) {
    if (call.is(3, "module")) filter = Filter::nothing;  // there are no modules
    if (call.is(3, "aclcat")) filter = Filter::category;
    if (call.is(3, "pattern")) filter = Filter::pattern;
  }
  if (call.argc() != 2 && filter == Filter::none) {
    call.reply.error(error::kSyntax);
    return;
  }
  const std::string_view argument = filter == Filter::none ? std::string_view{} : call.args[4];
  std::vector<std::string_view> names;
  for (std::size_t i = 0; i < command_count() && filter != Filter::nothing; ++i) {
    const Command& command = command_at(i);
    if (command.has(kInternal)) continue;
    if (filter == Filter::category) {
      const auto categories = category_names(command);
      if (std::find(categories.begin(), categories.end(), lower(argument)) == categories.end()) continue;
    }
    if (filter == Filter::pattern && !glob_match(argument, command.name, true)) continue;
    names.push_back(command.name);
  }
  call.reply.array(names.size());
  for (const std::string_view name : names) call.reply.bulk(name);
}

struct FoundKey {
  std::string_view name;
  std::vector<std::string_view> flags;
};

// SET reads the old value only with GET; its specification says so by `variable_flags`.
std::vector<std::string_view> flags_of_set(std::span<const std::string_view> args) {
  for (std::size_t i = 3; i < args.size(); ++i) {
    if (equals_ignoring_case(args[i], "get")) return {"RW", "access", "update"};
  }
  return {"OW", "update"};
}

std::vector<FoundKey> find_keys(const Command& command, std::span<const std::string_view> args) {
  std::vector<FoundKey> keys;
  for (const KeySpec& spec : key_specs(command)) {
    if (spec.counted) {
      const auto counted = counted_keys(args);
      for (const std::string_view key : counted.value_or(args.first(0))) keys.push_back({key, spec.flags});
      continue;
    }
    const auto begin = static_cast<std::size_t>(spec.begin);
    const std::size_t last = spec.last < 0 ? args.size() - static_cast<std::size_t>(-spec.last)
                                           : begin + static_cast<std::size_t>(spec.last);
    for (std::size_t i = begin; i <= last && i < args.size(); i += static_cast<std::size_t>(spec.step)) {
      keys.push_back({args[i], command.name == "set" ? flags_of_set(args) : spec.flags});
    }
  }
  return keys;
}

// The keys of the command in args[2…]; nothing if the error has been replied.
std::optional<std::vector<FoundKey>> keys_of_command(Call& call) {
  const auto args = call.args.subspan(2);
  const Command* command = find_command(args[0]);
  if (command != nullptr && !command->subcommands.empty() && args.size() > 1) {
    command = find_subcommand(*command, args[1]);
  }
  if (command == nullptr) {
    call.reply.error("ERR Invalid command specified");
    return std::nullopt;
  }
  const auto specs = key_specs(*command);
  if (specs.empty() || specs[0].flags[0] == "not_key") {
    call.reply.error("ERR The command has no key arguments");
    return std::nullopt;
  }
  const auto argc = static_cast<int>(args.size());
  if (command->arity > 0 ? argc != command->arity : argc < -command->arity) {
    call.reply.error("ERR Invalid number of arguments specified for command");
    return std::nullopt;
  }
  if (command->has(kCountedKeys) && !counted_keys(args)) {
    call.reply.error("ERR Invalid arguments specified for command");
    return std::nullopt;
  }
  return find_keys(*command, args);
}

// COMMAND GETKEYS name [argument …].
void getkeys(Call& call) {
  const auto keys = keys_of_command(call);
  if (!keys) return;
  call.reply.array(keys->size());
  for (const FoundKey& key : *keys) call.reply.bulk(key.name);
}

// COMMAND GETKEYSANDFLAGS name [argument …]: each key with what is done to it.
void getkeysandflags(Call& call) {
  const auto keys = keys_of_command(call);
  if (!keys) return;
  call.reply.array(keys->size());
  for (const FoundKey& key : *keys) {
    call.reply.array(2);
    call.reply.bulk(key.name);
    simple_set(call, key.flags);
  }
}

// COMMAND HELP.
void help(Call& call) {
  reply_help(
      call, "COMMAND",
      {"(no subcommand)", "    Describe all commands.", "COUNT", "    Show how many commands there are.",
       "DOCS [<command> ...]", "    Document these commands, or all.", "GETKEYS <command> [<arg> ...]",
       "    Show the keys in a command.", "GETKEYSANDFLAGS <command> [<arg> ...]",
       "    Show the keys in a command and what it does to each.", "INFO [<command> ...]",
       "    Describe these commands, or all.",
       "LIST [FILTERBY (MODULE <name>|ACLCAT <category>|PATTERN <glob>)]",
       "    Show the names of commands."});
}

constexpr std::string_view kGroup = "server";
constexpr std::uint32_t kFlags = kLoading | kStale;
constexpr std::string_view kPerCommand = "O(N) where N is the number of commands to look up";
constexpr std::string_view kPerArgument = "O(N) where N is the number of arguments to the command";

constexpr Command kSubcommands[] = {
    {"command|count", count, 2, kFlags, 0, 0, 0, kCatConnection, kGroup, "2.8.13", "O(1)",
     "Answers how many commands there are"},
    {"command|docs", docs, -2, kFlags, 0, 0, 0, kCatConnection, kGroup, "7.0.0", kPerCommand,
     "Documents commands"},
    {"command|getkeys", getkeys, -4, kFlags, 0, 0, 0, kCatConnection, kGroup, "2.8.13", kPerArgument,
     "Answers the keys in a command"},
    {"command|getkeysandflags", getkeysandflags, -4, kFlags, 0, 0, 0, kCatConnection, kGroup, "7.0.0",
     kPerArgument, "Answers the keys in a command and what it does to each"},
    {"command|help", help, 2, kFlags, 0, 0, 0, kCatConnection, kGroup, "5.0.0", "O(1)",
     "Lists the subcommands"},
    {"command|info", info, -2, kFlags, 0, 0, 0, kCatConnection, kGroup, "2.8.13", kPerCommand,
     "Describes the commands of these names"},
    {"command|list", list, -2, kFlags, 0, 0, 0, kCatConnection, kGroup, "7.0.0",
     "O(N) where N is the total number of Redis commands", "Lists the names of commands"},
};

}  // namespace

void describe_all_commands(Call& call) {
  call.reply.array(all_commands().size());
  for (const Command* command : all_commands()) describe(call, command);
}

std::span<const Command> command_subcommands() { return kSubcommands; }

}  // namespace isthmus
