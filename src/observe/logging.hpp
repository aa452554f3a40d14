// The program's log lines: one call a line, fields as key and value, written as text or as JSON.
#pragma once

#include <atomic>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

namespace isthmus {

enum class LogLevel { trace, debug, info, warning, error };
enum class LogFormat { text, json };

/// `trace` … `error`, as options and log lines write them.
std::string_view log_level_name(LogLevel level);
/// The level of that name (lower case), or nothing.
std::optional<LogLevel> log_level_from_name(std::string_view name);

/// The value of a field. Text is only looked at during the call, so views and temporaries are fine.
class LogValue {
 public:
  LogValue(bool value) : value_(value) {}
  template <std::signed_integral T>
  LogValue(T value) : value_(static_cast<std::int64_t>(value)) {}
  template <std::unsigned_integral T>
  LogValue(T value) : value_(static_cast<std::uint64_t>(value)) {}
  LogValue(double value) : value_(value) {}
  LogValue(std::string_view value) : value_(value) {}
  LogValue(const std::string& value) : value_(std::string_view(value)) {}
  LogValue(const char* value) : value_(std::string_view(value)) {}

  using Variant = std::variant<bool, std::int64_t, std::uint64_t, double, std::string_view>;
  const Variant& get() const { return value_; }

 private:
  Variant value_;
};

/// A field of a log line. Keys are snake_case words, with the unit last where there is one (`took_ms`); they
/// are written as they are, so they must not come from a client.
struct LogField {
  std::string_view key;
  LogValue value;
};
using LogFields = std::initializer_list<LogField>;

struct LogOptions {
  LogLevel level = LogLevel::info;
  LogFormat format = LogFormat::text;
  std::string file;  ///< appended to; empty means stderr
};

/// Sets where and how lines are written from now on. Call before other threads log; until then, lines go to
/// stderr as text from `info` on. Throws std::runtime_error with one clear line if the file cannot be opened;
/// then nothing changes.
void init_logging(const LogOptions& options);

/// Changes the lowest level that is written. Any thread, any time.
void set_log_level(LogLevel level);

namespace detail {
inline std::atomic<int> lowest_log_level{static_cast<int>(LogLevel::info)};
}

/// Whether a line of this level would be written: one relaxed load, for callers whose fields cost something
/// to make.
inline bool log_enabled(LogLevel level) {
  return static_cast<int>(level) >= detail::lowest_log_level.load(std::memory_order_relaxed);
}

/// Writes one line, whole and flushed, from any thread:
/// `2026-01-02T03:04:05.678Z info message port=6379` or {"time":…,"level":…,"message":…,"port":6379}.
/// Control characters and invalid UTF-8 are escaped, so what a client sent cannot forge a line. Never throws;
/// a line that cannot be written (disk full) is lost.
void log_line(LogLevel level, std::string_view message, LogFields fields = {}) noexcept;

inline void log_trace(std::string_view message, LogFields fields = {}) {
  if (log_enabled(LogLevel::trace)) log_line(LogLevel::trace, message, fields);
}
inline void log_debug(std::string_view message, LogFields fields = {}) {
  if (log_enabled(LogLevel::debug)) log_line(LogLevel::debug, message, fields);
}
inline void log_info(std::string_view message, LogFields fields = {}) {
  if (log_enabled(LogLevel::info)) log_line(LogLevel::info, message, fields);
}
inline void log_warning(std::string_view message, LogFields fields = {}) {
  if (log_enabled(LogLevel::warning)) log_line(LogLevel::warning, message, fields);
}
inline void log_error(std::string_view message, LogFields fields = {}) {
  if (log_enabled(LogLevel::error)) log_line(LogLevel::error, message, fields);
}

/// The text of a line without its newline; pure, `time_ms` is milliseconds since the Unix epoch.
std::string format_log_line(LogFormat format, std::int64_t time_ms, LogLevel level, std::string_view message,
                            LogFields fields);

}  // namespace isthmus
