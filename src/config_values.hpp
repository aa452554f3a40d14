// Reads the values of options: sizes, durations, lists. Shared by the command line, the config file and
// CONFIG SET.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus {

/// A decimal number with nothing around it (an optional `-`), or nothing when it is none or does not fit.
std::optional<std::int64_t> parse_option_integer(std::string_view text);

/// A size in bytes as Redis writes it (the units at the top of redis.conf): plain bytes, or with b, k (1000),
/// kb (1024), m, mb, g, gb in either case. Nothing when it is none, is negative or does not fit.
std::optional<std::uint64_t> parse_memory_bytes(std::string_view text);

/// A duration in milliseconds: a whole number with ms, s, m or h, or bare, and then in the unit given
/// (milliseconds of `bare_unit_ms`). Nothing when it is none, is negative or does not fit.
std::optional<std::int64_t> parse_duration_ms(std::string_view text, std::int64_t bare_unit_ms);

/// The bound on what may wait for a client that does not read (Redis's `client-output-buffer-limit`). 0 means
/// no limit.
struct OutputBufferLimit {
  std::uint64_t hard_bytes = 0;  ///< beyond this the client is closed at once
  std::uint64_t soft_bytes = 0;  ///< and beyond this, when it stays there for
  std::int64_t soft_seconds = 0;
  bool operator==(const OutputBufferLimit&) const = default;
};

/// The limits of all classes of clients, with Redis's defaults.
struct OutputBufferLimits {
  OutputBufferLimit normal;
  OutputBufferLimit replica{256ULL << 20, 64ULL << 20, 60};
  OutputBufferLimit pubsub{32ULL << 20, 8ULL << 20, 60};
  bool operator==(const OutputBufferLimits&) const = default;
};

/// Reads one or more groups `CLASS HARD SOFT SECONDS` into `limits`, as `CONFIG SET
/// client-output-buffer-limit` takes them (CLASS is normal, replica, slave or pubsub). Returns an empty
/// string, or what is wrong in Redis's words; then `limits` is unchanged.
std::string parse_output_buffer_limits(std::string_view text, OutputBufferLimits& limits);

/// All classes as CONFIG GET writes them: `normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608
/// 60`.
std::string format_output_buffer_limits(const OutputBufferLimits& limits);

/// Whether `text` has only the characters that `notify-keyspace-events` knows (K E g $ l s h z x e t d m n
/// A).
bool is_keyspace_event_flags(std::string_view text);

/// The parts of a list that is separated by commas or blanks; empty parts are left out.
std::vector<std::string> split_list(std::string_view text);

}  // namespace isthmus
