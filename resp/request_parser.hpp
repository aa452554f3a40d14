// Reads requests as a Redis server does: arrays of bulk strings, and inline commands. Knows no sockets.
#pragma once

#include <climits>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::resp {

/// What a request may ask for. The defaults are those of Redis 7.0.
struct Limits {
  /// Bytes of one argument (Redis: `proto-max-bulk-len`).
  std::int64_t max_bulk = std::int64_t{512} << 20;
  /// Arguments of one request.
  std::int64_t max_multibulk = INT_MAX;
  /// Bytes of one line before the byte that ends it, which is '\n' of an inline command and '\r' of the
  /// header of an array or a bulk string (Redis: PROTO_INLINE_MAX_SIZE).
  std::size_t max_inline = std::size_t{64} * 1024;
};

/// Until a connection has authenticated it may send no more arguments and no longer ones than these (as Redis
/// since 6.2.6).
inline constexpr std::int64_t kUnauthenticatedMaxMultibulk = 10;
inline constexpr std::int64_t kUnauthenticatedMaxBulk = 16384;

enum class ParseStatus {
  need_more,  ///< the input is a beginning of a request; come again with more of it
  request,    ///< args() is a request, which took consumed() bytes of the input
  error,      ///< the client broke the protocol: send error(), then close
};

/// Takes requests apart, one a call, where they lie.
///
/// The caller owns the bytes. It presents the input always from the first byte of the request that is not yet
/// complete: after `request` that is the byte behind consumed(), after `need_more` the same bytes again with
/// more behind them. The buffer may have moved in between; the bytes must not have changed. Between calls the
/// parser remembers what it has read, so a request that comes in many pieces costs time in proportion to its
/// bytes, plus a constant a call.
///
/// How requests are read, and what is refused with which words, is Redis 7.0.15, byte for byte, which
/// includes:
/// - Behind a bulk string two bytes are skipped, and behind '\r' in a header one, whatever they are.
/// - A header is refused only when its '\r' and one byte more have come.
/// - A line that contains a zero byte never ends: it is either waited for, or too long.
/// One thing Redis leaves to how the bytes happen to arrive: whether a line a little over the limit passes.
/// Here it never does.
///
/// In a steady state parse() allocates nothing. Memory grows with the bytes received, never with what a
/// header promises.
class RequestParser {
 public:
  /// Reads one request from the beginning of `input`. After `error` it returns `error` for ever.
  ParseStatus parse(std::string_view input);

  /// The request, after `request` and until the next call that is not const. The views point into the input
  /// of that call, or, for inline arguments with quotes, into the parser. Empty for a blank line, `*0` and
  /// `*-1`: nothing to do, nothing to answer.
  std::span<const std::string_view> args() const { return args_; }

  /// After `request`: how many bytes of the input it took.
  std::size_t consumed() const { return consumed_; }

  /// After `need_more`: the size the whole input must reach before anything new can be read, or 0 if that is
  /// not known. It is the client's claim (at most what came already plus `max_bulk`), so grow a buffer
  /// towards it, do not trust it with memory.
  std::size_t needed() const { return needed_; }

  /// After `error`: Redis's reply without the leading '-' and the line end. Lives as long as the parser.
  std::string_view error() const { return error_; }

  /// Both hold for the headers read from now on. A new parser has the default limits and counts as
  /// authenticated.
  void set_limits(const Limits& limits) { limits_ = limits; }
  void set_authenticated(bool authenticated) { authenticated_ = authenticated; }

  /// Gives back what a request of many arguments or of long quoted ones has left behind; args() becomes
  /// empty. The next parse() does it by itself; call it for a connection that may now stay idle.
  void trim();

 private:
  /// An argument of a request of which the rest is still missing: where it lies, counted from the request's
  /// first byte.
  struct Piece {
    std::size_t offset;
    std::size_t size;
  };

  ParseStatus parse_inline(std::string_view input);
  ParseStatus read_count(std::string_view input);
  ParseStatus read_count_line(std::string_view input, std::int64_t& count);
  ParseStatus read_arguments(std::string_view input);
  ParseStatus read_length_line(std::string_view input, std::int64_t& length);
  std::size_t find_line_end(std::string_view input, char end);
  bool line_too_long(std::string_view input) const;
  std::int64_t max_bulk_now() const;
  void keep_pieces(const char* begin);
  void gather_pieces(const char* begin);
  ParseStatus finish(std::size_t consumed);
  ParseStatus fail(std::string_view what);

  std::vector<std::string_view> args_;
  std::size_t consumed_ = 0;
  std::size_t needed_ = 0;
  std::int64_t missing_ = 0;  // arguments still to come; 0: at the beginning of a request
  std::int64_t length_ = -1;  // of the bulk string at position_; -1: its header is still to be read
  std::size_t position_ = 0;  // of the first byte not yet understood
  std::size_t searched_ = 0;  // up to here the line at position_ has been searched for its end
  bool endless_ = false;      // the line at position_ contains a zero byte
  bool authenticated_ = true;
  std::vector<Piece> pieces_;  // the arguments that earlier calls have read
  std::string unquoted_;       // inline arguments that had quotes
  std::string error_;
  Limits limits_;
};

}  // namespace isthmus::resp
