#include "src/command/command.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "src/pubsub/pubsub.hpp"

namespace isthmus {
namespace {

// Every command under its name, and every subcommand under its whole name, with a dense number.
class CommandTable {
 public:
  CommandTable() {
    for (const auto group : {string_commands(), hash_commands(), set_commands(), set_algebra_commands(),
                             key_commands(), dump_commands(), pubsub_commands(), transaction_commands(),
                             connection_commands(), server_commands(), forwarding_commands()}) {
      for (const Command& command : group) {
        if (!command.has(kInternal)) top_.push_back(&command);
        add(command);
        for (const Command& subcommand : command.subcommands) add(subcommand);
      }
    }
    std::sort(top_.begin(), top_.end(), [](const Command* a, const Command* b) { return a->name < b->name; });
  }

  const Command* find(std::string_view lower_name) const {
    const auto it = by_name_.find(lower_name);
    return it == by_name_.end() ? nullptr : it->second;
  }
  const std::vector<const Command*>& top() const { return top_; }
  const std::vector<const Command*>& all() const { return all_; }
  std::size_t index(const Command& command) const { return indexes_.at(&command); }

 private:
  void add(const Command& command) {
    by_name_.emplace(std::string(command.name), &command);
    indexes_.emplace(&command, all_.size());
    all_.push_back(&command);
  }
  StringMap<const Command*> by_name_;
  boost::unordered_flat_map<const Command*, std::size_t> indexes_;
  std::vector<const Command*> all_, top_;
};

const CommandTable& table() {
  static const CommandTable instance;
  return instance;
}

constexpr std::size_t kLongestName = 40;

// The lower-case form in `buffer`; an empty view if the name is longer than any command's.
std::string_view lowered(std::string_view name, std::array<char, 2 * kLongestName>& buffer,
                         std::size_t at = 0) {
  if (name.size() > kLongestName) return {};
  for (const char c : name) buffer[at++] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  return {buffer.data(), at};
}

}  // namespace

std::optional<std::span<const std::string_view>> counted_keys(std::span<const std::string_view> args) {
  if (args.size() < 3) return std::nullopt;
  const std::string_view text = args[1];
  std::size_t count = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (problem != std::errc{} || end != text.data() + text.size() || text.front() == '0') return std::nullopt;
  if (count > args.size() - 2) return std::nullopt;
  return args.subspan(2, count);
}

const Command* find_command(std::string_view name) {
  std::array<char, 2 * kLongestName> buffer;
  if (name.find('|') != std::string_view::npos) return nullptr;
  return table().find(lowered(name, buffer));
}

const Command* find_subcommand(const Command& container, std::string_view name) {
  std::array<char, 2 * kLongestName> buffer;
  std::size_t at = container.name.copy(buffer.data(), kLongestName - 1);
  buffer[at++] = '|';
  const std::string_view whole = lowered(name, buffer, at);
  return whole.empty() ? nullptr : table().find(whole);
}

const std::vector<const Command*>& all_commands() { return table().top(); }
std::size_t command_index(const Command& command) { return table().index(command); }
std::size_t command_count() { return table().all().size(); }
const Command& command_at(std::size_t index) { return *table().all()[index]; }

}  // namespace isthmus
