// Reads the values of options.
#include "src/config_values.hpp"

#include <array>
#include <charconv>
#include <limits>
#include <utility>

namespace isthmus {
namespace {

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

constexpr std::array<Unit, 8> kMemoryUnits = {{{"", 1},
                                               {"b", 1},
                                               {"k", 1000},
                                               {"kb", 1024},
                                               {"m", 1000 * 1000},
                                               {"mb", 1024 * 1024},
                                               {"g", 1000ULL * 1000 * 1000},
                                               {"gb", 1024ULL * 1024 * 1024}}};

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c + ('a' - 'A'));
  }
  return lower;
}

// The unsigned number at the start of `text` and what follows it, or nothing when there is no number or it
// does not fit.
std::optional<std::pair<std::uint64_t, std::string_view>> leading_number(std::string_view text) {
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc()) return std::nullopt;
  return std::pair(number, std::string_view(rest, static_cast<std::size_t>(end - rest)));
}

std::optional<std::uint64_t> product(std::uint64_t number, std::uint64_t factor, std::uint64_t highest) {
  if (number > highest / factor) return std::nullopt;
  return number * factor;
}

OutputBufferLimit* limit_of_class(std::string_view name, OutputBufferLimits& limits) {
  if (name == "normal") return &limits.normal;
  if (name == "replica" || name == "slave") return &limits.replica;
  if (name == "pubsub") return &limits.pubsub;
  return nullptr;
}

void append_limit(std::string& out, std::string_view name, const OutputBufferLimit& limit) {
  if (!out.empty()) out += ' ';
  out += name;
  out += ' ' + std::to_string(limit.hard_bytes);
  out += ' ' + std::to_string(limit.soft_bytes);
  out += ' ' + std::to_string(limit.soft_seconds);
}

}  // namespace

std::optional<std::int64_t> parse_option_integer(std::string_view text) {
  std::int64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc() || rest != end) return std::nullopt;
  return number;
}

std::optional<std::uint64_t> parse_memory_bytes(std::string_view text) {
  const auto number = leading_number(text);
  if (!number) return std::nullopt;
  const std::string unit_name = lower_case(number->second);
  for (const Unit& unit : kMemoryUnits) {
    if (unit.name == unit_name) {
      return product(number->first, unit.factor, std::numeric_limits<std::uint64_t>::max());
    }
  }
  return std::nullopt;
}

std::optional<std::int64_t> parse_duration_ms(std::string_view text, std::int64_t bare_unit_ms) {
  const auto number = leading_number(text);
  if (!number) return std::nullopt;
  const std::array<Unit, 5> units = {{{"", static_cast<std::uint64_t>(bare_unit_ms)},
                                      {"ms", 1},
                                      {"s", 1000},
                                      {"m", 60'000},
                                      {"h", 3'600'000}}};
  for (const Unit& unit : units) {
    if (unit.name != number->second) continue;
    const auto value = product(number->first, unit.factor, std::numeric_limits<std::int64_t>::max());
    if (!value) return std::nullopt;
    return static_cast<std::int64_t>(*value);
  }
  return std::nullopt;
}

std::string parse_output_buffer_limits(std::string_view text, OutputBufferLimits& limits) {
  const std::vector<std::string> words = split_list(text);
  // The three texts are Redis's own, which CONFIG SET shows behind its prefix.
  if (words.empty() || words.size() % 4 != 0)
    return "Wrong number of arguments in buffer limit configuration.";
  OutputBufferLimits changed = limits;
  for (std::size_t i = 0; i < words.size(); i += 4) {
    OutputBufferLimit* const limit = limit_of_class(lower_case(words[i]), changed);
    if (limit == nullptr) return "Invalid client class specified in buffer limit configuration.";
    const auto hard = parse_memory_bytes(words[i + 1]);
    const auto soft = parse_memory_bytes(words[i + 2]);
    const auto seconds = parse_option_integer(words[i + 3]);
    if (!hard || !soft || !seconds || *seconds < 0) {
      return "Error in hard, soft or soft_seconds setting in buffer limit configuration.";
    }
    *limit = OutputBufferLimit{*hard, *soft, *seconds};
  }
  limits = changed;
  return {};
}

std::string format_output_buffer_limits(const OutputBufferLimits& limits) {
  std::string out;
  append_limit(out, "normal", limits.normal);
  append_limit(out, "slave", limits.replica);
  append_limit(out, "pubsub", limits.pubsub);
  return out;
}

bool is_keyspace_event_flags(std::string_view text) {
  return text.find_first_not_of("KEg$lshzxetdmnA") == std::string_view::npos;
}

std::vector<std::string> split_list(std::string_view text) {
  constexpr std::string_view kSeparators = ", \t";
  std::vector<std::string> parts;
  while (true) {
    const std::size_t start = text.find_first_not_of(kSeparators);
    if (start == std::string_view::npos) return parts;
    text.remove_prefix(start);
    const std::size_t length = text.find_first_of(kSeparators);
    parts.emplace_back(text.substr(0, length));
    if (length == std::string_view::npos) return parts;
    text.remove_prefix(length);
  }
}

}  // namespace isthmus
