#include "src/keyspace/packed_hash.hpp"

#include <cstring>

namespace isthmus {
namespace {

constexpr std::uint8_t kDeleted = 1;
constexpr std::uint8_t kOtherSite = 2;

std::uint64_t read_varint(const char*& p) {
  auto byte = static_cast<std::uint8_t>(*p++);
  if (byte < 0x80) return byte;
  std::uint64_t value = byte & 0x7f;
  for (int shift = 7; byte >= 0x80; shift += 7) {
    byte = static_cast<std::uint8_t>(*p++);
    value |= std::uint64_t{byte & 0x7fu} << shift;
  }
  return value;
}

void write_varint(std::string& out, std::uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

std::uint64_t zigzag(std::uint64_t delta) { return (delta << 1) ^ (0 - (delta >> 63)); }
std::uint64_t unzigzag(std::uint64_t coded) { return (coded >> 1) ^ (0 - (coded & 1)); }

const char* read_field(const char* p, Version base, FieldView& field) {
  const auto flags = static_cast<std::uint8_t>(*p++);
  field.version = base + unzigzag(read_varint(p));
  field.site = (flags & kOtherSite) != 0 ? static_cast<SiteIndex>(*p++) : SiteIndex{0};
  field.deleted = (flags & kDeleted) != 0;
  const std::size_t name_size = read_varint(p);
  const std::size_t value_size = read_varint(p);
  field.name = {p, name_size};
  field.value = {p + name_size, value_size};
  return p + name_size + value_size;
}

template <class T>
T read_number(const char* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

}  // namespace

std::uint16_t PackedHash::live(std::string_view bytes) {
  return read_number<std::uint16_t>(bytes.data() + 8);
}
std::uint16_t PackedHash::total(std::string_view bytes) {
  return read_number<std::uint16_t>(bytes.data() + 10);
}
Version PackedHash::base(std::string_view bytes) { return read_number<Version>(bytes.data()); }

void PackedHash::set_counts(char* bytes, std::uint16_t live, std::uint16_t total) {
  std::memcpy(bytes + 8, &live, sizeof live);
  std::memcpy(bytes + 10, &total, sizeof total);
}

PackedHash::Place PackedHash::find(std::string_view bytes, std::string_view name) {
  const Version base_version = base(bytes);
  const char* const end = bytes.data() + bytes.size();
  Place place;
  for (const char* p = bytes.data() + kHeadSize; p < end;) {
    const char* const after = read_field(p, base_version, place.field);
    if (place.field.name == name) {
      place.begin = static_cast<std::size_t>(p - bytes.data());
      place.end = static_cast<std::size_t>(after - bytes.data());
      return place;
    }
    p = after;
  }
  place.begin = place.end = bytes.size();
  return place;
}

bool PackedHash::next(std::string_view bytes, std::size_t& offset, FieldView& field) {
  if (offset >= bytes.size()) return false;
  const char* const after = read_field(bytes.data() + offset, base(bytes), field);
  offset = static_cast<std::size_t>(after - bytes.data());
  return true;
}

std::string PackedHash::empty(Version base) {
  std::string bytes(kHeadSize, '\0');
  std::memcpy(bytes.data(), &base, sizeof base);
  return bytes;
}

void PackedHash::encode(std::string& out, Version base, const FieldView& field) {
  const bool other_site = field.site != 0;
  out.push_back(static_cast<char>((field.deleted ? kDeleted : 0) | (other_site ? kOtherSite : 0)));
  write_varint(out, zigzag(field.version - base));
  if (other_site) out.push_back(static_cast<char>(field.site));
  write_varint(out, field.name.size());
  write_varint(out, field.value.size());
  out.append(field.name);
  out.append(field.value);
}

}  // namespace isthmus
