#include "src/command/scan.hpp"

#include <charconv>

#include "src/pubsub/glob.hpp"

namespace isthmus {

std::optional<std::uint64_t> parse_cursor(std::string_view text) {
  text = text.substr(0, text.find('\0'));  // Redis reads it as a C string
  if (text.empty()) return 0;
  const bool negative = text[0] == '-';
  const std::string_view digits = text.substr(negative || text[0] == '+' ? 1 : 0);
  std::uint64_t value = 0;
  const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (problem != std::errc{} || end != digits.data() + digits.size()) return std::nullopt;
  return negative ? 0 - value : value;
}

bool ScanOptions::matches(std::string_view name) const { return !pattern || glob_match(*pattern, name); }

std::optional<ScanOptions> parse_scan_options(Call& call, std::size_t first, bool with_type) {
  ScanOptions options;
  for (std::size_t i = first; i < call.argc(); i += 2) {
    const bool has_value = i + 1 < call.argc();
    if (has_value && call.is(i, "count")) {
      const auto count = call.integer(i + 1);
      if (!count) return std::nullopt;
      options.count = *count;
    } else if (has_value && call.is(i, "match")) {
      // One star stands for everything, the empty name too, which it does not match.
      options.pattern = call.args[i + 1];
      if (*options.pattern == "*") options.pattern.reset();
    } else if (has_value && with_type && call.is(i, "type")) {
      options.type = call.args[i + 1];
    } else {
      options.count = 0;
    }
    if (options.count < 1) {
      call.reply.error(error::kSyntax);
      return std::nullopt;
    }
  }
  return options;
}

void scan_fields(Call& call, const Node* (Call::*find)(const Key&, bool&), bool with_values) {
  const auto cursor = parse_cursor(call.args[2]);
  if (!cursor) {
    call.reply.error(error::kInvalidCursor);
    return;
  }
  BulkList found(call.reply.protocol());
  bool failed = false;
  const Node* node = (call.*find)(call.key(1), failed);
  if (failed) return;
  if (node == nullptr) {
    reply_scan(call.reply, 0, found);
    return;
  }
  const auto options = parse_scan_options(call, 3, false);
  if (!options) return;
  ScanBudget budget(options->count);
  const std::function<void(const FieldView&)> visit = [&](const FieldView& field) {
    budget.see_element();
    if (!options->matches(field.name)) return;
    found.add(field.name);
    if (with_values) found.add(field.value);
  };
  std::uint64_t next = *cursor;
  do {
    next = hash_scan(*node, next, visit);
    budget.see_bucket();
  } while (next != 0 && !budget.spent());
  reply_scan(call.reply, next, found);
}

void reply_scan(resp::Writer& reply, std::uint64_t cursor, const BulkList& found) {
  reply.array(2);
  reply.bulk(std::to_string(cursor));
  found.reply_to(reply);
}

}  // namespace isthmus
