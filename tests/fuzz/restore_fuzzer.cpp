// Whatever a client hands to RESTORE: the payload is refused or holds a value, and a value is small beside
// what it came from.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <set>
#include <string>
#include <string_view>

#include "src/command/crc64.hpp"
#include "src/command/dump_payload.hpp"

namespace {

void expect(bool holds, const char* what) {
  if (holds) return;
  std::cerr << "broken: " << what << '\n';
  std::abort();
}

// The right footer behind the bytes, so that what is looked at is the value and not the checksum.
std::string with_footer(std::string_view bytes) {
  std::string payload(bytes);
  payload.append("\x0a\0", 2);
  const std::uint64_t crc = isthmus::crc64(payload);
  for (int i = 0; i < 8; ++i) payload.push_back(static_cast<char>(crc >> (8 * i)));
  return payload;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  isthmus::is_intact_payload(bytes);
  const std::string payload = with_footer(bytes);
  expect(isthmus::is_intact_payload(payload), "a payload with its own checksum is intact");
  const auto copy = isthmus::parse_payload(payload);
  if (!copy) return 0;
  constexpr std::size_t kMostGain =
      88;  // of compression, which may be that of a list with compressed elements
  expect(copy->value.size() <= kMostGain * size + 20, "a string is bounded by its payload");
  expect(!(copy->is_hash && copy->is_set), "a value has one type");
  expect(copy->fields.empty() != copy->has_fields(), "a hash and a set have something, and a string has not");
  std::set<std::string_view> names;
  for (const auto& [name, value] : copy->fields) {
    expect(names.insert(name).second, "no name comes twice");
    expect(copy->is_hash || value.empty(), "a member has no value");
  }
  return 0;
}
