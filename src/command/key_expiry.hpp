// The arithmetic of deadlines and the conditions of the EXPIRE family, apart from any key.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "src/keyspace/node.hpp"

namespace isthmus {

enum class TimeUnit : std::uint8_t { seconds, milliseconds };

/// The deadline in milliseconds since the Unix epoch: `amount` after `base_ms` (0 for the commands that name
/// a point in time). Nothing if it does not fit into 64 bits. The last millisecond of all, which here means
/// "no deadline", becomes the one before it. Source: expireGenericCommand of Redis 7.0.
std::optional<std::int64_t> deadline_after(std::int64_t base_ms, std::int64_t amount, TimeUnit unit);

/// Milliseconds as whole seconds, rounded to the nearest, as TTL and EXPIRETIME reply. Not negative.
std::int64_t rounded_seconds(std::int64_t milliseconds);

/// NX, XX, GT and LT (https://redis.io/docs/latest/commands/expire/).
struct ExpireConditions {
  bool none_yet = false;      // NX
  bool has_one = false;       // XX
  bool later_only = false;    // GT
  bool earlier_only = false;  // LT

  /// Notes one option, in any letter case. False if there is no such option.
  bool add(std::string_view option);
  /// The error for options that exclude each other; empty if there are none.
  std::string_view conflict() const;
  /// Whether a key with the deadline `current` (kNoDeadline if none) gets the deadline `wanted`.
  bool allow(std::int64_t current, std::int64_t wanted) const;
};

}  // namespace isthmus
