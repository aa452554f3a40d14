// The request parser against what redis-server 7.0.15 makes of the same bytes, however they are split.
#include "resp/request_parser.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus::resp {
namespace {

using Request = std::vector<std::string>;

struct Outcome {
  std::vector<Request> requests;
  std::string error;
  std::size_t unread = 0;  // bytes at the end that belong to no complete request
  bool operator==(const Outcome&) const = default;
};

std::ostream& operator<<(std::ostream& out, const Outcome& outcome) {
  return out << ::testing::PrintToString(outcome.requests) << ", error \"" << outcome.error << "\", "
             << outcome.unread << " unread";
}

struct Settings {
  Limits limits;
  bool authenticated = true;
};

// Presents a stream to a parser as a connection would: piece after piece, in a new buffer of exactly the
// right size each time, so that a view that outlives its buffer or a read past its end is seen by the address
// sanitizer.
class Connection {
 public:
  explicit Connection(const Settings& settings) {
    parser_.set_limits(settings.limits);
    parser_.set_authenticated(settings.authenticated);
  }

  void receive(std::string_view piece) {
    if (!outcome_.error.empty()) return;
    move_buffer(piece);
    while (parse_one()) {
    }
    outcome_.unread = outcome_.error.empty() ? size_ : 0;
  }

  const Outcome& outcome() const { return outcome_; }

 private:
  void move_buffer(std::string_view more) {
    auto next = std::make_unique<char[]>(size_ + more.size());
    std::copy_n(buffer_.get() + offset_, size_, next.get());
    std::copy(more.begin(), more.end(), next.get() + size_);
    buffer_ = std::move(next);
    offset_ = 0;
    size_ += more.size();
  }

  bool parse_one() {
    const std::string_view input(buffer_.get() + offset_, size_);
    switch (parser_.parse(input)) {
      case ParseStatus::need_more:
        EXPECT_TRUE(parser_.needed() == 0 || parser_.needed() > size_) << parser_.needed() << " of " << size_;
        return false;
      case ParseStatus::error:
        outcome_.error = parser_.error();
        return false;
      case ParseStatus::request:
        break;
    }
    EXPECT_GT(parser_.consumed(), 0U);
    EXPECT_LE(parser_.consumed(), size_);
    outcome_.requests.emplace_back(parser_.args().begin(), parser_.args().end());
    offset_ += parser_.consumed();
    size_ -= parser_.consumed();
    return true;
  }

  RequestParser parser_;
  std::unique_ptr<char[]> buffer_ = std::make_unique<char[]>(0);
  std::size_t offset_ = 0;
  std::size_t size_ = 0;
  Outcome outcome_;
};

Outcome parse_in_pieces(std::string_view stream, const std::vector<std::size_t>& cuts,
                        const Settings& settings = {}) {
  Connection connection(settings);
  std::size_t from = 0;
  for (const std::size_t cut : cuts) {
    connection.receive(stream.substr(from, cut - from));
    from = cut;
  }
  connection.receive(stream.substr(from));
  return connection.outcome();
}

Outcome parse_whole(std::string_view stream, const Settings& settings = {}) {
  return parse_in_pieces(stream, {}, settings);
}

Outcome parse_in_steps(std::string_view stream, std::size_t step, const Settings& settings = {}) {
  std::vector<std::size_t> cuts;
  for (std::size_t cut = step; cut < stream.size(); cut += step) cuts.push_back(cut);
  return parse_in_pieces(stream, cuts, settings);
}

void expect_however_split(std::string_view stream, const Outcome& expected, const Settings& settings = {}) {
  SCOPED_TRACE(::testing::PrintToString(std::string(stream)));
  EXPECT_EQ(parse_whole(stream, settings), expected) << "whole";
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    EXPECT_EQ(parse_in_pieces(stream, {cut}, settings), expected) << "cut at " << cut;
  }
  EXPECT_EQ(parse_in_steps(stream, 1, settings), expected) << "byte by byte";
  EXPECT_EQ(parse_in_steps(stream, 3, settings), expected) << "three bytes at a time";
}

// A literal with zero bytes in it.
template <std::size_t kSize>
std::string bytes(const char (&literal)[kSize]) {
  return {literal, kSize - 1};
}

std::string protocol_error(std::string_view what) { return "ERR Protocol error: " + std::string(what); }

struct Accepted {
  std::string stream;
  std::vector<Request> requests;
  std::size_t unread = 0;
};

TEST(RequestParser, ReadsArraysOfBulkStrings) {
  const std::vector<Accepted> cases = {
      {"", {}},
      {"*1\r\n$4\r\nPING\r\n", {{"PING"}}},
      {"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n", {{"SET", "k", "value"}}},
      {"*2\r\n$4\r\nECHO\r\n$0\r\n\r\n", {{"ECHO", ""}}},
      {"*1\r\n$0\r\n\r\n", {{""}}},
      {"*2\r\n$4\r\nECHO\r\n$12\r\n\r\n$1\r\n*1\r\n\r\n\r\n", {{"ECHO", "\r\n$1\r\n*1\r\n\r\n"}}},
      {bytes("*2\r\n$4\r\nECHO\r\n$3\r\n\0\xff\0\r\n"), {{"ECHO", bytes("\0\xff\0")}}},
      {"*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nQUIT\r\n", {{"PING"}, {"QUIT"}}},
      {"*11\r\n" + std::string("$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n$1\r\nf\r\n") +
           "$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n$1\r\nj\r\n$1\r\nk\r\n",
       {{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"}}},
  };
  for (const Accepted& c : cases) expect_however_split(c.stream, {c.requests, "", c.unread});
}

TEST(RequestParser, SkipsEmptyAndNegativeArraysAndBlankLines) {
  const std::string ping = "*1\r\n$4\r\nPING\r\n";
  for (const std::string nothing : {"*0\r\n", "*-1\r\n", "*-5\r\n", "*-9223372036854775808\r\n", "\r\n", "\n",
                                    "   \r\n", "\r\r\n", " \t\v\f\r\r\n"}) {
    expect_however_split(nothing + ping, {{{}, {"PING"}}, "", 0});
  }
}

TEST(RequestParser, WaitsForTheRest) {
  for (const std::string stream : {"*",
                                   "*1",
                                   "*1\r",
                                   "*1\r\n",
                                   "*1\r\n$",
                                   "*1\r\n$4",
                                   "*1\r\n$4\r",
                                   "*1\r\n$4\r\n",
                                   "*1\r\n$4\r\nPING",
                                   "*1\r\n$4\r\nPING\r",
                                   "*2147483647\r\n",
                                   "*1\r\n$536870912\r\n",
                                   "*x",
                                   "*x\r",
                                   "*1\r\nX",
                                   "*1\r\nX\r",
                                   "*1\r\n$-1\r",
                                   "*1\n",
                                   "PING",
                                   "PING\r",
                                   "\"",
                                   "*1\r\n$9223372036854775808\r"}) {
    expect_however_split(stream, {{}, "", stream.size()});
  }
}

TEST(RequestParser, SkipsTheBytesAfterABulkStringWhateverTheyAre) {
  expect_however_split("*1\r\n$4\r\nPINGPI*1\r\n$4\r\nPING\r\n", {{{"PING"}, {"PING"}}, "", 0});
  expect_however_split("*1\rX$4\rXPINGXXPING\n", {{{"PING"}, {"PING"}}, "", 0});
}

TEST(RequestParser, RefusesMalformedArrayHeaders) {
  for (const std::string stream :
       {"*\r\n", "*-0\r\n", "*01\r\n", "*00\r\n", "*+1\r\n", "* 1\r\n", "*abc\r\n", "*1x\r\n", "*1 \r\n",
        "*-\r\n", "*--1\r\n", "*2147483648\r\n", "*9223372036854775807\r\n", "*9223372036854775808\r\n",
        "*-9223372036854775809\r\n", "*18446744073709551615\r\n", "*000000000000000000000000000000\r\n",
        "*1\n$4\r\nPING\r\n", "*x\ry"}) {
    expect_however_split(stream, {{}, protocol_error("invalid multibulk length"), 0});
  }
}

TEST(RequestParser, RefusesMalformedBulkHeaders) {
  for (const std::string header :
       {"$-1\r\n", "$\r\n", "$04\r\n", "$+4\r\n", "$4 \r\n", "$ 4\r\n", "$-0\r\n", "$4x\r\n", "$x\r\n",
        "$536870913\r\n", "$9223372036854775807\r\n", "$9223372036854775808\r\n", "$18446744073709551615\r\n",
        "$-9223372036854775808\r\n", "$4\nPING\r\n", "$\r\r"}) {
    expect_however_split("*1\r\n" + header, {{}, protocol_error("invalid bulk length"), 0});
    expect_however_split("*2\r\n$1\r\na\r\n" + header, {{}, protocol_error("invalid bulk length"), 0});
  }
}

TEST(RequestParser, NamesTheByteFoundInsteadOfADollar) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"PING\r\n", "P"},
      {"*1\r\n", "*"},
      {":1\r\n", ":"},
      {"'\r\n", "'"},
      {"\x80\r\n", "\x80"},
      {" $4\r\n", " "},
      // A reply is one line.
      {"\r\n", " "},
      {"\r\r\n", " "},
      {"\nx\r\n", " "},
  };
  for (const auto& [header, shown] : cases) {
    expect_however_split("*1\r\n" + header, {{}, protocol_error("expected '$', got '" + shown + "'"), 0});
  }
}

TEST(RequestParser, KeepsTheRequestsBeforeAnError) {
  expect_however_split("PING\r\n*1\r\n$4\r\nQUIT\r\n*x\r\n",
                       {{{"PING"}, {"QUIT"}}, protocol_error("invalid multibulk length"), 0});
}

TEST(RequestParser, StaysInError) {
  RequestParser parser;
  ASSERT_EQ(parser.parse("*x\r\n"), ParseStatus::error);
  EXPECT_EQ(parser.parse("*1\r\n$4\r\nPING\r\n"), ParseStatus::error);
  EXPECT_EQ(parser.parse(""), ParseStatus::error);
  EXPECT_EQ(parser.error(), protocol_error("invalid multibulk length"));
  EXPECT_TRUE(parser.args().empty());
}

TEST(RequestParser, ReadsInlineCommands) {
  const std::vector<Accepted> cases = {
      {"PING\n", {{"PING"}}},
      {"PING\r\n", {{"PING"}}},
      {"ping  \t \r\n", {{"ping"}}},
      {"  SET\tk   v\r\n", {{"SET", "k", "v"}}},
      {"PING\r\nPING\nPING\r\n", {{"PING"}, {"PING"}, {"PING"}}},
      {"\vPING\r\n", {{"PING"}}},
      {"ECHO a\vb\r\n", {{"ECHO", "a\vb"}}},
      {"ECHO a\fb\r\n", {{"ECHO", "a\fb"}}},
      {"ECHO a\rb\r\n", {{"ECHO", "a", "b"}}},
      {"ECHO a\r\r\n", {{"ECHO", "a"}}},
      {"ECHO \xff\x80\r\n", {{"ECHO", "\xff\x80"}}},
      {"ECHO \\x41\r\n", {{"ECHO", "\\x41"}}},
      {"$4\r\nPING\r\n", {{"$4"}, {"PING"}}},
      {"+*1\r\n", {{"+*1"}}},
  };
  for (const Accepted& c : cases) expect_however_split(c.stream, {c.requests, "", c.unread});
}

TEST(RequestParser, ReadsQuotedInlineArguments) {
  const std::vector<Accepted> cases = {
      {"ECHO \"a b\"\r\n", {{"ECHO", "a b"}}},
      {"ECHO \"a\\n\\r\\t\\b\\a\\x41\\xfF\\q\\\"\\\\\"\r\n", {{"ECHO", "a\n\r\t\b\aA\xffq\"\\"}}},
      {"ECHO 'a\\n\\'b\"'\r\n", {{"ECHO", "a\\n'b\""}}},
      {"ECHO \"'\"\r\n", {{"ECHO", "'"}}},
      {"ECHO \"\"\r\n", {{"ECHO", ""}}},
      {"ECHO ''\r\n", {{"ECHO", ""}}},
      {"\"\"\r\n", {{""}}},
      {"ECHO a\"b c\"\r\n", {{"ECHO", "ab c"}}},
      {"ECHO a'b c'\r\n", {{"ECHO", "ab c"}}},
      {"ECHO \"a\"\v\r\n", {{"ECHO", "a"}}},
      {"ECHO \"\\x4\"\r\n", {{"ECHO", "x4"}}},
      {"ECHO \"\\xg1\"\r\n", {{"ECHO", "xg1"}}},
      {"ECHO \"\\x00\"\r\n", {{"ECHO", bytes("\0")}}},
      {"\"ECHO\" \"x\"\r\n", {{"ECHO", "x"}}},
      {"\"a\" b 'c d' \"\" e\"f\" g\n", {{"a", "b", "c d", "", "ef", "g"}}},
      {"ECHO \"a\rb\"\r\n", {{"ECHO", "a\rb"}}},
  };
  for (const Accepted& c : cases) expect_however_split(c.stream, {c.requests, "", c.unread});
}

TEST(RequestParser, RefusesUnbalancedQuotes) {
  for (const std::string line : {"ECHO \"a\"b", "ECHO 'a'b", "ECHO \"a", "ECHO 'a", "ECHO \"a\\",
                                 "ECHO \"a\\\"", "ECHO 'a\\'", "ECHO '\\\\'", "ECHO \"\\x4", "ECHO \"\\x",
                                 "ECHO \"a\"\"b\"", "ECHO a\\\"b", "\"", "'", "ECHO ''''"}) {
    expect_however_split(line + "\r\n", {{}, protocol_error("unbalanced quotes in request"), 0});
  }
  expect_however_split("ECHO \"a\r\nb\"\r\n", {{}, protocol_error("unbalanced quotes in request"), 0});
}

TEST(RequestParser, KeepsInlineArgumentsUntilTheNextCall) {
  RequestParser parser;
  ASSERT_EQ(parser.parse("ECHO \"a\\x00b\" c'd e' plain\r\nPING\r\n"), ParseStatus::request);
  EXPECT_THAT(parser.args(), ::testing::ElementsAre("ECHO", bytes("a\0b"), "cd e", "plain"));
  EXPECT_EQ(parser.consumed(), 28U);
}

TEST(RequestParser, KeepsManyLongInlineArguments) {
  const std::string word(3000, 'w');
  std::string line;
  for (int i = 0; i < 10; ++i) line += "\"" + word + "\" '" + word + "' ";
  const std::string stream = line + "\nPING\n";
  for (const std::size_t step : {std::size_t{1000}, stream.size()}) {
    EXPECT_EQ(parse_in_steps(stream, step), (Outcome{{Request(20, word), {"PING"}}, "", 0}));
  }
}

TEST(RequestParser, NeverEndsALineThatContainsAZeroByte) {
  for (const std::string& stream : {bytes("ECHO a\0b\r\nPING\r\n"), bytes("\0*1\r\n"),
                                    bytes("*1\0\r\n$4\r\nPING\r\n"), bytes("*1\r\n\0\r\n$4\r\nPING\r\n"),
                                    bytes("*1\r\n$\0"
                                          "4\r\nPING\r\n")}) {
    expect_however_split(stream, {{}, "", stream.size()});
  }
  // A zero byte behind the end is the next request's matter.
  expect_however_split(bytes("PING\n\0\n"), {{{"PING"}}, "", 2});
}

// The limit of a line counts what comes before the byte that ends it.
struct LongLine {
  std::string before;
  char first;
  char filler;
  std::string end;
  std::string too_long;
  std::string if_ended;
};

const std::vector<LongLine>& long_lines() {
  static const std::vector<LongLine> lines = {
      {"", 'x', 'x', "\n", "too big inline request", ""},
      {"", '*', '1', "\r\n", "too big mbulk count string", "invalid multibulk length"},
      {"*1\r\n", '$', '1', "\r\n", "too big bulk count string", "invalid bulk length"},
      {"*1\r\n", 'X', '1', "\r\n", "too big bulk count string", "expected '$', got 'X'"},
      {"", '\0', '\n', "\n", "too big inline request", "too big inline request"},
      {"*1\r\n", '\0', '\r', "\r\n", "too big bulk count string", "too big bulk count string"},
  };
  return lines;
}

std::string line_of(const LongLine& line, std::size_t size) {
  return line.before + line.first + std::string(size - 1, line.filler);
}

TEST(RequestParser, LimitsTheLengthOfALine) {
  Settings settings;
  settings.limits.max_inline = 40;
  for (const LongLine& line : long_lines()) {
    const std::string at_limit = line_of(line, 40);
    expect_however_split(at_limit, {{}, "", at_limit.size()}, settings);
    expect_however_split(line_of(line, 41), {{}, protocol_error(line.too_long), 0}, settings);
    // However many bytes arrive at once, an end behind the limit comes too late.
    expect_however_split(line_of(line, 41) + line.end, {{}, protocol_error(line.too_long), 0}, settings);
    const Outcome ended = line.if_ended.empty() ? Outcome{{{std::string(40, 'x')}}, "", 0}
                                                : Outcome{{}, protocol_error(line.if_ended), 0};
    expect_however_split(at_limit + line.end, ended, settings);
  }
}

TEST(RequestParser, LimitsALineTo64KiBUnlessSet) {
  for (const LongLine& line : long_lines()) {
    const std::string at_limit = line_of(line, 65536);
    EXPECT_EQ(parse_in_steps(at_limit, 16384), (Outcome{{}, "", at_limit.size()}));
    EXPECT_EQ(parse_in_steps(at_limit + line.filler, 16384), (Outcome{{}, protocol_error(line.too_long), 0}));
    EXPECT_EQ(parse_whole(at_limit + line.filler), (Outcome{{}, protocol_error(line.too_long), 0}));
  }
}

TEST(RequestParser, LimitsUnauthenticatedRequests) {
  const Settings stranger{{}, false};
  const std::string fits = "*1\r\n$16384\r\n" + std::string(16384, 'x') + "\r\n";
  EXPECT_EQ(parse_whole(fits, stranger), (Outcome{{{std::string(16384, 'x')}}, "", 0}));
  expect_however_split("*10\r\n", {{}, "", 5}, stranger);
  expect_however_split("*11\r\n", {{}, protocol_error("unauthenticated multibulk length"), 0}, stranger);
  expect_however_split("*1\r\n$16385\r\n", {{}, protocol_error("unauthenticated bulk length"), 0}, stranger);
  // What nobody may send is refused in the usual words.
  expect_however_split("*1\r\n$536870913\r\n", {{}, protocol_error("invalid bulk length"), 0}, stranger);
  expect_however_split("*2147483648\r\n", {{}, protocol_error("invalid multibulk length"), 0}, stranger);
}

TEST(RequestParser, TakesNewLimitsBetweenTwoPipelinedRequests) {
  const std::string stream = "AUTH pw\r\n*1\r\n$16385\r\n" + std::string(16385, 'x') + "\r\n";
  RequestParser parser;
  parser.set_authenticated(false);
  ASSERT_EQ(parser.parse(stream), ParseStatus::request);
  parser.set_authenticated(true);
  ASSERT_EQ(parser.parse(std::string_view(stream).substr(parser.consumed())), ParseStatus::request);
  EXPECT_EQ(parser.args()[0].size(), 16385U);
}

TEST(RequestParser, ObeysConfiguredLimits) {
  Settings settings;
  settings.limits.max_bulk = 5;
  settings.limits.max_multibulk = 2;
  expect_however_split("*2\r\n$5\r\nabcde\r\n$0\r\n\r\n", {{{"abcde", ""}}, "", 0}, settings);
  expect_however_split("*1\r\n$6\r\nabcdef\r\n", {{}, protocol_error("invalid bulk length"), 0}, settings);
  expect_however_split("*3\r\n", {{}, protocol_error("invalid multibulk length"), 0}, settings);
  // Limits of an array do not bind an inline command.
  expect_however_split("abcdef 2 3 4\n", {{{"abcdef", "2", "3", "4"}}, "", 0}, settings);
}

TEST(RequestParser, SaysHowManyBytesABulkStringNeeds) {
  RequestParser parser;
  ASSERT_EQ(parser.parse("*2\r\n$3\r\nSET\r\n$1000\r\nxyz"), ParseStatus::need_more);
  EXPECT_EQ(parser.needed(), 13U + 7U + 1000U + 2U);
  ASSERT_EQ(parser.parse("*2\r\n$3\r\nSET\r\n$1000\r\nxyzxyz"), ParseStatus::need_more);
  EXPECT_EQ(parser.needed(), 13U + 7U + 1000U + 2U);
  RequestParser other;
  ASSERT_EQ(other.parse("*2\r\n$3\r\nSET\r\n$10"), ParseStatus::need_more);
  EXPECT_EQ(other.needed(), 0U);
}

TEST(RequestParser, AllocatesNothingForWhatAHeaderPromises) {
  RequestParser parser;
  ASSERT_EQ(parser.parse("*2147483647\r\n$536870912\r\n"), ParseStatus::need_more);
  EXPECT_TRUE(parser.args().empty());
}

TEST(RequestParser, ReusesItsMemory) {
  const std::string_view small = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
  RequestParser parser;
  ASSERT_EQ(parser.parse(small), ParseStatus::request);
  const void* const first = parser.args().data();
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(parser.parse(small.substr(0, 20)), ParseStatus::need_more);
    ASSERT_EQ(parser.parse(small), ParseStatus::request);
    ASSERT_EQ(parser.args().data(), first);
    ASSERT_EQ(parser.parse("SET \"k\" v\r\n"), ParseStatus::request);
    ASSERT_EQ(parser.args().data(), first);
  }
}

std::string many_arguments(std::size_t count) {
  std::string stream = "*" + std::to_string(count) + "\r\n";
  for (std::size_t i = 0; i < count; ++i) {
    const std::string argument = std::to_string(i);
    stream += "$" + std::to_string(argument.size()) + "\r\n" + argument + "\r\n";
  }
  return stream;
}

TEST(RequestParser, ReadsManyArgumentsInPieces) {
  const std::string stream = many_arguments(100'000) + "PING\r\n";
  for (const std::size_t step : {std::size_t{997}, std::size_t{16384}, stream.size()}) {
    RequestParser parser;
    std::size_t size = 0;
    ParseStatus status = ParseStatus::need_more;
    while (status == ParseStatus::need_more && size < stream.size()) {
      size = std::min(size + step, stream.size());
      // A copy, so that the buffer moves each time.
      const std::string buffer = stream.substr(0, size);
      status = parser.parse(buffer);
      if (status != ParseStatus::request) continue;
      ASSERT_EQ(parser.args().size(), 100'000U);
      for (std::size_t i = 0; i < parser.args().size(); ++i) ASSERT_EQ(parser.args()[i], std::to_string(i));
      EXPECT_EQ(parser.consumed(), stream.size() - 6);
    }
    EXPECT_EQ(status, ParseStatus::request);
    parser.trim();
    EXPECT_TRUE(parser.args().empty());
    ASSERT_EQ(parser.parse("PING\r\n"), ParseStatus::request);
    EXPECT_THAT(parser.args(), ::testing::ElementsAre("PING"));
  }
}

// Linear cost: a byte that has been read is not read again. Proof by taking such bytes away: everything
// further back than the longest header a parser may be in the middle of is overwritten, and a parser that
// looked there would see other lengths, another count or an early end. The pieces are of one byte, so that
// nothing is read twice within a call either.
constexpr std::size_t kLookBack = 24;

TEST(RequestParser, LooksAtNoArgumentTwice) {
  const std::string stream = many_arguments(5'000);
  std::string buffer = stream;
  RequestParser parser;
  ParseStatus status = ParseStatus::need_more;
  for (std::size_t size = 1; size <= stream.size(); ++size) {
    status = parser.parse(std::string_view(buffer).substr(0, size));
    if (status != ParseStatus::need_more) break;
    if (size > kLookBack) buffer[size - kLookBack] = '\r';
  }
  ASSERT_EQ(status, ParseStatus::request);
  EXPECT_EQ(parser.args().size(), 5'000U);
  EXPECT_EQ(parser.consumed(), stream.size());
}

TEST(RequestParser, LooksAtNoByteOfALineTwiceForItsEnd) {
  const std::vector<std::pair<std::string, std::string>> lines = {
      {"", "\n"}, {"*", "\r\n"}, {"*1\r\n$", "\r\n"}};
  for (const auto& [before, end] : lines) {
    const std::string stream = before + std::string(60'000, 'a') + end;
    std::string buffer = stream;
    RequestParser parser;
    std::size_t size = 1;
    while (parser.parse(std::string_view(buffer).substr(0, size)) == ParseStatus::need_more) {
      ASSERT_LT(size, stream.size());
      // Would end the line there and then, were it seen.
      if (size > before.size() + kLookBack) buffer[size - kLookBack] = end.front();
      ++size;
    }
    EXPECT_EQ(size, stream.size());
  }
}

TEST(RequestParser, LooksAtNoByteOfABulkStringBeforeTheLast) {
  const std::string header = "*1\r\n$1000000\r\n";
  const std::string stream = header + std::string(1'000'000, 'x') + "\r\n";
  RequestParser parser;
  ASSERT_EQ(parser.parse(header), ParseStatus::need_more);
  ASSERT_EQ(parser.needed(), stream.size());
  // Nothing is behind this view but its size: whoever read it would crash.
  const char* const nowhere = reinterpret_cast<const char*>(std::uintptr_t{4096});
  for (std::size_t size = header.size(); size < stream.size(); size += 99) {
    ASSERT_EQ(parser.parse(std::string_view(nowhere, size)), ParseStatus::need_more);
  }
  ASSERT_EQ(parser.parse(stream), ParseStatus::request);
  EXPECT_EQ(parser.args()[0], std::string(1'000'000, 'x'));
}

}  // namespace
}  // namespace isthmus::resp
