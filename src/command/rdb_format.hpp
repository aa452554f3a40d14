// The numbers of Redis's RDB format that DUMP's payloads have in them (rdb.h, listpack.c, ziplist.c and
// intset.c of Redis 7.0 and 7.2).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace isthmus::rdb {

enum Type : std::uint8_t {
  kString = 0,
  kSet = 2,
  kHash = 4,
  kIntset = 11,
  kHashZiplist = 13,
  kHashListpack = 16,
  kSetListpack = 20,
};

inline constexpr std::uint16_t kWrittenVersion = 10, kHighestVersion = 11;
inline constexpr std::size_t kVersionBytes = 2, kFooterBytes = kVersionBytes + 8;

/// The upper two bits of a length's first byte; 32 and 64 bits are whole bytes.
inline constexpr std::uint8_t k6Bits = 0, k14Bits = 1, kEncoded = 3, k32Bits = 0x80, k64Bits = 0x81;
/// The lower six bits of a string's first byte behind kEncoded.
enum Encoding : std::uint8_t { kInt8 = 0, kInt16 = 1, kInt32 = 2, kLzf = 3 };
/// No text of 32 bits has more digits.
inline constexpr std::size_t kLongestInteger = 11;

inline constexpr std::uint8_t kListEnd = 0xff;
inline constexpr std::uint16_t kUnknownCount = 0xffff;
/// Bytes of all of it, number of elements.
inline constexpr std::size_t kListpackHeadBytes = 6;
/// The first byte of an element: strings with so many bits of length, integers of so many bits.
inline constexpr std::uint8_t kListpack6BitString = 0x80, kListpack13BitInteger = 0xc0,
                              kListpack12BitString = 0xe0, kListpack32BitString = 0xf0, kListpackInt16 = 0xf1,
                              kListpackInt24 = 0xf2, kListpackInt32 = 0xf3, kListpackInt64 = 0xf4;
/// Bytes of all of it, offset of the last element, number of elements.
inline constexpr std::size_t kZiplistHeadBytes = 10;
inline constexpr std::uint8_t kZiplistInt16 = 0xc0, kZiplistInt32 = 0xd0, kZiplistInt64 = 0xe0,
                              kZiplistInt24 = 0xf0, kZiplistInt8 = 0xfe;

/// What stands behind an element of a listpack of so many bytes: seven bits a byte, the highest first, all
/// but the first with the highest bit set.
inline void append_back_length(std::string& out, std::size_t length) {
  std::size_t bytes = 1;
  while (bytes < 5 && length >> (7 * bytes) != 0) ++bytes;
  for (std::size_t i = bytes; i-- > 0;)
    out.push_back(static_cast<char>((length >> (7 * i) & 0x7f) | (i + 1 == bytes ? 0 : 0x80)));
}

}  // namespace isthmus::rdb
