// Writes replies in RESP2 or RESP3. In the header, because every command ends here.
#pragma once

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

namespace isthmus::resp {

/// Appends replies to a string of the caller's, which must outlive the writer. What the two protocols write
/// differently is decided here and nowhere else. The caller answers for the structure: an array of n is
/// followed by n replies.
///
/// Forms: https://redis.io/docs/reference/protocol-spec/ and networking.c of Redis 7.0 where that is more
/// exact. Cost: the bytes written; memory grows as std::string grows.
class Writer {
 public:
  explicit Writer(std::string& out, int protocol = 2) : out_(&out), protocol_(protocol) {}

  /// 2 or 3, as HELLO chose.
  int protocol() const { return protocol_; }
  void set_protocol(int protocol) { protocol_ = protocol; }

  /// The string that is appended to.
  std::string& out() const { return *out_; }

  /// Appends bytes that are a reply already.
  void raw(std::string_view bytes) { out_->append(bytes); }

  void ok() { raw("+OK\r\n"); }
  void queued() { raw("+QUEUED\r\n"); }

  /// `text` must not contain CR or LF.
  void simple(std::string_view text) { put_line('+', text); }

  /// `text` begins with the error's code ("ERR …"). CR and LF become spaces, as in Redis, because it may
  /// quote what the client sent and a reply is one line.
  void error(std::string_view text) {
    if (text.find_first_of("\r\n") == std::string_view::npos) {
      put_line('-', text);
    } else {
      put_line('-', one_line(text));
    }
  }

  void integer(std::int64_t value) {
    char buffer[kMaxHeader];
    append(buffer, put_header(buffer, ':', value));
  }

  void bulk(std::string_view text) {
    if (text.size() <= kCopiedBulk) {
      // Short ones are put together here first: one append costs less than three.
      char buffer[kMaxHeader + kCopiedBulk + 2];
      char* p = put_header(buffer, '$', static_cast<std::int64_t>(text.size()));
      p = std::copy(text.begin(), text.end(), p);
      append(buffer, put_line_end(p));
      return;
    }
    header('$', static_cast<std::int64_t>(text.size()));
    out_->append(text);
    out_->append("\r\n", 2);
  }

  /// The integer as a bulk string, as GET of a counter answers it.
  void bulk_integer(std::int64_t value) {
    char digits[kMaxHeader];
    const char* const end = std::to_chars(digits, digits + sizeof digits, value).ptr;
    bulk({digits, static_cast<std::size_t>(end - digits)});
  }

  /// What stands for an absent value, and for an absent array (BLPOP, EXEC): RESP3 has one null for both.
  void null() { raw(protocol_ >= 3 ? "_\r\n" : "$-1\r\n"); }
  void null_array() { raw(protocol_ >= 3 ? "_\r\n" : "*-1\r\n"); }

  /// Followed by `size` replies.
  void array(std::size_t size) { header('*', static_cast<std::int64_t>(size)); }
  void set(std::size_t size) { header(protocol_ >= 3 ? '~' : '*', static_cast<std::int64_t>(size)); }
  void push(std::size_t size) { header(protocol_ >= 3 ? '>' : '*', static_cast<std::int64_t>(size)); }

  /// Followed by `pairs` times a key and a value.
  void map(std::size_t pairs) {
    if (protocol_ >= 3) {
      header('%', static_cast<std::int64_t>(pairs));
    } else {
      header('*', static_cast<std::int64_t>(pairs * 2));
    }
  }

  /// With 17 significant digits, as Redis 7.0 does ("%.17g"); "inf", "-inf", "nan". RESP2: a bulk string.
  void dbl(double value) {
    char text[32];
    const std::string_view shown = show_double(value, text);
    if (protocol_ >= 3) {
      put_line(',', shown);
    } else {
      bulk(shown);
    }
  }

  /// RESP2: 1 or 0.
  void boolean(bool value) {
    if (protocol_ >= 3) {
      raw(value ? "#t\r\n" : "#f\r\n");
    } else {
      raw(value ? ":1\r\n" : ":0\r\n");
    }
  }

  /// Text for a person. `format` is three characters, "txt" or "mkd". RESP2: a bulk string.
  void verbatim(std::string_view format, std::string_view text) {
    if (protocol_ < 3) {
      bulk(text);
      return;
    }
    header('=', static_cast<std::int64_t>(format.size() + 1 + text.size()));
    out_->append(format).append(1, ':').append(text).append("\r\n", 2);
  }

 private:
  static constexpr std::size_t kMaxHeader = 24;    // mark, sign, 19 digits, CR, LF
  static constexpr std::size_t kCopiedBulk = 128;  // bytes

  // "00" to "99".
  static constexpr std::array<char, 200> kTwoDigits = [] {
    std::array<char, 200> digits{};
    for (std::size_t i = 0; i < 100; ++i) {
      digits[2 * i] = static_cast<char>('0' + i / 10);
      digits[2 * i + 1] = static_cast<char>('0' + i % 10);
    }
    return digits;
  }();

  static char* put_line_end(char* p) {
    p[0] = '\r';
    p[1] = '\n';
    return p + 2;
  }

  static char* put_header(char* p, char mark, std::int64_t value) {
    *p++ = mark;
    if (value >= 0 && value < 10) {
      *p++ = static_cast<char>('0' + value);
    } else if (value >= 10 && value < 100) {
      std::memcpy(p, &kTwoDigits[static_cast<std::size_t>(value) * 2], 2);
      p += 2;
    } else {
      p = std::to_chars(p, p + kMaxHeader - 3, value).ptr;
    }
    return put_line_end(p);
  }

  void header(char mark, std::int64_t value) {
    char buffer[kMaxHeader];
    append(buffer, put_header(buffer, mark, value));
  }

  void append(const char* begin, const char* end) {
    out_->append(begin, static_cast<std::size_t>(end - begin));
  }

  void put_line(char mark, std::string_view text) { out_->append(1, mark).append(text).append("\r\n", 2); }

  static std::string one_line(std::string_view text) {
    std::string line(text);
    std::replace(line.begin(), line.end(), '\r', ' ');
    std::replace(line.begin(), line.end(), '\n', ' ');
    return line;
  }

  static std::string_view show_double(double value, char (&text)[32]) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return {text, static_cast<std::size_t>(std::snprintf(text, sizeof text, "%.17g", value))};
  }

  std::string* out_;
  int protocol_;
};

}  // namespace isthmus::resp
