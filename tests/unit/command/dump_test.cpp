// DUMP and RESTORE: what redis-server 7.0.15 has dumped is read, what we dump is read again, and what nobody
// has dumped is refused.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/command/crc64.hpp"
#include "src/command/dump_payload.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;

std::string unhex(std::string_view hex) {
  std::string bytes;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    bytes.push_back(static_cast<char>(std::stoi(std::string(hex.substr(i, 2)), nullptr, 16)));
  return bytes;
}

// Version and checksum behind a value.
std::string with_footer(std::string bytes, int version = 10) {
  bytes.push_back(static_cast<char>(version));
  bytes.push_back('\0');
  const std::uint64_t crc = crc64(bytes);
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(crc >> (8 * i)));
  return bytes;
}

// What a payload holds, as one line.
std::string text_of(std::string_view payload) {
  if (!is_intact_payload(payload)) return "not intact";
  const auto copy = parse_payload(payload);
  if (!copy) return "bad";
  std::string text = copy->is_hash ? "hash" : copy->is_set ? "set" : "string " + copy->value;
  for (const auto& [name, value] : copy->fields) text += " " + name + (copy->is_hash ? "=" + value : "");
  return text;
}

TEST(Crc64, IsThatOfJones) { EXPECT_EQ(crc64("123456789"), 0xe9c6d914c4b8d9ca); }

// Payloads that redis-server 7.0.15 has given for these values.
TEST(RestorePayload, ReadsWhatRedisHasDumped) {
  const std::pair<const char*, std::string> payloads[] = {
      {"00000a005d9b5c400f7fa2da", "string "},
      {"000568656c6c6f0a006372df766534200a", "string hello"},
      {"00c0fb0a0049c4c6f4d7263f68", "string -5"},
      {"00c1e8030a0089d1478ebac4b764", "string 1000"},
      {"00c26079feff0a00a1ca8470cc216d9d", "string -100000"},
      {"000d313233343536373839303132330a005e0c12ae0429bc1e", "string 1234567890123"},
      {"00c3094064016161e057000161610a00e8a3b507b06df271", "string " + std::string(100, 'a')},
      {"10c34044407d1f7d0000000e00816602817602816e020c01836e656704dffd02817702c3e802830962696704f400f2052a012"
       "0"
       "280e09816d02f270110104816c02e04078e036000142ff0a00e4a220beeb8bf3e4",
       "hash f=v n=12 neg=-3 w=1000 big=5000000000 m=70000 l=" + std::string(64, 'x')},
      {"04020167c0010166c3094041017676e034000176760a0032e59295ef57a000",
       "hash g=1 f=" + std::string(65, 'v')},
      {"0b0e0200000003000000fdff010002000a00d1b78ed9bc07c27f", "set -3 1 2"},
      {"0b10040000000200000001000000a08601000a00d7b548c007796515", "set 1 100000"},
      {"0b180800000002000000010000000000000000f2052a010000000a0054f5a26ae707b5fc", "set 1 5000000000"},
      {"02020161c0010a00ce387e029ce13e72", "set a 1"},
      {"1201020a0a0000000100816102ff0a0009b9edf594ded995", "bad"},  // a list
  };
  for (const auto& [hex, expected] : payloads) EXPECT_EQ(text_of(unhex(hex)), expected) << hex;
}

TEST(RestorePayload, ReadsWhatOlderAndNewerRedisDump) {
  EXPECT_EQ(text_of(unhex(
                "0d404a4a0000003f0000000e0000016603017603016e03f60202693804fefb030369313605c0e80304036932340"
                "5f0701101050369333205d000d3cefe060369363405e000f2052a01000000ff0a00e674a3b516a8f8ae")),
            "hash f=v n=5 i8=-5 i16=1000 i24=70000 i32=-20000000 i64=5000000000");
  EXPECT_EQ(text_of(unhex("141111000000030081610282626303813702ff0b003386b8eb0e869042")), "set a bc 7");
}

// Compressed, they would take thousands of times the payload's size.
TEST(RestorePayload, RefusesAMillionPackedElements) {
  const auto number = [](std::uint32_t value, bool big_endian) {
    std::string bytes;
    for (int i = 0; i < 4; ++i) bytes.push_back(static_cast<char>(value >> 8 * (big_endian ? 3 - i : i)));
    return bytes;
  };
  const auto set_of = [&](std::uint32_t count) {
    std::string packed = number(7 + 6 * count, false) + "\xff\xff";
    for (std::uint32_t i = 0; i < count; ++i) packed += "\xf3" + number(i, false) + "\x05";
    packed += "\xff";
    return with_footer("\x14\x80" + number(static_cast<std::uint32_t>(packed.size()), true) + packed, 11);
  };
  EXPECT_TRUE(parse_payload(set_of(1'000'000)).has_value());
  EXPECT_FALSE(parse_payload(set_of(1'000'001)).has_value());
}

TEST(RestorePayload, IsNotIntactWithAnotherChecksumOrANewerVersion) {
  std::string payload = with_footer(std::string("\0\1x", 3));
  EXPECT_EQ(text_of(payload), "string x");
  for (std::size_t i = 0; i < payload.size(); ++i) {
    std::string other = payload;
    other[i] = static_cast<char>(other[i] ^ 1);
    EXPECT_FALSE(is_intact_payload(other)) << i;
    EXPECT_FALSE(is_intact_payload(payload.substr(0, i))) << i;
  }
  EXPECT_FALSE(is_intact_payload(with_footer(std::string("\0\1x", 3), 12)));
}

TEST(RestorePayload, RefusesWhatIsNoValue) {
  const char* const values[] = {
      "",                                        // nothing
      "00",                                      // no length
      "0005616263",                              // a string that is too short
      "00bf",                                    // a length of no kind
      "0081ffffffffffffffff",                    // longer than anything
      "00c4",                                    // an encoding of no kind
      "00c30101",                                // compressed, without its bytes
      "00c3018100000000ffffffff61",              // compressed, and far too long for it
      "00c301050061",                            // compressed, and not what it says
      "0200",                                    // an empty set
      "02020161016100",                          // a member that comes twice
      "0281ffffffffffffffff",                    // more members than bytes
      "04010166",                                // a field without a value
      "040201660176016601770000",                // a field that comes twice
      "0b08020000000000000000",                  // an empty intset
      "0b0a03000000010000000100",                // integers of three bytes
      "0b0a02000000020000000100",                // one too few
      "0b0c0200000002000000010001000000",        // twice the same
      "100707000000000000ff",                    // an empty listpack
      "100b0b0000000100816102ff",                // an odd number of elements
      "100f0f000000020081610281620300000000ff",  // a wrong size behind an element
      "100d0d0000000300816102816202ff",          // a wrong number of elements
      "100d0e0000000200816102816202ff",          // a wrong size
      "0d1111000000000000000200000161030162ff",  // the last one is elsewhere
      "1603",                                    // another type
  };
  for (const char* hex : values) EXPECT_EQ(text_of(with_footer(unhex(hex))), "bad") << hex;
}

TEST(RestorePayload, SurvivesEveryCutAndEveryFlippedBit) {
  const char* const values[] = {
      "10c34044407d1f7d0000000e00816602817602816e020c01836e656704dffd02817702c3e802830962696704f400f2"
      "052a0120280e09816d02f270110104816c02e04078e036000142ff",
      "0d1212000000000000000200000161030162ff", "0b0e0200000003000000fdff01000200",
      "141111000000030081610282626303813702ff", "02020161c001"};
  for (const char* hex : values) {
    const std::string whole = unhex(hex);
    for (std::size_t i = 0; i <= whole.size(); ++i) text_of(with_footer(whole.substr(0, i)));
    for (std::size_t bit = 0; bit < 8 * whole.size(); ++bit) {
      std::string other = whole;
      other[bit / 8] = static_cast<char>(other[bit / 8] ^ (1 << (bit % 8)));
      text_of(with_footer(other));
    }
  }
}

class DumpAndRestore : public testing::Test {
 protected:
  DumpAndRestore() { run_.hear_events(kEventKeyevent | kEventAll | kEventNew); }
  // The payload of a key.
  std::string dumped(std::string_view key) {
    const std::string reply = run_.run({"DUMP", key});
    const std::size_t begin = reply.find("\r\n") + 2;
    return reply.substr(begin, reply.size() - begin - 2);
  }
  CommandRunner run_;
};

TEST_F(DumpAndRestore, GiveBackWhatWasThere) {
  const std::string large(100'000, 'z');
  run_.run({"SET", "s1", ""});
  run_.run({"SET", "s2", "12"});
  run_.run({"SET", "s3", large});
  run_.run({"SET", "s4", "9223372036854775807"});
  run_.run({"SET", "s5", std::string("\0\xff not to be compressed", 24)});
  run_.run({"HSET", "h1", "f", "v", "g", "", "", "-7"});
  run_.run({"HSET", "h2", "f", large, "g", "1"});
  run_.run({"SADD", "t1", "5", "-70000", "1"});
  run_.run({"SADD", "t2", "5", "a", ""});
  for (const std::string_view key : {"s1", "s2", "s3", "s4", "s5", "h1", "h2", "t1", "t2"}) {
    const std::string payload = dumped(key);
    EXPECT_TRUE(is_intact_payload(payload)) << key;
    EXPECT_EQ(run_.run({"RESTORE", "copy", "0", payload, "REPLACE"}), "+OK\r\n") << key;
    EXPECT_EQ(dumped("copy"), payload) << key;
    EXPECT_EQ(run_.run({"OBJECT", "ENCODING", "copy"}), run_.run({"OBJECT", "ENCODING", key})) << key;
  }
  EXPECT_EQ(run_.run({"DUMP", "none"}), "$-1\r\n");
}

TEST_F(DumpAndRestore, SetDeadlinesAndRaiseEvents) {
  run_.run({"SADD", "t", "a"});
  const std::string payload = dumped("t");
  run_.events();
  EXPECT_EQ(run_.run({"RESTORE", "t", "0", payload}), "-BUSYKEY Target key name already exists.\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "5000", payload}), "+OK\r\n");
  EXPECT_EQ(run_.run({"PTTL", "u"}), ":5000\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("new u", "restore u"));
  EXPECT_EQ(run_.run({"RESTORE", "u", "1", payload, "REPLACE", "ABSTTL"}), "+OK\r\n");
  EXPECT_EQ(run_.run({"EXISTS", "u"}), ":0\r\n");
  EXPECT_THAT(run_.events(), ElementsAre("del u"));
  EXPECT_EQ(run_.run({"RESTORE", "u", "-1", payload}), "-ERR Invalid TTL value, must be >= 0\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "0", payload + "x"}),
            "-ERR DUMP payload version or checksum are wrong\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "0", with_footer("\x12")}), "-ERR Bad data format\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "0", payload, "IDLETIME", "5", "REPLACE"}), "+OK\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "0", payload, "FREQ", "256"}),
            "-ERR Invalid FREQ value, must be >= 0 and <= 255\r\n");
  EXPECT_EQ(run_.run({"RESTORE", "u", "0", payload, "FREQ", "5", "IDLETIME", "5"}), "-ERR syntax error\r\n");
}

}  // namespace
}  // namespace isthmus
