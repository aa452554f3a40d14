// Reads replies and writes requests: the client's side of the protocol.
#include "resp/reply_reader.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <iterator>
#include <utility>

#include "resp/writer.hpp"

namespace isthmus::resp {
namespace {

// Read bytes are dropped from the front of the buffer only when they are so many and at least half of it, so
// that each byte is moved once on average; a buffer larger than this is given back when it is empty.
constexpr std::size_t kKeptBytes = std::size_t{64} * 1024;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

template <class Number>
bool read_whole(std::string_view text, Number& number) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), number);
  return failure == std::errc{} && end == text.data() + text.size();
}

// A length: digits only.
bool read_length(std::string_view text, std::uint64_t& length) {
  return !text.empty() && is_digit(text.front()) && read_whole(text, length);
}

bool read_integer(std::string_view text, std::int64_t& integer) {
  if (text.size() > 1 && text.front() == '+' && is_digit(text[1])) text.remove_prefix(1);
  return read_whole(text, integer);
}

bool is_big_number(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  return !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
}

Value::Type aggregate_type(char mark) {
  switch (mark) {
    case '%':
      return Value::Type::map;
    case '~':
      return Value::Type::set;
    case '>':
      return Value::Type::push;
    default:
      return Value::Type::array;
  }
}

Value::Type bulk_type(char mark) {
  switch (mark) {
    case '!':
      return Value::Type::error;
    case '=':
      return Value::Type::verbatim;
    default:
      return Value::Type::bulk;
  }
}

void append_quoted(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.append(1, '\\').append(1, c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (byte < 0x20 || byte > 0x7e) {
      out.append("\\x").append(1, kHex[byte >> 4]).append(1, kHex[byte & 15]);
    } else {
      out += c;
    }
  }
  out += '"';
}

std::string_view empty_text(Value::Type type) {
  switch (type) {
    case Value::Type::map:
      return "(empty hash)";
    case Value::Type::set:
      return "(empty set)";
    case Value::Type::push:
      return "(empty push)";
    default:
      return "(empty array)";
  }
}

void append_text(std::string& out, const Value& value, std::size_t indent);

// One line an item, or two values a line in a map; what is nested is indented to where its first line begins.
void append_items(std::string& out, const Value& value, std::size_t indent) {
  const bool is_map = value.type == Value::Type::map;
  const char separator = is_map ? '#' : value.type == Value::Type::set ? '~' : ')';
  const std::size_t per_line = is_map ? 2 : 1;
  const std::size_t width = std::to_string(value.items.size() / per_line).size();
  for (std::size_t i = 0; i + per_line <= value.items.size(); i += per_line) {
    const std::string number = std::to_string(i / per_line + 1);
    if (i > 0) out.append(1, '\n').append(indent, ' ');
    out.append(width - number.size(), ' ').append(number).append(1, separator).append(1, ' ');
    append_text(out, value.items[i], indent + width + 2);
    if (is_map) {
      out += " => ";
      append_text(out, value.items[i + 1], indent + width + 2);
    }
  }
}

void append_text(std::string& out, const Value& value, std::size_t indent) {
  switch (value.type) {
    case Value::Type::simple:
    case Value::Type::verbatim:
      out += value.text;
      break;
    case Value::Type::error:
      out.append("(error) ").append(value.text);
      break;
    case Value::Type::integer:
      out.append("(integer) ").append(std::to_string(value.integer));
      break;
    case Value::Type::bulk:
      append_quoted(out, value.text);
      break;
    case Value::Type::null:
      out += "(nil)";
      break;
    case Value::Type::dbl:
      out.append("(double) ").append(value.text);
      break;
    case Value::Type::boolean:
      out += value.integer != 0 ? "(true)" : "(false)";
      break;
    case Value::Type::big_number:
      out.append("(big number) ").append(value.text);
      break;
    case Value::Type::array:
    case Value::Type::map:
    case Value::Type::set:
    case Value::Type::push:
      if (value.items.empty()) {
        out += empty_text(value.type);
      } else {
        append_items(out, value, indent);
      }
      break;
  }
}

}  // namespace

bool operator==(const Value& a, const Value& b) {
  const bool same_number = a.number == b.number || (std::isnan(a.number) && std::isnan(b.number));
  return a.type == b.type && a.mark == b.mark && a.text == b.text && a.format == b.format &&
         a.integer == b.integer && same_number && a.items == b.items && a.attributes == b.attributes;
}

std::string_view type_name(Value::Type type) {
  switch (type) {
    case Value::Type::simple:
      return "simple string";
    case Value::Type::error:
      return "error";
    case Value::Type::integer:
      return "integer";
    case Value::Type::bulk:
      return "bulk string";
    case Value::Type::null:
      return "null";
    case Value::Type::array:
      return "array";
    case Value::Type::map:
      return "map";
    case Value::Type::set:
      return "set";
    case Value::Type::push:
      return "push";
    case Value::Type::dbl:
      return "double";
    case Value::Type::boolean:
      return "boolean";
    case Value::Type::verbatim:
      return "verbatim string";
    case Value::Type::big_number:
      return "big number";
  }
  return "unknown";
}

void ReplyReader::feed(std::string_view bytes) {
  compact();
  buffer_.append(bytes);
}

ReplyReader::Status ReplyReader::next(Value& value) {
  if (!error_.empty()) return Status::error;
  while (true) {
    Value leaf;
    switch (read_one(leaf)) {
      case Step::need_more:
        return Status::need_more;
      case Step::error:
        return Status::error;
      case Step::opened:
        break;
      case Step::leaf:
        if (!add(std::move(leaf), value)) break;
        reply_bytes_ = 0;
        reply_values_ = 0;
        return Status::value;
    }
  }
}

// Reads one value that has no values inside, or the header of one that has.
ReplyReader::Step ReplyReader::read_one(Value& leaf) {
  if (in_bulk_) return read_bulk(leaf);
  std::string_view line;
  const Step step = read_line(line);
  if (step != Step::leaf) return step;
  if (line.empty()) return fail("an empty line where a reply should begin");
  if (++reply_values_ > limits_.max_values) return fail("too many values in one reply");
  const char mark = line.front();
  line.remove_prefix(1);
  leaf.mark = mark;
  switch (mark) {
    case '$':
    case '!':
    case '=':
      return start_bulk(line, leaf);
    case '*':
    case '%':
    case '~':
    case '>':
    case '|':
      return start_aggregate(line, leaf);
    default:
      return read_scalar(line, leaf);
  }
}

ReplyReader::Step ReplyReader::read_scalar(std::string_view line, Value& leaf) {
  bool valid = true;
  leaf.text = line;
  leaf.attributes = std::exchange(attributes_, {});
  switch (leaf.mark) {
    case '+':
      leaf.type = Value::Type::simple;
      break;
    case '-':
      leaf.type = Value::Type::error;
      break;
    case ':':
      leaf.type = Value::Type::integer;
      valid = read_integer(line, leaf.integer);
      break;
    case '_':
      leaf.type = Value::Type::null;
      valid = line.empty();
      break;
    case ',':
      leaf.type = Value::Type::dbl;
      valid = read_whole(line, leaf.number);
      break;
    case '#':
      leaf.type = Value::Type::boolean;
      valid = line == "t" || line == "f";
      leaf.integer = line == "t" ? 1 : 0;
      break;
    case '(':
      leaf.type = Value::Type::big_number;
      valid = is_big_number(line);
      break;
    default:
      return fail(std::string("no reply begins with the byte ") +
                  std::to_string(static_cast<unsigned char>(leaf.mark)));
  }
  if (!valid) return fail("malformed " + std::string(type_name(leaf.type)));
  return Step::leaf;
}

ReplyReader::Step ReplyReader::start_bulk(std::string_view line, Value& leaf) {
  if (leaf.mark == '$' && line == "-1") {
    leaf.attributes = std::exchange(attributes_, {});
    return Step::leaf;
  }
  std::uint64_t size = 0;
  if (!read_length(line, size)) return fail("malformed length of a bulk string");
  if (size > limits_.max_bulk) return fail("bulk string too long");
  if (size + 2 > limits_.max_bytes - reply_bytes_) return fail("reply too long");
  in_bulk_ = true;
  bulk_mark_ = leaf.mark;
  bulk_size_ = size;
  return read_bulk(leaf);
}

ReplyReader::Step ReplyReader::read_bulk(Value& leaf) {
  if (buffered() < bulk_size_ + 2) return Step::need_more;
  std::string_view content = std::string_view(buffer_).substr(position_, bulk_size_ + 2);
  if (!content.ends_with("\r\n")) return fail("no line end behind a bulk string");
  content.remove_suffix(2);
  in_bulk_ = false;
  position_ += bulk_size_ + 2;
  reply_bytes_ += bulk_size_ + 2;
  leaf.mark = bulk_mark_;
  leaf.type = bulk_type(bulk_mark_);
  leaf.attributes = std::exchange(attributes_, {});
  if (leaf.type == Value::Type::verbatim) {
    if (content.size() < 4 || content[3] != ':') return fail("malformed verbatim string");
    leaf.format = content.substr(0, 3);
    content.remove_prefix(4);
  }
  leaf.text = content;
  return Step::leaf;
}

ReplyReader::Step ReplyReader::start_aggregate(std::string_view line, Value& leaf) {
  Value::Type type = aggregate_type(leaf.mark);
  std::uint64_t count = 0;
  leaf.attributes = std::exchange(attributes_, {});
  if (leaf.mark == '*' && line == "-1") return Step::leaf;
  if (!read_length(line, count)) return fail("malformed length of an aggregate");
  if (count > limits_.max_values) return fail("too many values in one reply");
  leaf.type = type;
  const bool attributes = leaf.mark == '|';
  if (attributes || type == Value::Type::map) count *= 2;
  if (count == 0) {
    if (!attributes) return Step::leaf;
    attributes_ = std::move(leaf.attributes);
    return Step::opened;
  }
  if (frames_.size() >= limits_.max_depth) return fail("reply nested too deeply");
  frames_.push_back({std::move(leaf), count, attributes});
  return Step::opened;
}

// Puts a complete value where it belongs, and with it what it completes. True: that is the whole reply, now
// in `root`.
bool ReplyReader::add(Value&& leaf, Value& root) {
  Value complete = std::move(leaf);
  while (!frames_.empty()) {
    Frame& frame = frames_.back();
    frame.value.items.push_back(std::move(complete));
    if (--frame.missing > 0) return false;
    complete = std::move(frame.value);
    const bool attributes = frame.attributes;
    frames_.pop_back();
    if (attributes) {
      attributes_ = std::move(complete.attributes);
      std::move(complete.items.begin(), complete.items.end(), std::back_inserter(attributes_));
      return false;
    }
  }
  root = std::move(complete);
  return true;
}

// Takes the next line without its end. `leaf` when there is one.
ReplyReader::Step ReplyReader::read_line(std::string_view& line) {
  const std::size_t end = buffer_.find('\n', std::max(searched_, position_));
  const std::size_t seen = (end == std::string::npos ? buffer_.size() : end + 1) - position_;
  if (seen > limits_.max_line + 2) return fail("line too long");
  if (end == std::string::npos) {
    searched_ = buffer_.size();
    return Step::need_more;
  }
  line = std::string_view(buffer_).substr(position_, seen - 1);
  if (!line.ends_with('\r')) return fail("a line that ends in LF alone");
  line.remove_suffix(1);
  if (line.find('\r') != std::string_view::npos) return fail("a CR inside a line");
  if (seen > limits_.max_bytes - reply_bytes_) return fail("reply too long");
  position_ += seen;
  reply_bytes_ += seen;
  return Step::leaf;
}

ReplyReader::Step ReplyReader::fail(std::string what) {
  error_ = "protocol error in a reply: " + std::move(what);
  frames_.clear();
  attributes_.clear();
  return Step::error;
}

void ReplyReader::compact() {
  if (position_ == buffer_.size()) {
    buffer_.clear();
    if (buffer_.capacity() > kKeptBytes) std::string().swap(buffer_);
  } else if (position_ > kKeptBytes && position_ > buffer_.size() / 2) {
    buffer_.erase(0, position_);
  } else {
    return;
  }
  searched_ -= std::min(searched_, position_);
  position_ = 0;
}

std::string encode_request(std::span<const std::string_view> args) {
  std::string out;
  append_request(out, args);
  return out;
}

std::string encode_request(std::initializer_list<std::string_view> args) {
  return encode_request(std::span<const std::string_view>(args.begin(), args.size()));
}

void append_request(std::string& out, std::span<const std::string_view> args) {
  Writer writer(out);
  writer.array(args.size());
  for (const std::string_view arg : args) writer.bulk(arg);
}

std::string to_text(const Value& value) {
  std::string out;
  append_text(out, value, 0);
  return out;
}

}  // namespace isthmus::resp
