// Reads requests as a Redis server does: see the header for what that means.
#include "resp/request_parser.hpp"

#include <algorithm>
#include <charconv>
#include <cstring>

namespace isthmus::resp {
namespace {

constexpr std::size_t kNotFound = std::string_view::npos;
// More arguments, or more bytes of unquoted text, than this are not kept from one request to the next.
constexpr std::size_t kKeptArgs = 256;
constexpr std::size_t kKeptBytes = 1024;
// Room made for the arguments that a header promises, before they have come.
constexpr std::int64_t kReservedArgs = 64;

// Reads "<digits>\r?" in the only form that clients write. Returns the end of that, or null when it is
// incomplete or anything out of the ordinary; then the slow way decides.
inline const char* read_plain_number(const char* p, const char* end, std::int64_t& value) {
  constexpr std::ptrdiff_t kMaxDigits = 18;  // what always fits 64 bits
  const char* const first = p;
  const char* const stop = end - p > kMaxDigits ? p + kMaxDigits : end;
  std::int64_t number = 0;
  while (p != stop) {
    const unsigned digit = static_cast<unsigned char>(*p) - unsigned{'0'};
    if (digit > 9) break;
    number = number * 10 + digit;
    ++p;
  }
  if (end - p < 2 || *p != '\r' || p == first || (*first == '0' && p - first > 1)) return nullptr;
  value = number;
  return p + 2;
}

// A number as Redis accepts it: an optional '-', no '+', no leading zeros, no "-0", within 64 bits.
bool read_number(std::string_view text, std::int64_t& value) {
  const std::string_view digits = text.substr(text.starts_with('-') ? 1 : 0);
  if (digits.empty() || (digits.front() == '0' && text.size() > 1)) return false;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc{} && end == text.data() + text.size();
}

bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// Vertical tab and form feed separate words but do not end one: isspace() decides the one, a shorter list the
// other.
bool ends_word(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

char unescape(char c) {
  switch (c) {
    case 'n':
      return '\n';
    case 'r':
      return '\r';
    case 't':
      return '\t';
    case 'b':
      return '\b';
    case 'a':
      return '\a';
    default:
      return c;
  }
}

// Both read on from behind an opening quote, append what it says to `text` and leave `p` behind the closing
// quote. False: there is none.
bool read_double_quoted(const char*& p, const char* end, std::string& text) {
  while (p != end && *p != '"') {
    if (*p != '\\' || end - p < 2) {
      text += *p++;
    } else if (p[1] == 'x' && end - p >= 4 && hex_digit(p[2]) >= 0 && hex_digit(p[3]) >= 0) {
      text += static_cast<char>(hex_digit(p[2]) * 16 + hex_digit(p[3]));
      p += 4;
    } else {
      text += unescape(p[1]);
      p += 2;
    }
  }
  return p++ != end;
}

bool read_single_quoted(const char*& p, const char* end, std::string& text) {
  while (p != end && *p != '\'') {
    if (*p == '\\' && end - p >= 2 && p[1] == '\'') ++p;
    text += *p++;
  }
  return p++ != end;
}

// Splits an inline command into words. A word may end in one quoted part, which a space or the end of the
// line must follow. Words with quotes are written to `unquoted`, the others stay where they are. False: the
// quotes do not balance.
bool split_inline(std::string_view line, std::vector<std::string_view>& words, std::string& unquoted) {
  unquoted.clear();
  const char* p = line.data();
  const char* const end = p + line.size();
  while (true) {
    while (p != end && is_space(*p)) ++p;
    if (p == end) return true;
    const char* const word = p;
    while (p != end && !ends_word(*p) && *p != '"' && *p != '\'') ++p;
    if (p == end || ends_word(*p)) {
      words.emplace_back(word, static_cast<std::size_t>(p - word));
      continue;
    }
    // Without quotes all words together are shorter than the line, so the text does not move while views of
    // it are taken.
    if (unquoted.empty()) unquoted.reserve(line.size());
    const std::size_t start = unquoted.size();
    unquoted.append(word, p);
    const bool closed =
        *p++ == '"' ? read_double_quoted(p, end, unquoted) : read_single_quoted(p, end, unquoted);
    if (!closed || (p != end && !is_space(*p))) return false;
    words.emplace_back(unquoted.data() + start, unquoted.size() - start);
  }
}

}  // namespace

ParseStatus RequestParser::parse(std::string_view input) {
  needed_ = 0;
  if (missing_ == 0) {
    args_.clear();
    if (args_.capacity() > kKeptArgs || unquoted_.capacity() > kKeptBytes) [[unlikely]]
      trim();
    if (!error_.empty()) [[unlikely]]
      return ParseStatus::error;
    if (input.empty()) return ParseStatus::need_more;
    if (input.front() != '*') return parse_inline(input);
    const ParseStatus status = read_count(input);
    if (status != ParseStatus::request || missing_ == 0) return status;
  }
  return read_arguments(input);
}

void RequestParser::trim() {
  args_.clear();
  if (args_.capacity() > kKeptArgs) std::vector<std::string_view>().swap(args_);
  if (unquoted_.capacity() > kKeptBytes) std::string().swap(unquoted_);
}

ParseStatus RequestParser::parse_inline(std::string_view input) {
  const std::size_t end = find_line_end(input, '\n');
  if (end == kNotFound) return line_too_long(input) ? fail("too big inline request") : ParseStatus::need_more;
  std::string_view line = input.substr(0, end);
  if (line.ends_with('\r')) line.remove_suffix(1);
  if (!split_inline(line, args_, unquoted_)) return fail("unbalanced quotes in request");
  return finish(end + 1);
}

// Reads the header of an array. `request`: done with it; either missing_ says how many arguments follow, or
// the request is empty and finished.
ParseStatus RequestParser::read_count(std::string_view input) {
  std::int64_t count = 0;
  const char* const after = read_plain_number(input.data() + 1, input.data() + input.size(), count);
  if (after != nullptr) [[likely]] {
    position_ = static_cast<std::size_t>(after - input.data());
  } else {
    const ParseStatus status = read_count_line(input, count);
    if (status != ParseStatus::request) return status;
  }
  if (count > limits_.max_multibulk) return fail("invalid multibulk length");
  if (count > kUnauthenticatedMaxMultibulk && !authenticated_)
    return fail("unauthenticated multibulk length");
  if (count <= 0) return finish(position_);
  missing_ = count;
  args_.reserve(static_cast<std::size_t>(std::min(count, kReservedArgs)));
  return ParseStatus::request;
}

ParseStatus RequestParser::read_count_line(std::string_view input, std::int64_t& count) {
  const std::size_t end = find_line_end(input, '\r');
  if (end == kNotFound)
    return line_too_long(input) ? fail("too big mbulk count string") : ParseStatus::need_more;
  if (input.size() - end < 2) return ParseStatus::need_more;
  if (!read_number(input.substr(1, end - 1), count)) return fail("invalid multibulk length");
  position_ = end + 2;
  return ParseStatus::request;
}

ParseStatus RequestParser::read_arguments(std::string_view input) {
  const char* const begin = input.data();
  const char* const end = begin + input.size();
  const char* p = begin + position_;
  std::int64_t missing = missing_;
  std::int64_t length = length_;
  const std::int64_t max_length = max_bulk_now();
  ParseStatus status = ParseStatus::request;
  while (missing > 0) {
    if (length < 0) {
      const char* const after = p != end && *p == '$' ? read_plain_number(p + 1, end, length) : nullptr;
      if (after != nullptr && length <= max_length) [[likely]] {
        p = after;
      } else {
        length = -1;
        position_ = static_cast<std::size_t>(p - begin);
        status = read_length_line(input, length);
        if (status != ParseStatus::request) break;
        p = begin + position_;
      }
    }
    if (end - p - 2 < length) {
      needed_ = static_cast<std::size_t>(p - begin) + static_cast<std::size_t>(length) + 2;
      status = ParseStatus::need_more;
      break;
    }
    args_.emplace_back(p, static_cast<std::size_t>(length));
    p += length + 2;
    length = -1;
    --missing;
  }
  if (status == ParseStatus::request) [[likely]] {
    if (!pieces_.empty()) gather_pieces(begin);
    return finish(static_cast<std::size_t>(p - begin));
  }
  if (status == ParseStatus::error) return status;
  position_ = static_cast<std::size_t>(p - begin);
  missing_ = missing;
  length_ = length;
  keep_pieces(begin);
  return status;
}

// The header of a bulk string, when it is incomplete, wrong, or larger than allowed. Moves position_ behind
// it.
ParseStatus RequestParser::read_length_line(std::string_view input, std::int64_t& length) {
  const std::size_t end = find_line_end(input, '\r');
  if (end == kNotFound)
    return line_too_long(input) ? fail("too big bulk count string") : ParseStatus::need_more;
  if (input.size() - end < 2) return ParseStatus::need_more;
  const char mark = input[position_];
  if (mark != '$') {
    // A reply is one line, so Redis shows the two bytes that would end it as spaces.
    const char shown = mark == '\r' || mark == '\n' ? ' ' : mark;
    return fail(std::string("expected '$', got '") + shown + '\'');
  }
  std::int64_t number = 0;
  const std::string_view text = input.substr(position_ + 1, end - position_ - 1);
  if (!read_number(text, number) || number < 0 || number > limits_.max_bulk)
    return fail("invalid bulk length");
  if (number > kUnauthenticatedMaxBulk && !authenticated_) return fail("unauthenticated bulk length");
  length = number;
  position_ = end + 2;
  return ParseStatus::request;
}

// Looks for the byte `end` in the line at position_, as far as that may reach; goes on where the last call
// has stopped.
std::size_t RequestParser::find_line_end(std::string_view input, char end) {
  searched_ = std::max(searched_, position_);
  const std::size_t reach = std::min(input.size(), position_ + limits_.max_inline + 1);
  if (endless_ || searched_ >= reach) return kNotFound;
  const char* const from = input.data() + searched_;
  const auto* const hit = static_cast<const char*>(std::memchr(from, end, reach - searched_));
  const std::size_t clear = hit != nullptr ? static_cast<std::size_t>(hit - from) : reach - searched_;
  // Nothing resets this: a connection never gets past such a line.
  endless_ = clear > 0 && std::memchr(from, '\0', clear) != nullptr;
  searched_ += clear;
  return hit != nullptr && !endless_ ? searched_ : kNotFound;
}

bool RequestParser::line_too_long(std::string_view input) const {
  return input.size() - position_ > limits_.max_inline;
}

std::int64_t RequestParser::max_bulk_now() const {
  return authenticated_ ? limits_.max_bulk : std::min(limits_.max_bulk, kUnauthenticatedMaxBulk);
}

// The buffer may move before the next call: what this call has read becomes offsets.
void RequestParser::keep_pieces(const char* begin) {
  for (const std::string_view arg : args_) {
    pieces_.push_back({static_cast<std::size_t>(arg.data() - begin), arg.size()});
  }
  args_.clear();
}

// Puts the arguments that earlier calls have read before those of this call, as views into the buffer as it
// is now.
void RequestParser::gather_pieces(const char* begin) {
  args_.insert(args_.begin(), pieces_.size(), std::string_view());
  std::transform(pieces_.begin(), pieces_.end(), args_.begin(),
                 [begin](const Piece& piece) { return std::string_view(begin + piece.offset, piece.size); });
  pieces_.clear();
  if (pieces_.capacity() > kKeptArgs) std::vector<Piece>().swap(pieces_);
}

ParseStatus RequestParser::finish(std::size_t consumed) {
  consumed_ = consumed;
  missing_ = 0;
  length_ = -1;
  position_ = 0;
  searched_ = 0;
  return ParseStatus::request;
}

ParseStatus RequestParser::fail(std::string_view what) {
  error_ = "ERR Protocol error: ";
  error_ += what;
  args_.clear();
  pieces_.clear();
  missing_ = 0;
  consumed_ = 0;
  return ParseStatus::error;
}

}  // namespace isthmus::resp
