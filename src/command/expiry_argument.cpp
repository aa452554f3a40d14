#include "src/command/expiry_argument.hpp"

#include <algorithm>
#include <string>

namespace isthmus {

std::optional<ExpiryUnit> expiry_option(std::string_view word) {
  if (equals_ignoring_case(word, "ex")) return ExpiryUnit::seconds;
  if (equals_ignoring_case(word, "px")) return ExpiryUnit::milliseconds;
  if (equals_ignoring_case(word, "exat")) return ExpiryUnit::unix_seconds;
  if (equals_ignoring_case(word, "pxat")) return ExpiryUnit::unix_milliseconds;
  return std::nullopt;
}

std::optional<std::int64_t> deadline_argument(Call& call, std::size_t index, ExpiryUnit unit) {
  const auto amount = call.integer(index);
  if (!amount) return std::nullopt;
  const bool in_seconds = unit == ExpiryUnit::seconds || unit == ExpiryUnit::unix_seconds;
  const bool relative = unit == ExpiryUnit::seconds || unit == ExpiryUnit::milliseconds;
  std::int64_t deadline = 0;
  if (*amount <= 0 || __builtin_mul_overflow(*amount, in_seconds ? 1000 : 1, &deadline) ||
      __builtin_add_overflow(deadline, relative ? call.now_ms() : 0, &deadline)) {
    std::string text = "ERR invalid expire time in '";
    call.reply.error(text.append(call.command.name).append("' command"));
    return std::nullopt;
  }
  // The last millisecond of 64 bits means "no deadline" here.
  return std::min(deadline, kNoDeadline - 1);
}

}  // namespace isthmus
