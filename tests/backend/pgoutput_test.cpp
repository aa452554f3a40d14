// The decoder of the change stream by itself: messages built by hand, byte for byte.
#include "backend/pgoutput.hpp"

#include <chrono>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace isthmus::backend::pgoutput {
namespace {

std::string big_endian(std::uint64_t number, int size) {
  std::string bytes(static_cast<std::size_t>(size), '\0');
  for (int i = size - 1; i >= 0; --i, number >>= 8U)
    bytes[static_cast<std::size_t>(i)] = static_cast<char>(number);
  return bytes;
}

std::string zero_ended(const std::string& text) { return text + '\0'; }

constexpr std::uint32_t kLogId = 16400, kInboxId = 16500;

using Names = std::vector<std::string>;
const Names kLogNames = {"position",     "arrived",   "site",      "origin",  "seq",   "version",
                         "db",           "kind",      "group_end", "key",     "field", "expire_at",
                         "sent_at",      "event",     "requester", "request", "reply", "copied",
                         "base_version", "base_site", "counter",   "total",   "value"};
const Names kInboxNames = {"id", "at", "op", "db", "key", "field", "value", "expire_at"};

std::string relation(std::uint32_t id, const std::string& schema, const std::string& table,
                     const Names& names) {
  std::string message = "R" + big_endian(id, 4) + zero_ended(schema) + zero_ended(table) + "d";
  message += big_endian(names.size(), 2);
  for (const std::string& name : names)
    message += '\0' + zero_ended(name) + big_endian(20, 4) + big_endian(~0U, 4);
  return message;
}
std::string log_relation() { return relation(kLogId, "isthmus", "log", kLogNames); }
std::string inbox_relation() { return relation(kInboxId, "isthmus", "inbox", kInboxNames); }

std::string null() { return "n"; }
std::string sized(char form, const std::string& bytes) { return form + big_endian(bytes.size(), 4) + bytes; }
std::string binary(const std::string& bytes) { return sized('b', bytes); }
std::string text(const std::string& bytes) { return sized('t', bytes); }
std::string bigint(std::int64_t n) { return binary(big_endian(static_cast<std::uint64_t>(n), 8)); }
std::string smallint(std::int16_t n) { return binary(big_endian(static_cast<std::uint16_t>(n), 2)); }

using Values = std::vector<std::string>;
std::string insert(std::uint32_t id, const Values& values) {
  std::string message = "I" + big_endian(id, 4) + "N" + big_endian(values.size(), 2);
  for (const std::string& value : values) message += value;
  return message;
}

/// A row with something in each column, in the order of kLogNames.
Values full_values() {
  return {bigint(99),
          bigint(5),
          bigint(7),
          bigint(1000),
          bigint(42),
          bigint(0x0123456789ABCDEF),
          smallint(15),
          binary("hset"),
          binary("\1"),
          binary(std::string("k\0y", 3)),
          binary("field"),
          bigint(-1),
          bigint(1'700'000'000'000),
          binary("hset,expire"),
          bigint(2000),
          bigint(3),
          binary(":1\r\n"),
          binary("\1"),
          bigint(0x0123456789ABCDEE),
          bigint(8),
          bigint(1001),
          bigint(-5),
          binary("value")};
}

/// The same, as a session that has no binary output would say it.
Values full_values_as_text() {
  return {text("99"),
          text("2026-01-01 00:00:00+00"),
          text("7"),
          text("1000"),
          text("42"),
          text("81985529216486895"),
          text("15"),
          text("hset"),
          text("t"),
          text("\\x6b0079"),
          text("\\x6669656C64"),
          text("-1"),
          text("1700000000000"),
          text("hset,expire"),
          text("2000"),
          text("3"),
          text("\\x3a310d0a"),
          text("t"),
          text("81985529216486894"),
          text("8"),
          text("1001"),
          text("-5"),
          text("\\x76616c7565")};
}

void expect_full(const Row& row) {
  EXPECT_EQ(row.site, 7);
  EXPECT_EQ(row.origin, 1000);
  EXPECT_EQ(row.seq, 42U);
  EXPECT_EQ(row.version, 0x0123456789ABCDEFU);
  EXPECT_EQ(row.db, 15);
  EXPECT_EQ(row.kind, RowKind::hset);
  EXPECT_TRUE(row.group_end);
  EXPECT_EQ(row.key, std::string_view("k\0y", 3));
  EXPECT_EQ(row.field, "field");
  EXPECT_EQ(row.value, "value");
  EXPECT_EQ(row.expire_at, std::optional<std::int64_t>(-1));
  EXPECT_EQ(row.sent_at, 1'700'000'000'000);
  EXPECT_EQ(row.event, "hset,expire");
  EXPECT_EQ(row.requester, 2000);
  EXPECT_EQ(row.request, 3U);
  EXPECT_EQ(row.reply, ":1\r\n");
  EXPECT_TRUE(row.copied);
  EXPECT_EQ(row.count.base_version, 0x0123456789ABCDEEU);
  EXPECT_EQ(row.count.base_site, 8);
  EXPECT_EQ(row.count.counter, 1001);
  EXPECT_EQ(row.count.total, -5);
}

class PgoutputTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(decoder_.decode(log_relation(), event_), Kind::relation);
    ASSERT_EQ(decoder_.decode(inbox_relation(), event_), Kind::relation);
  }
  Decoder decoder_;
  Event event_;
};

TEST_F(PgoutputTest, ReadsEveryColumnOfALogRow) {
  const std::string message = insert(kLogId, full_values());
  ASSERT_EQ(decoder_.decode(message, event_), Kind::row) << event_.error;
  expect_full(event_.row);
}

TEST_F(PgoutputTest, ReadsValuesThatComeAsText) {
  const std::string message = insert(kLogId, full_values_as_text());
  ASSERT_EQ(decoder_.decode(message, event_), Kind::row) << event_.error;
  expect_full(event_.row);
}

TEST_F(PgoutputTest, ViewsOfBinaryValuesPointIntoTheMessage) {
  const std::string message = insert(kLogId, full_values());
  ASSERT_EQ(decoder_.decode(message, event_), Kind::row);
  EXPECT_GE(event_.row.value.data(), message.data());
  EXPECT_EQ(event_.row.value.data() + event_.row.value.size(), message.data() + message.size());
}

TEST_F(PgoutputTest, NullIsNone) {
  Values values = full_values();
  for (const std::size_t column :
       {6U, 8U, 9U, 10U, 11U, 12U, 13U, 14U, 15U, 16U, 17U, 18U, 19U, 20U, 21U, 22U})
    values[column] = null();
  // What the row before had must not shine through.
  ASSERT_EQ(decoder_.decode(insert(kLogId, full_values()), event_), Kind::row);
  ASSERT_EQ(decoder_.decode(insert(kLogId, values), event_), Kind::row) << event_.error;
  const Row& row = event_.row;
  EXPECT_EQ(row.db, 0);
  EXPECT_TRUE(row.key.empty() && row.field.empty() && row.value.empty() && row.event.empty() &&
              row.reply.empty());
  EXPECT_EQ(row.expire_at, std::nullopt);
  EXPECT_EQ(row.sent_at, 0);
  EXPECT_EQ(row.requester, 0);
  EXPECT_EQ(row.request, 0U);
  EXPECT_FALSE(row.copied);
  EXPECT_EQ(row.count.base_site + row.count.counter + row.count.total, 0);
}

TEST_F(PgoutputTest, FindsColumnsByNameAndPassesOverOthers) {
  Names names;
  Values values;
  const Values full = full_values();
  for (std::size_t i = kLogNames.size(); i-- > 2;) {
    names.push_back(kLogNames[i]);
    values.push_back(full[i]);
    names.push_back("extra" + std::to_string(i));
    values.push_back(i % 2 == 0 ? null() : binary("whatever"));
  }
  // Described anew, as after ALTER TABLE.
  ASSERT_EQ(decoder_.decode(relation(kLogId, "isthmus", "log", names), event_), Kind::relation)
      << event_.error;
  const std::string message = insert(kLogId, values);
  ASSERT_EQ(decoder_.decode(message, event_), Kind::row) << event_.error;
  expect_full(event_.row);
}

TEST_F(PgoutputTest, ReadsAnInboxRow) {
  const Values values = {bigint(5),     bigint(1),       binary("hset"),  smallint(3),
                         binary("key"), binary("field"), binary("value"), bigint(12)};
  ASSERT_EQ(decoder_.decode(insert(kInboxId, values), event_), Kind::inbox) << event_.error;
  EXPECT_EQ(event_.inbox.id, 5);
  EXPECT_EQ(event_.inbox.op, "hset");
  EXPECT_EQ(event_.inbox.db, 3);
  EXPECT_EQ(event_.inbox.key, "key");
  EXPECT_EQ(event_.inbox.field, "field");
  EXPECT_EQ(event_.inbox.value, "value");
  EXPECT_EQ(event_.inbox.expire_at, std::optional<std::int64_t>(12));

  const Values few = {bigint(6), null(), binary("del"), null(), null(), null(), null(), null()};
  ASSERT_EQ(decoder_.decode(insert(kInboxId, few), event_), Kind::inbox) << event_.error;
  EXPECT_EQ(event_.inbox.id, 6);
  EXPECT_EQ(event_.inbox.db, 0);
  EXPECT_TRUE(event_.inbox.key.empty() && event_.inbox.field.empty() && event_.inbox.value.empty());
  EXPECT_EQ(event_.inbox.expire_at, std::nullopt);
}

TEST_F(PgoutputTest, ReadsBeginAndCommit) {
  const std::string begin = "B" + big_endian(0x100, 8) + big_endian(1, 8) + big_endian(700, 4);
  ASSERT_EQ(decoder_.decode(begin, event_), Kind::begin);
  EXPECT_EQ(event_.position, 0x100U);
  const std::string commit =
      std::string("C\0", 2) + big_endian(0x100, 8) + big_endian(0x130, 8) + big_endian(1, 8);
  ASSERT_EQ(decoder_.decode(commit, event_), Kind::commit);
  EXPECT_EQ(event_.position, 0x130U);
}

TEST_F(PgoutputTest, IgnoresWhatIsNotOurs) {
  for (const std::string& message :
       {"O" + big_endian(1, 8) + zero_ended("pg_16400"),
        "Y" + big_endian(1, 4) + zero_ended("a") + zero_ended("b"), std::string("T"), std::string("M"),
        "U" + big_endian(kLogId, 4), "D" + big_endian(kLogId, 4)}) {
    EXPECT_EQ(decoder_.decode(message, event_), Kind::ignored) << message[0];
  }
  // Tables of other people, even if their names are like ours.
  for (const auto& [schema, table] : {std::pair("public", "log"), std::pair("isthmus", "other")}) {
    ASSERT_EQ(decoder_.decode(relation(1, schema, table, {"a"}), event_), Kind::relation);
    EXPECT_EQ(decoder_.decode(insert(1, {binary("x")}), event_), Kind::ignored);
  }
}

TEST_F(PgoutputTest, EveryPrefixIsMalformed) {
  const std::vector<std::string> whole = {
      insert(kLogId, full_values()),
      insert(kLogId, full_values_as_text()),
      log_relation(),
      inbox_relation(),
      "B" + big_endian(0x100, 8) + big_endian(1, 8) + big_endian(700, 4),
      std::string("C\0", 2) + big_endian(0x100, 8) + big_endian(0x130, 8) + big_endian(1, 8)};
  for (const std::string& message : whole) {
    for (std::size_t size = 0; size < message.size(); ++size) {
      // A copy of its own, so that a sanitizer sees the first byte too many.
      const std::vector<char> prefix(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(size));
      event_.error.clear();
      EXPECT_EQ(decoder_.decode({prefix.data(), prefix.size()}, event_), Kind::malformed)
          << message[0] << size;
      EXPECT_FALSE(event_.error.empty());
    }
    EXPECT_EQ(decoder_.decode(message + "x", event_), Kind::malformed) << message[0];
    EXPECT_NE(decoder_.decode(message, event_), Kind::malformed) << message[0];
  }
}

struct Refused {
  const char* name;
  std::string message;
  const char* error;  ///< a part of it
};

TEST_F(PgoutputTest, SaysWhatIsWrong) {
  const auto with = [](std::size_t column, const std::string& value) {
    Values values = full_values();
    values[column] = value;
    return insert(kLogId, values);
  };
  Values many = full_values();
  many.push_back(null());
  Names lacking = kLogNames;
  lacking.pop_back();
  const std::vector<Refused> cases = {
      {"unknown type", "Z", "unknown type"},
      {"unknown table", insert(1, {null()}), "not described"},
      {"too many columns", insert(kLogId, many), "malformed Insert"},
      {"unchanged TOAST", with(17, "u"), "malformed value"},
      {"a length beyond the end", with(17, "b" + big_endian(0xFFFFFFFF, 4)), "malformed value"},
      {"seq of NULL", with(4, null()), "'seq' is NULL"},
      {"negative seq", with(4, bigint(-1)), "'seq' is out of its range"},
      {"db of a newer time", with(6, smallint(256)), "'db' is out of its range"},
      {"integer of three bytes", with(4, binary("abc")), "'seq' is no integer"},
      {"integer with a tail", with(4, text("1x")), "'seq' is no integer"},
      {"integer too large", with(4, text("99999999999999999999")), "'seq' is no integer"},
      {"unknown kind", with(7, binary("zset")), "'kind' has a value"},
      {"a count of a base below zero", with(18, bigint(-1)), "'base_version' is out of its range"},
      {"long boolean of a copy", with(17, text("true")), "'copied' is no boolean"},
      {"long boolean", with(8, text("true")), "'group_end' is no boolean"},
      {"bytea with an odd digit", with(9, text("\\x123")), "'key' is no bytea"},
      {"bytea in the escape form", with(9, text("abcd")), "'key' is no bytea"},
      {"bytea that is no hex", with(9, text("\\x0g")), "'key' is no bytea"},
      {"a table without a column", relation(kLogId, "isthmus", "log", lacking), "no column 'value'"},
      {"more columns announced than there are",
       "R" + big_endian(1, 4) + "a" + std::string("\0b\0d\xFF\xFF", 7), "malformed Relation"},
  };
  for (const Refused& refused : cases) {
    event_.error.clear();
    EXPECT_EQ(decoder_.decode(refused.message, event_), Kind::malformed) << refused.name;
    EXPECT_NE(event_.error.find(refused.error), std::string::npos) << refused.name << ": " << event_.error;
  }
}

TEST_F(PgoutputTest, ManyTextValuesKeepTheirViews) {
  Values values = full_values_as_text();
  const std::string large(10'000, 'a');
  std::string hex = "\\x";
  for (std::size_t i = 0; i < large.size(); ++i) hex += "61";
  for (const std::size_t column : {9U, 10U, 16U, 22U}) values[column] = text(hex);
  ASSERT_EQ(decoder_.decode(insert(kLogId, values), event_), Kind::row) << event_.error;
  for (const std::string_view part : {event_.row.key, event_.row.field, event_.row.reply, event_.row.value}) {
    EXPECT_EQ(part, large);
  }
}

TEST(PgoutputEnvelopeTest, ReadsDataAndKeepalive) {
  Envelope envelope;
  const std::string data = "w" + big_endian(1, 8) + big_endian(2, 8) + big_endian(3, 8);
  const std::string with_payload = data + "payload";
  ASSERT_TRUE(parse_envelope(with_payload, envelope));
  EXPECT_EQ(envelope.kind, Envelope::Kind::data);
  EXPECT_EQ(envelope.start, 1U);
  EXPECT_EQ(envelope.end, 2U);
  EXPECT_EQ(envelope.sent_at, 3);
  EXPECT_EQ(envelope.data, "payload");

  const std::string keepalive = "k" + big_endian(0xFFEEDDCC00000001, 8) + big_endian(5, 8) + "\1";
  ASSERT_TRUE(parse_envelope(keepalive, envelope));
  EXPECT_EQ(envelope.kind, Envelope::Kind::keepalive);
  EXPECT_EQ(envelope.end, 0xFFEEDDCC00000001U);
  EXPECT_TRUE(envelope.reply_requested);
  EXPECT_TRUE(envelope.data.empty());

  for (std::size_t size = 0; size < data.size(); ++size)
    EXPECT_FALSE(parse_envelope(data.substr(0, size), envelope));
  for (std::size_t size = 0; size < keepalive.size(); ++size) {
    EXPECT_FALSE(parse_envelope(keepalive.substr(0, size), envelope));
  }
  EXPECT_FALSE(parse_envelope(keepalive + "x", envelope));
  EXPECT_FALSE(parse_envelope("x" + data, envelope));
}

TEST(PgoutputEnvelopeTest, WritesTheStatus) {
  const auto status = standby_status(0x0102030405060708, -2);
  const std::string position = big_endian(0x0102030405060708, 8);
  EXPECT_EQ(std::string(status.begin(), status.end()),
            "r" + position + position + position + big_endian(static_cast<std::uint64_t>(-2), 8) + '\0');
}

/// Prints the rate, and fails only at a tenth of what is meant to be: this is no benchmark.
TEST_F(PgoutputTest, DecodesFast) {
  Values values = full_values();
  values.back() = binary(std::string(100, 'v'));
  const std::string message = insert(kLogId, values);
  constexpr int kRows = 200'000;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRows; ++i) ASSERT_EQ(decoder_.decode(message, event_), Kind::row);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  const double rate = kRows / took.count();
  RecordProperty("rows_per_s", static_cast<int>(rate));
  EXPECT_GT(rate, 50'000);
}

}  // namespace
}  // namespace isthmus::backend::pgoutput
