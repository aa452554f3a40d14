// Reads replies (RESP2 and RESP3) and writes requests: the client's side of the protocol.
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::resp {

/// A reply, with all that is inside it.
struct Value {
  enum class Type {
    simple,
    error,
    integer,
    bulk,
    null,
    array,
    map,
    set,
    push,
    dbl,
    boolean,
    verbatim,
    big_number,
  };

  Type type = Type::null;
  /// The first byte on the wire. It tells apart what `type` does not: the nulls '$' and '*' of RESP2 and '_'
  /// of RESP3, and the errors '-' and '!'.
  char mark = '_';
  /// Strings, errors and verbatim text (without its format); for numbers and booleans what stood on the wire.
  std::string text;
  /// The three characters that say what verbatim text is: "txt" or "mkd".
  std::string format;
  /// Of an integer; 1 or 0 of a boolean.
  std::int64_t integer = 0;
  /// Of a double.
  double number = 0;
  /// Of an array, set or push; of a map key, value, key, value …
  std::vector<Value> items;
  /// RESP3 attributes that came before this value, flat as in a map.
  std::vector<Value> attributes;

  bool is_null() const { return type == Type::null; }
  bool is_error() const { return type == Type::error; }
  bool is_aggregate() const {
    return type == Type::array || type == Type::map || type == Type::set || type == Type::push;
  }

  /// Same reply, attributes, wire form and all (NaN equals NaN).
  friend bool operator==(const Value& a, const Value& b);
};

/// The name of a type as the protocol's documentation has it ("bulk string"), for messages.
std::string_view type_name(Value::Type type);

/// What a peer may send. A peer is not trusted: a reply beyond these is an error, and memory grows with the
/// bytes received only.
struct ReplyLimits {
  std::size_t max_bulk = std::size_t{512} << 20;  ///< bytes of one bulk string
  std::size_t max_line = std::size_t{64} * 1024;  ///< bytes of one line without its end
  std::size_t max_values = std::size_t{4} << 20;  ///< values in one reply, itself and all inside it
  std::size_t max_bytes = std::size_t{1} << 30;   ///< bytes of one reply on the wire
  std::size_t max_depth = 32;                     ///< aggregates inside one another
};

/// Puts replies together from bytes that come in any pieces. Time is linear in the bytes, however they are
/// cut.
class ReplyReader {
 public:
  enum class Status {
    need_more,  ///< no whole reply yet
    value,      ///< a reply was taken
    error,      ///< not RESP, or beyond a limit; error() says what; it stays so
  };

  explicit ReplyReader(const ReplyLimits& limits = {}) : limits_(limits) {}

  /// Appends bytes from the peer. They are copied.
  void feed(std::string_view bytes);

  /// Takes the next reply, a push as well, into `value`, which is written on `value` only.
  Status next(Value& value);

  /// For a person; empty unless next() returned `error`.
  const std::string& error() const { return error_; }

  /// Bytes fed and not yet read.
  std::size_t buffered() const { return buffer_.size() - position_; }

 private:
  // An aggregate of which values are missing. Attributes are read as one too, and then handed to the value
  // behind them.
  struct Frame {
    Value value;
    std::size_t missing;
    bool attributes;
  };
  enum class Step {
    need_more,
    leaf,    // a value that is complete in itself
    opened,  // the header of an aggregate: its values follow
    error,
  };

  Step read_one(Value& leaf);
  Step read_scalar(std::string_view line, Value& leaf);
  Step start_bulk(std::string_view line, Value& leaf);
  Step read_bulk(Value& leaf);
  Step start_aggregate(std::string_view line, Value& leaf);
  Step read_line(std::string_view& line);
  bool add(Value&& leaf, Value& root);
  Step fail(std::string what);
  void compact();

  ReplyLimits limits_;
  std::string buffer_;
  std::size_t position_ = 0;     // of the first byte not yet read
  std::size_t searched_ = 0;     // up to here the line at position_ has been searched for its end
  std::size_t reply_bytes_ = 0;  // of the reply that is being read, read so far
  std::size_t reply_values_ = 0;
  bool in_bulk_ = false;  // position_ is in front of the content of a bulk string
  char bulk_mark_ = '$';
  std::size_t bulk_size_ = 0;
  std::vector<Frame> frames_;
  std::vector<Value> attributes_;  // for the next value
  std::string error_;
};

/// A request as clients send it: an array of bulk strings. append_request() adds it to `out`.
std::string encode_request(std::span<const std::string_view> args);
std::string encode_request(std::initializer_list<std::string_view> args);
void append_request(std::string& out, std::span<const std::string_view> args);

/// A value for a person to read, in the manner of redis-cli: `"text"`, `(integer) 1`, `1) "a"`. Bytes that do
/// not print are escaped. No line end at the end.
std::string to_text(const Value& value);

}  // namespace isthmus::resp
