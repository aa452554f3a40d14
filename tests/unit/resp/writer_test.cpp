// Each reply in RESP2 and RESP3, as redis-server 7.0.15 writes it (DEBUG PROTOCOL and ordinary commands).
#include "resp/writer.hpp"

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "resp/reply_reader.hpp"

namespace isthmus::resp {
namespace {

using Write = std::function<void(Writer&)>;

std::string written(const Write& write, int protocol) {
  std::string out;
  Writer writer(out, protocol);
  write(writer);
  return out;
}

struct Case {
  std::string name;
  Write write;
  std::string resp2;
  std::string resp3;
};

Case same(const std::string& name, Write write, const std::string& bytes) {
  return {name, std::move(write), bytes, bytes};
}

TEST(Writer, WritesEachReplyInBothProtocols) {
  const double infinity = std::numeric_limits<double>::infinity();
  const std::vector<Case> cases = {
      same(
          "simple", [](Writer& w) { w.simple("PONG"); }, "+PONG\r\n"),
      same(
          "ok", [](Writer& w) { w.ok(); }, "+OK\r\n"),
      same(
          "queued", [](Writer& w) { w.queued(); }, "+QUEUED\r\n"),
      same(
          "error", [](Writer& w) { w.error("ERR no such key"); }, "-ERR no such key\r\n"),
      same(
          "error of many lines", [](Writer& w) { w.error("ERR unknown command 'foo\r\nbar\r', with"); },
          "-ERR unknown command 'foo  bar ', with\r\n"),
      same(
          "empty array", [](Writer& w) { w.array(0); }, "*0\r\n"),
      same(
          "array", [](Writer& w) { w.array(3); }, "*3\r\n"),
      same(
          "raw", [](Writer& w) { w.raw(":1\r\n"); }, ":1\r\n"),
      same(
          "bulk integer", [](Writer& w) { w.bulk_integer(-17); }, "$3\r\n-17\r\n"),
      same(
          "least bulk integer", [](Writer& w) { w.bulk_integer(std::numeric_limits<std::int64_t>::min()); },
          "$20\r\n-9223372036854775808\r\n"),
      {"null", [](Writer& w) { w.null(); }, "$-1\r\n", "_\r\n"},
      {"null array", [](Writer& w) { w.null_array(); }, "*-1\r\n", "_\r\n"},
      {"map", [](Writer& w) { w.map(7); }, "*14\r\n", "%7\r\n"},
      {"set", [](Writer& w) { w.set(12); }, "*12\r\n", "~12\r\n"},
      {"push", [](Writer& w) { w.push(3); }, "*3\r\n", ">3\r\n"},
      {"true", [](Writer& w) { w.boolean(true); }, ":1\r\n", "#t\r\n"},
      {"false", [](Writer& w) { w.boolean(false); }, ":0\r\n", "#f\r\n"},
      {"verbatim", [](Writer& w) { w.verbatim("txt", "This is a verbatim\nstring"); },
       "$25\r\nThis is a verbatim\nstring\r\n", "=29\r\ntxt:This is a verbatim\nstring\r\n"},
      {"double", [](Writer& w) { w.dbl(3.141); }, "$5\r\n3.141\r\n", ",3.141\r\n"},
      {"whole double", [](Writer& w) { w.dbl(17179869184.0); }, "$11\r\n17179869184\r\n", ",17179869184\r\n"},
      {"inexact double", [](Writer& w) { w.dbl(0.1); }, "$19\r\n0.10000000000000001\r\n",
       ",0.10000000000000001\r\n"},
      {"large double", [](Writer& w) { w.dbl(1e21); }, "$5\r\n1e+21\r\n", ",1e+21\r\n"},
      {"small double", [](Writer& w) { w.dbl(1e-7); }, "$22\r\n9.9999999999999995e-08\r\n",
       ",9.9999999999999995e-08\r\n"},
      {"longest double", [](Writer& w) { w.dbl(-std::numeric_limits<double>::max()); },
       "$24\r\n-1.7976931348623157e+308\r\n", ",-1.7976931348623157e+308\r\n"},
      {"infinity", [=](Writer& w) { w.dbl(infinity); }, "$3\r\ninf\r\n", ",inf\r\n"},
      {"negative infinity", [=](Writer& w) { w.dbl(-infinity); }, "$4\r\n-inf\r\n", ",-inf\r\n"},
      {"not a number", [](Writer& w) { w.dbl(std::numeric_limits<double>::quiet_NaN()); }, "$3\r\nnan\r\n",
       ",nan\r\n"},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(written(c.write, 2), c.resp2) << c.name;
    EXPECT_EQ(written(c.write, 3), c.resp3) << c.name;
  }
}

TEST(Writer, WritesIntegersOfEveryLength) {
  std::vector<std::int64_t> values = {0, std::numeric_limits<std::int64_t>::max(),
                                      std::numeric_limits<std::int64_t>::min()};
  for (std::int64_t i = 1; i < 1200; ++i) values.push_back(i);
  for (std::int64_t power = 1; power <= std::numeric_limits<std::int64_t>::max() / 10; power *= 10) {
    values.insert(values.end(), {power, power - 1, -power, 1 - power});
  }
  for (const std::int64_t value : values) {
    EXPECT_EQ(written([=](Writer& w) { w.integer(value); }, 2), ":" + std::to_string(value) + "\r\n");
    const std::string digits = std::to_string(value);
    EXPECT_EQ(written([=](Writer& w) { w.bulk_integer(value); }, 3),
              "$" + std::to_string(digits.size()) + "\r\n" + digits + "\r\n");
  }
}

TEST(Writer, WritesBulkStringsOfEveryLength) {
  for (std::size_t size = 0; size < 1200; ++size) {
    const std::string text(size, '\0');
    EXPECT_EQ(written([&](Writer& w) { w.bulk(text); }, 2),
              "$" + std::to_string(size) + "\r\n" + text + "\r\n");
  }
  EXPECT_EQ(written([](Writer& w) { w.bulk({}); }, 3), "$0\r\n\r\n");
}

TEST(Writer, AppendsAndFollowsAChangeOfProtocol) {
  std::string out = "+before\r\n";
  Writer writer(out);
  EXPECT_EQ(writer.protocol(), 2);
  writer.null();
  writer.set_protocol(3);
  EXPECT_EQ(writer.protocol(), 3);
  writer.null();
  EXPECT_EQ(out, "+before\r\n$-1\r\n_\r\n");
  EXPECT_EQ(&writer.out(), &out);
}

TEST(Writer, WritesWhatTheReplyReaderReads) {
  for (const int protocol : {2, 3}) {
    ReplyReader reader;
    reader.feed(written(
        [](Writer& w) {
          w.map(2);
          w.bulk("name");
          w.verbatim("txt", "value");
          w.bulk("list");
          w.array(4);
          w.null();
          w.boolean(true);
          w.dbl(1.5);
          w.error("ERR no");
        },
        protocol));
    Value value;
    ASSERT_EQ(reader.next(value), ReplyReader::Status::value);
    EXPECT_EQ(reader.buffered(), 0U);
    ASSERT_EQ(value.items.size(), 4U);
    EXPECT_EQ(value.type, protocol == 3 ? Value::Type::map : Value::Type::array);
    EXPECT_EQ(value.items[1].text, "value");
    EXPECT_EQ(value.items[3].items[3].text, "ERR no");
  }
}

}  // namespace
}  // namespace isthmus::resp
