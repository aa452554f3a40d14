// Numbers in network byte order, as PostgreSQL's binary formats have them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace isthmus::backend {

/// Reads an unsigned number of sizeof(Number) bytes.
template <typename Number>
Number load_big_endian(const char* from) {
  Number number = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    number = static_cast<Number>(number << 8U | static_cast<unsigned char>(from[i]));
  }
  return number;
}

/// Writes an unsigned number over sizeof(Number) bytes.
template <typename Number>
void store_big_endian(char* to, Number number) {
  for (std::size_t i = sizeof(Number); i-- > 0;) {
    to[i] = static_cast<char>(number & 0xFFU);
    if constexpr (sizeof(Number) > 1) number = static_cast<Number>(number >> 8U);
  }
}

template <typename Number>
void append_big_endian(std::string& out, Number number) {
  char bytes[sizeof(Number)];
  store_big_endian(bytes, number);
  out.append(bytes, sizeof bytes);
}

}  // namespace isthmus::backend
