// Formats log lines and hands them to spdlog, which owns the sinks and their locks.
#include "src/observe/logging.hpp"

#include <array>
#include <charconv>
#include <chrono>
#include <cmath>
#include <ctime>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <utility>

#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace isthmus {
namespace {

constexpr std::array<std::string_view, 5> kLevelNames = {"trace", "debug", "info", "warning", "error"};
constexpr char kHexDigits[] = "0123456789abcdef";

// The length of the valid UTF-8 sequence at the start of `text` (RFC 3629: no overlong forms, no surrogates,
// nothing above U+10FFFF), or 0.
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const auto continues = [&](std::size_t i) { return i < text.size() && (byte(i) & 0xC0) == 0x80; };
  const unsigned first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xC2 && first <= 0xDF) return continues(1) ? 2 : 0;
  if (first >= 0xE0 && first <= 0xEF) {
    if (!continues(1) || !continues(2)) return 0;
    if (first == 0xE0 && byte(1) < 0xA0) return 0;
    if (first == 0xED && byte(1) > 0x9F) return 0;
    return 3;
  }
  if (first >= 0xF0 && first <= 0xF4) {
    if (!continues(1) || !continues(2) || !continues(3)) return 0;
    if (first == 0xF0 && byte(1) < 0x90) return 0;
    if (first == 0xF4 && byte(1) > 0x8F) return 0;
    return 4;
  }
  return 0;
}

void append_hex_byte(std::string& out, unsigned char byte) {
  out += kHexDigits[byte >> 4];
  out += kHexDigits[byte & 15];
}

// Appends the short escape that JSON and the text format share; false if the character has none.
bool append_short_escape(std::string& out, char c) {
  switch (c) {
    case '"':
      out += "\\\"";
      return true;
    case '\\':
      out += "\\\\";
      return true;
    case '\n':
      out += "\\n";
      return true;
    case '\r':
      out += "\\r";
      return true;
    case '\t':
      out += "\\t";
      return true;
    default:
      return false;
  }
}

bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7F; }

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) {
      out += "\\ufffd";
    } else if (length > 1) {
      out.append(text.substr(0, length));
    } else if (!append_short_escape(out, text[0])) {
      if (is_control(text[0])) {
        out += "\\u00";
        append_hex_byte(out, static_cast<unsigned char>(text[0]));
      } else {
        out += text[0];
      }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
  out += '"';
}

// Text with what could break or forge a line escaped. Quotes and backslashes are only escaped inside a quoted
// value.
void append_text(std::string& out, std::string_view text, bool quoted) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    const bool plain_mark = !quoted && (text[0] == '"' || text[0] == '\\');
    if (length > 1 || plain_mark) {
      out.append(text.substr(0, length));
    } else if (length == 0 || !append_short_escape(out, text[0])) {
      if (length == 0 || is_control(text[0])) {
        out += "\\x";
        append_hex_byte(out, static_cast<unsigned char>(text[0]));
      } else {
        out += text[0];
      }
    }
    text.remove_prefix(length == 0 ? 1 : length);
  }
}

// A value stands bare when a reader can tell where it ends.
bool needs_quotes(std::string_view text) {
  if (text.empty()) return true;
  for (std::string_view rest = text; !rest.empty();) {
    const std::size_t length = utf8_length(rest);
    const char c = rest[0];
    if (length == 0 || (length == 1 && (is_control(c) || c == ' ' || c == '"' || c == '\\' || c == '=')))
      return true;
    rest.remove_prefix(length);
  }
  return false;
}

template <typename Number>
void append_number(std::string& out, Number value) {
  std::array<char, 40> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out.append(digits.data(), end);
}

struct ValueWriter {
  std::string& out;
  LogFormat format;

  void operator()(bool value) const { out += value ? "true" : "false"; }
  void operator()(std::int64_t value) const { append_number(out, value); }
  void operator()(std::uint64_t value) const { append_number(out, value); }
  void operator()(double value) const {
    // JSON has no word for infinity or "not a number".
    if (format == LogFormat::json && !std::isfinite(value)) {
      out += "null";
    } else {
      append_number(out, value);
    }
  }
  void operator()(std::string_view value) const {
    if (format == LogFormat::json) {
      append_json_string(out, value);
    } else if (needs_quotes(value)) {
      out += '"';
      append_text(out, value, true);
      out += '"';
    } else {
      out += value;
    }
  }
};

void append_padded(std::string& out, int value, std::size_t width) {
  std::string digits = std::to_string(value);
  if (digits.size() < width) out.append(width - digits.size(), '0');
  out += digits;
}

// ISO 8601 in UTC with milliseconds: 2026-01-02T03:04:05.678Z.
void append_time(std::string& out, std::int64_t time_ms) {
  std::int64_t seconds = time_ms / 1000;
  std::int64_t milliseconds = time_ms % 1000;
  if (milliseconds < 0) {
    milliseconds += 1000;
    --seconds;
  }
  const std::time_t clock = static_cast<std::time_t>(seconds);
  std::tm utc{};
  gmtime_r(&clock, &utc);
  append_padded(out, utc.tm_year + 1900, 4);
  out += '-';
  append_padded(out, utc.tm_mon + 1, 2);
  out += '-';
  append_padded(out, utc.tm_mday, 2);
  out += 'T';
  append_padded(out, utc.tm_hour, 2);
  out += ':';
  append_padded(out, utc.tm_min, 2);
  out += ':';
  append_padded(out, utc.tm_sec, 2);
  out += '.';
  append_padded(out, static_cast<int>(milliseconds), 3);
  out += 'Z';
}

void append_text_line(std::string& out, std::int64_t time_ms, LogLevel level, std::string_view message,
                      LogFields fields) {
  append_time(out, time_ms);
  out += ' ';
  out += log_level_name(level);
  out += ' ';
  append_text(out, message, false);
  for (const LogField& field : fields) {
    out += ' ';
    out += field.key;
    out += '=';
    std::visit(ValueWriter{out, LogFormat::text}, field.value.get());
  }
}

void append_json_line(std::string& out, std::int64_t time_ms, LogLevel level, std::string_view message,
                      LogFields fields) {
  out += "{\"time\":\"";
  append_time(out, time_ms);
  out += "\",\"level\":\"";
  out += log_level_name(level);
  out += "\",\"message\":";
  append_json_string(out, message);
  for (const LogField& field : fields) {
    out += ',';
    append_json_string(out, field.key);
    out += ':';
    std::visit(ValueWriter{out, LogFormat::json}, field.value.get());
  }
  out += '}';
}

// The sink and the format in use. A line takes a copy of the pointer, so init_logging may replace it at any
// time.
struct Output {
  std::shared_ptr<spdlog::logger> logger;
  LogFormat format = LogFormat::text;
};

std::shared_ptr<const Output> make_output(spdlog::sink_ptr sink, LogFormat format) {
  auto logger = std::make_shared<spdlog::logger>("isthmus", std::move(sink));
  // Lines come complete from here: spdlog must neither add to them nor filter, and a crash must not swallow
  // the last one.
  logger->set_formatter(std::make_unique<spdlog::pattern_formatter>("%v"));
  logger->set_level(spdlog::level::trace);
  logger->flush_on(spdlog::level::trace);
  auto output = std::make_shared<Output>();
  output->logger = std::move(logger);
  output->format = format;
  return output;
}

class OutputHolder {
 public:
  OutputHolder() : output_(make_output(std::make_shared<spdlog::sinks::stderr_sink_mt>(), LogFormat::text)) {}
  std::shared_ptr<const Output> get() {
    const std::lock_guard lock(mutex_);
    return output_;
  }
  void set(std::shared_ptr<const Output> output) {
    const std::lock_guard lock(mutex_);
    output_ = std::move(output);
  }

 private:
  std::mutex mutex_;
  std::shared_ptr<const Output> output_;
};

// Never destroyed: threads and destructors may log until the very end of the process.
OutputHolder& output_holder() {
  static OutputHolder* const holder = new OutputHolder;
  return *holder;
}

std::int64_t now_ms() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count();
}

spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::trace:
      return spdlog::level::trace;
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warning:
      return spdlog::level::warn;
    case LogLevel::error:
      return spdlog::level::err;
  }
  return spdlog::level::err;
}

}  // namespace

std::string_view log_level_name(LogLevel level) { return kLevelNames[static_cast<std::size_t>(level)]; }

std::optional<LogLevel> log_level_from_name(std::string_view name) {
  for (std::size_t i = 0; i < kLevelNames.size(); ++i) {
    if (kLevelNames[i] == name) return static_cast<LogLevel>(i);
  }
  return std::nullopt;
}

std::string format_log_line(LogFormat format, std::int64_t time_ms, LogLevel level, std::string_view message,
                            LogFields fields) {
  std::string line;
  line.reserve(64 + message.size() + 24 * fields.size());
  if (format == LogFormat::json) {
    append_json_line(line, time_ms, level, message, fields);
  } else {
    append_text_line(line, time_ms, level, message, fields);
  }
  return line;
}

void init_logging(const LogOptions& options) {
  spdlog::sink_ptr sink;
  if (options.file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    } catch (const spdlog::spdlog_ex& error) {
      throw std::runtime_error("cannot open the log file: " + std::string(error.what()));
    }
  }
  output_holder().set(make_output(std::move(sink), options.format));
  set_log_level(options.level);
}

void set_log_level(LogLevel level) {
  detail::lowest_log_level.store(static_cast<int>(level), std::memory_order_relaxed);
}

void log_line(LogLevel level, std::string_view message, LogFields fields) noexcept {
  try {
    const std::shared_ptr<const Output> output = output_holder().get();
    const std::string line = format_log_line(output->format, now_ms(), level, message, fields);
    output->logger->log(spdlog_level(level), spdlog::string_view_t(line.data(), line.size()));
  } catch (...) {
    // Only memory exhaustion comes here (spdlog keeps its own errors); a lost log line must not stop the
    // server.
  }
}

}  // namespace isthmus
