// The checksum at the end of what DUMP gives: CRC-64 with the polynomial of Jones, reflected, from 0.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace isthmus {

/// Eight bits at a time.
inline constexpr std::array<std::uint64_t, 256> kCrc64Table = [] {
  constexpr std::uint64_t kReflectedPolynomial = 0x95ac9329ac4bc9b5;
  std::array<std::uint64_t, 256> table{};
  for (std::uint64_t byte = 0; byte < table.size(); ++byte) {
    std::uint64_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kReflectedPolynomial : 0);
    table[byte] = crc;
  }
  return table;
}();

inline std::uint64_t crc64(std::string_view bytes) {
  std::uint64_t crc = 0;
  for (const char c : bytes) crc = kCrc64Table[(crc ^ static_cast<std::uint8_t>(c)) & 0xff] ^ (crc >> 8);
  return crc;
}

}  // namespace isthmus
