// The reply reader: every form of RESP2 and RESP3, split everywhere, and peers that lie.
#include "resp/reply_reader.hpp"

#include <cmath>
#include <cstddef>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus::resp {

void PrintTo(const Value& value, std::ostream* out) { *out << value.mark << ' ' << to_text(value); }

namespace {

using Type = Value::Type;

Value value_of(Type type, char mark, const std::string& text = "") {
  Value value;
  value.type = type;
  value.mark = mark;
  value.text = text;
  return value;
}

Value bulk(const std::string& text) { return value_of(Type::bulk, '$', text); }
Value simple(const std::string& text) { return value_of(Type::simple, '+', text); }
Value error(const std::string& text) { return value_of(Type::error, '-', text); }

Value integer(std::int64_t number, const std::string& text) {
  Value value = value_of(Type::integer, ':', text);
  value.integer = number;
  return value;
}

Value integer(std::int64_t number) { return integer(number, std::to_string(number)); }

Value dbl(double number, const std::string& text) {
  Value value = value_of(Type::dbl, ',', text);
  value.number = number;
  return value;
}

Value boolean(bool truth) {
  Value value = value_of(Type::boolean, '#', truth ? "t" : "f");
  value.integer = truth ? 1 : 0;
  return value;
}

Value verbatim(const std::string& format, const std::string& text) {
  Value value = value_of(Type::verbatim, '=', text);
  value.format = format;
  return value;
}

Value aggregate(Type type, char mark, std::vector<Value> items) {
  Value value = value_of(type, mark);
  value.items = std::move(items);
  return value;
}

Value array(std::vector<Value> items) { return aggregate(Type::array, '*', std::move(items)); }

Value with_attributes(Value value, std::vector<Value> attributes) {
  value.attributes = std::move(attributes);
  return value;
}

struct Outcome {
  std::vector<Value> values;
  std::string error;
  bool operator==(const Outcome&) const = default;
};

void PrintTo(const Outcome& outcome, std::ostream* out) {
  *out << ::testing::PrintToString(outcome.values) << ", error \"" << outcome.error << '"';
}

Outcome read_in_pieces(std::string_view stream, std::size_t first, std::size_t step,
                       const ReplyLimits& limits) {
  ReplyReader reader(limits);
  Outcome outcome;
  std::size_t from = 0;
  std::size_t size = first;
  while (true) {
    reader.feed(stream.substr(from, size));
    from = std::min(from + size, stream.size());
    Value value;
    ReplyReader::Status status = reader.next(value);
    for (; status == ReplyReader::Status::value; status = reader.next(value)) outcome.values.push_back(value);
    outcome.error = reader.error();
    if (from == stream.size() || status == ReplyReader::Status::error) return outcome;
    size = step;
  }
}

void expect_however_split(std::string_view stream, const Outcome& expected, const ReplyLimits& limits = {}) {
  SCOPED_TRACE(::testing::PrintToString(std::string(stream)));
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    EXPECT_EQ(read_in_pieces(stream, cut, stream.size(), limits), expected) << "cut at " << cut;
  }
  EXPECT_EQ(read_in_pieces(stream, 1, 1, limits), expected) << "byte by byte";
}

TEST(ReplyReader, ReadsEveryType) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<std::pair<std::string, Value>> cases = {
      {"+OK\r\n", simple("OK")},
      {"+\r\n", simple("")},
      {"-ERR no such key\r\n", error("ERR no such key")},
      {":0\r\n", integer(0)},
      {":-9223372036854775808\r\n", integer(std::numeric_limits<std::int64_t>::min())},
      {":9223372036854775807\r\n", integer(std::numeric_limits<std::int64_t>::max())},
      {":+7\r\n", integer(7, "+7")},
      {"$0\r\n\r\n", bulk("")},
      {"$5\r\nhello\r\n", bulk("hello")},
      {"$6\r\n\r\n+OK\n\r\n", bulk("\r\n+OK\n")},
      {"$-1\r\n", value_of(Type::null, '$')},
      {"*-1\r\n", value_of(Type::null, '*')},
      {"_\r\n", value_of(Type::null, '_')},
      {"*0\r\n", array({})},
      {"*2\r\n:1\r\n$1\r\na\r\n", array({integer(1), bulk("a")})},
      {"*2\r\n*1\r\n*0\r\n*1\r\n+x\r\n", array({array({array({})}), array({simple("x")})})},
      {"%0\r\n", aggregate(Type::map, '%', {})},
      {"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n_\r\n",
       aggregate(Type::map, '%', {simple("a"), integer(1), simple("b"), array({value_of(Type::null, '_')})})},
      {"~2\r\n:1\r\n:2\r\n", aggregate(Type::set, '~', {integer(1), integer(2)})},
      {">3\r\n+message\r\n$1\r\nc\r\n$1\r\np\r\n",
       aggregate(Type::push, '>', {simple("message"), bulk("c"), bulk("p")})},
      {",3.141\r\n", dbl(3.141, "3.141")},
      {",-1e+21\r\n", dbl(-1e21, "-1e+21")},
      {",10\r\n", dbl(10, "10")},
      {",inf\r\n", dbl(infinity, "inf")},
      {",-inf\r\n", dbl(-infinity, "-inf")},
      {",nan\r\n", dbl(std::nan(""), "nan")},
      {"#t\r\n", boolean(true)},
      {"#f\r\n", boolean(false)},
      {"=8\r\ntxt:abcd\r\n", verbatim("txt", "abcd")},
      {"=4\r\nmkd:\r\n", verbatim("mkd", "")},
      {"!5\r\nERR a\r\n", value_of(Type::error, '!', "ERR a")},
      {"(3492890328409238509324850943850943825024385\r\n",
       value_of(Type::big_number, '(', "3492890328409238509324850943850943825024385")},
      {"(-1\r\n", value_of(Type::big_number, '(', "-1")},
  };
  for (const auto& [stream, value] : cases) {
    expect_however_split(stream, {{value}, ""});
    expect_however_split(stream + stream, {{value, value}, ""});
    expect_however_split("*2\r\n" + stream + stream, {{array({value, value})}, ""});
  }
}

TEST(ReplyReader, HandsAttributesToTheValueBehindThem) {
  const std::vector<Value> popularity = {bulk("key"), array({bulk("k"), integer(90)})};
  const std::string attribute = "|1\r\n$3\r\nkey\r\n*2\r\n$1\r\nk\r\n:90\r\n";
  for (const auto& [stream, value] :
       std::vector<std::pair<std::string, Value>>{{"$1\r\na\r\n", bulk("a")},
                                                  {"+a\r\n", simple("a")},
                                                  {"*1\r\n:1\r\n", array({integer(1)})},
                                                  {"*0\r\n", array({})},
                                                  {"*-1\r\n", value_of(Type::null, '*')},
                                                  {"$-1\r\n", value_of(Type::null, '$')}}) {
    expect_however_split(attribute + stream, {{with_attributes(value, popularity)}, ""});
    expect_however_split("*2\r\n:1\r\n" + attribute + stream,
                         {{array({integer(1), with_attributes(value, popularity)})}, ""});
    expect_however_split("|0\r\n" + stream, {{value}, ""});
  }
  expect_however_split(
      "|1\r\n+a\r\n+b\r\n|1\r\n+c\r\n+d\r\n|0\r\n:1\r\n:2\r\n",
      {{with_attributes(integer(1), {simple("a"), simple("b"), simple("c"), simple("d")}), integer(2)}, ""});
}

TEST(ReplyReader, WaitsForTheRest) {
  for (const std::string stream :
       {"", "+", "+OK", "+OK\r", "$", "$5", "$5\r\n", "$5\r\nhello", "$5\r\nhello\r", "*1\r\n",
        "*2\r\n:1\r\n", "|1\r\n+a\r\n+b\r\n", "%1\r\n+a\r\n", "*4\r\n*4\r\n*4\r\n"}) {
    expect_however_split(stream, {{}, ""});
  }
}

std::string reader_error(const std::string& what) { return "protocol error in a reply: " + what; }

TEST(ReplyReader, RefusesWhatIsNotResp) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"hello\r\n", "no reply begins with the byte 104"},
      {"\xff\r\n", "no reply begins with the byte 255"},
      {"\r\n", "an empty line where a reply should begin"},
      {"+OK\n", "a line that ends in LF alone"},
      {"+O\rK\r\n", "a CR inside a line"},
      {"+OK\r\r\n", "a CR inside a line"},
      {":\r\n", "malformed integer"},
      {":1x\r\n", "malformed integer"},
      {":+-1\r\n", "malformed integer"},
      {": 1\r\n", "malformed integer"},
      {":9223372036854775808\r\n", "malformed integer"},
      {"_x\r\n", "malformed null"},
      {"#\r\n", "malformed boolean"},
      {"#true\r\n", "malformed boolean"},
      {",\r\n", "malformed double"},
      {",1.5x\r\n", "malformed double"},
      {"(\r\n", "malformed big number"},
      {"(-\r\n", "malformed big number"},
      {"(1.5\r\n", "malformed big number"},
      {"$\r\n", "malformed length of a bulk string"},
      {"$3abc\r\n", "malformed length of a bulk string"},
      {"$-2\r\n", "malformed length of a bulk string"},
      {"$+1\r\n", "malformed length of a bulk string"},
      {"$?\r\n", "malformed length of a bulk string"},
      {"!-1\r\n", "malformed length of a bulk string"},
      {"$18446744073709551616\r\n", "malformed length of a bulk string"},
      {"$18446744073709551615\r\n", "bulk string too long"},
      {"$536870913\r\n", "bulk string too long"},
      {"$3\r\nabcde", "no line end behind a bulk string"},
      {"$3\r\nabc\n\n", "no line end behind a bulk string"},
      {"=3\r\ntxt\r\n", "malformed verbatim string"},
      {"=5\r\nabcde\r\n", "malformed verbatim string"},
      {"*\r\n", "malformed length of an aggregate"},
      {"*x\r\n", "malformed length of an aggregate"},
      {"*-2\r\n", "malformed length of an aggregate"},
      {"%-1\r\n", "malformed length of an aggregate"},
      {"~-1\r\n", "malformed length of an aggregate"},
      {"*?\r\n", "malformed length of an aggregate"},
      {"*18446744073709551615\r\n", "too many values in one reply"},
      {"%9223372036854775808\r\n", "too many values in one reply"},
  };
  for (const auto& [stream, what] : cases) {
    expect_however_split(stream, {{}, reader_error(what)});
    expect_however_split("+OK\r\n*2\r\n:1\r\n" + stream, {{simple("OK")}, reader_error(what)});
  }
}

TEST(ReplyReader, StaysInError) {
  ReplyReader reader;
  reader.feed("x\r\n+OK\r\n");
  Value value;
  EXPECT_EQ(reader.next(value), ReplyReader::Status::error);
  reader.feed("+OK\r\n");
  EXPECT_EQ(reader.next(value), ReplyReader::Status::error);
}

TEST(ReplyReader, ObeysItsLimits) {
  ReplyLimits limits;
  limits.max_bulk = 10;
  limits.max_line = 12;
  limits.max_values = 5;
  limits.max_bytes = 40;
  limits.max_depth = 2;
  expect_however_split("$10\r\n0123456789\r\n", {{bulk("0123456789")}, ""}, limits);
  expect_however_split("$11\r\n", {{}, reader_error("bulk string too long")}, limits);
  expect_however_split("+12345678901\r\n", {{simple("12345678901")}, ""}, limits);
  expect_however_split("+123456789012\r\n", {{}, reader_error("line too long")}, limits);
  expect_however_split("+1234567890123456", {{}, reader_error("line too long")}, limits);
  expect_however_split("*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n",
                       {{array({integer(1), integer(2), integer(3), integer(4)})}, ""}, limits);
  expect_however_split("*5\r\n:1\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
                       {{}, reader_error("too many values in one reply")}, limits);
  expect_however_split("*6\r\n", {{}, reader_error("too many values in one reply")}, limits);
  expect_however_split("*1\r\n*1\r\n:1\r\n", {{array({array({integer(1)})})}, ""}, limits);
  expect_however_split("*1\r\n*1\r\n*0\r\n", {{array({array({array({})})})}, ""}, limits);
  expect_however_split("*1\r\n*1\r\n*1\r\n", {{}, reader_error("reply nested too deeply")}, limits);
  expect_however_split("|1\r\n|1\r\n|1\r\n", {{}, reader_error("reply nested too deeply")}, limits);
  expect_however_split("*3\r\n$8\r\n12345678\r\n$8\r\n12345678\r\n$8\r\n",
                       {{}, reader_error("reply too long")}, limits);
  // Each limit is for one reply.
  expect_however_split(
      "*4\r\n:1\r\n:2\r\n:3\r\n:4\r\n*1\r\n:1\r\n$10\r\n0123456789\r\n",
      {{array({integer(1), integer(2), integer(3), integer(4)}), array({integer(1)}), bulk("0123456789")},
       ""},
      limits);
}

TEST(ReplyReader, ReadsManyRepliesWithoutKeepingThem) {
  ReplyReader reader;
  Value value;
  const std::string pair = "$1000\r\n" + std::string(1000, 'x') + "\r\n";
  for (int i = 0; i < 1000; ++i) {
    reader.feed(pair);
    reader.feed(std::string_view(pair).substr(0, 500));
    ASSERT_EQ(reader.next(value), ReplyReader::Status::value);
    ASSERT_EQ(reader.next(value), ReplyReader::Status::need_more);
    ASSERT_EQ(reader.buffered(), 500U - 7U);
    reader.feed(std::string_view(pair).substr(500));
    ASSERT_EQ(reader.next(value), ReplyReader::Status::value);
    ASSERT_EQ(value, bulk(std::string(1000, 'x')));
    ASSERT_EQ(reader.buffered(), 0U);
  }
}

TEST(ReplyReader, ReadsALongReplyInSmallPieces) {
  std::string stream = "*20000\r\n";
  for (int i = 0; i < 20000; ++i) stream += "$3\r\nabc\r\n";
  const Outcome outcome = read_in_pieces(stream, 1, 7, {});
  ASSERT_EQ(outcome.values.size(), 1U);
  EXPECT_THAT(outcome.values[0].items, ::testing::SizeIs(20000));
  EXPECT_THAT(outcome.values[0].items, ::testing::Each(bulk("abc")));
}

TEST(EncodeRequest, WritesAnArrayOfBulkStrings) {
  EXPECT_EQ(encode_request({"SET", "k", ""}), "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$0\r\n\r\n");
  const std::vector<std::string_view> args = {"PING"};
  std::string out = encode_request(args);
  append_request(out, args);
  EXPECT_EQ(out, "*1\r\n$4\r\nPING\r\n*1\r\n$4\r\nPING\r\n");
}

TEST(ToText, ShowsValuesAsRedisCliDoes) {
  const std::vector<std::pair<Value, std::string>> cases = {
      {simple("OK"), "OK"},
      {error("ERR no"), "(error) ERR no"},
      {integer(-3), "(integer) -3"},
      {bulk("a\"b\\\n\r\t\x01\xff"), "\"a\\\"b\\\\\\n\\r\\t\\x01\\xff\""},
      {value_of(Type::null, '$'), "(nil)"},
      {dbl(1.5, "1.5"), "(double) 1.5"},
      {boolean(true), "(true)"},
      {boolean(false), "(false)"},
      {verbatim("txt", "two\nlines"), "two\nlines"},
      {value_of(Type::big_number, '(', "12"), "(big number) 12"},
      {array({}), "(empty array)"},
      {aggregate(Type::map, '%', {}), "(empty hash)"},
      {aggregate(Type::set, '~', {}), "(empty set)"},
      {array({integer(1), array({bulk("a"), bulk("b")}), bulk("c")}),
       "1) (integer) 1\n2) 1) \"a\"\n   2) \"b\"\n3) \"c\""},
      {aggregate(Type::map, '%', {bulk("a"), integer(1), bulk("b"), array({integer(2), integer(3)})}),
       "1# \"a\" => (integer) 1\n2# \"b\" => 1) (integer) 2\n   2) (integer) 3"},
      {aggregate(Type::set, '~', {integer(1), integer(2)}), "1~ (integer) 1\n2~ (integer) 2"},
  };
  for (const auto& [value, text] : cases) EXPECT_EQ(to_text(value), text);
  const std::string eleven = to_text(array(std::vector<Value>(11, array({integer(1), integer(2)}))));
  EXPECT_THAT(eleven, ::testing::StartsWith(" 1) 1) (integer) 1\n    2) (integer) 2\n 2) 1)"));
  EXPECT_THAT(eleven, ::testing::EndsWith("\n11) 1) (integer) 1\n    2) (integer) 2"));
}

}  // namespace
}  // namespace isthmus::resp
