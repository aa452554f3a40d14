// Reading payloads, which anybody may have written: every length is held against the bytes that are left.
#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>
#include <vector>

#include <boost/unordered/unordered_flat_set.hpp>
#include <liblzf/lzf.h>

#include "src/command/crc64.hpp"
#include "src/command/dump_payload.hpp"
#include "src/command/rdb_format.hpp"

namespace isthmus {
namespace {

using namespace rdb;

/// No run of LZF gives more for a byte: three bytes stand for 264 at most.
constexpr std::uint64_t kMostGain = 88;

static_assert(std::endian::native == std::endian::little, "numbers are read as they lie");

/// Takes bytes from the front of a text; once it has not what is asked for it has nothing any more.
class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : left_(bytes) {}
  bool ok() const { return ok_; }
  bool empty() const { return left_.empty(); }
  std::size_t size() const { return left_.size(); }
  bool fail() { return ok_ = false; }

  std::string_view take(std::uint64_t size) {
    if (size > left_.size()) fail();
    if (!ok_) return {};
    const std::string_view taken = left_.substr(0, size);
    left_.remove_prefix(size);
    return taken;
  }
  /// A number with its lowest byte first, of `bytes` bytes.
  template <class Number>
  Number number(std::size_t bytes = sizeof(Number)) {
    const std::string_view taken = take(bytes);
    Number value = 0;
    if (ok_) std::memcpy(&value, taken.data(), bytes);
    return value;
  }
  /// The same with its highest byte first.
  std::uint64_t big_endian(std::size_t bytes) {
    std::uint64_t value = 0;
    for (const char c : take(bytes)) value = value << 8 | static_cast<std::uint8_t>(c);
    return value;
  }
  std::uint8_t byte() { return number<std::uint8_t>(); }

 private:
  std::string_view left_;
  bool ok_ = true;
};

/// A length behind its first byte; kEncoded has been dealt with.
std::uint64_t length_behind(Bytes& bytes, std::uint8_t first) {
  switch (first >> 6) {
    case k6Bits:
      return first & 0x3f;
    case k14Bits:
      return std::uint64_t{first & 0x3fu} << 8 | bytes.byte();
    default:
      break;
  }
  if (first == k32Bits) return bytes.big_endian(4);
  if (first == k64Bits) return bytes.big_endian(8);
  bytes.fail();
  return 0;
}

std::uint64_t read_length(Bytes& bytes) { return length_behind(bytes, bytes.byte()); }

std::string read_compressed(Bytes& bytes) {
  const std::uint64_t size = read_length(bytes);
  const std::uint64_t whole = read_length(bytes);
  const std::string_view compressed = bytes.take(size);
  if (!bytes.ok() || size == 0 || whole == 0 || whole > size * kMostGain || whole > 0xffffffff) {
    bytes.fail();
    return {};
  }
  std::string text(whole, '\0');
  const unsigned got = lzf_decompress(compressed.data(), static_cast<unsigned>(size), text.data(),
                                      static_cast<unsigned>(whole));
  if (got != whole) bytes.fail();
  return text;
}

std::string read_string(Bytes& bytes) {
  const std::uint8_t first = bytes.byte();
  if (first >> 6 != kEncoded) return std::string(bytes.take(length_behind(bytes, first)));
  switch (first & 0x3f) {
    case kInt8:
      return std::to_string(bytes.number<std::int8_t>());
    case kInt16:
      return std::to_string(bytes.number<std::int16_t>());
    case kInt32:
      return std::to_string(bytes.number<std::int32_t>());
    case kLzf:
      return read_compressed(bytes);
    default:
      bytes.fail();
      return {};
  }
}

using Elements = std::vector<std::string>;

// An integer of `bits` bits with its sign.
std::string signed_text(std::uint64_t value, int bits) {
  const int unused = 64 - bits;
  return std::to_string(static_cast<std::int64_t>(value << unused) >> unused);
}

std::string listpack_element(Bytes& bytes) {
  const std::uint8_t first = bytes.byte();
  if (first < 0x80) return std::to_string(first);
  if (first < kListpack13BitInteger) return std::string(bytes.take(first & 0x3f));
  if (first < kListpack12BitString) return signed_text(std::uint64_t{first & 0x1fu} << 8 | bytes.byte(), 13);
  if (first < kListpack32BitString)
    return std::string(bytes.take(std::uint64_t{first & 0x0fu} << 8 | bytes.byte()));
  switch (first) {
    case kListpack32BitString:
      return std::string(bytes.take(bytes.number<std::uint32_t>()));
    case kListpackInt16:
      return signed_text(bytes.number<std::uint64_t>(2), 16);
    case kListpackInt24:
      return signed_text(bytes.number<std::uint64_t>(3), 24);
    case kListpackInt32:
      return signed_text(bytes.number<std::uint64_t>(4), 32);
    case kListpackInt64:
      return signed_text(bytes.number<std::uint64_t>(8), 64);
    default:
      bytes.fail();
      return {};
  }
}

// Whether the end of the list follows, after as many elements as it says.
bool ends_well(Bytes& bytes, std::size_t count, std::uint16_t said) {
  return bytes.byte() == kListEnd && bytes.ok() && bytes.empty() && (said == kUnknownCount || said == count);
}

// Small elements of a compressed payload take thousands of times its size. Redis packs some hundred, unless
// it is told otherwise.
constexpr std::size_t kMostPackedElements = 1'000'000;

std::optional<Elements> listpack_elements(std::string_view text) {
  Bytes bytes(text);
  if (bytes.number<std::uint32_t>() != text.size()) return std::nullopt;
  const auto said = bytes.number<std::uint16_t>();
  Elements elements;
  std::string behind;
  while (bytes.ok() && bytes.size() > 1) {
    const std::size_t before = bytes.size();
    if (elements.size() == kMostPackedElements) return std::nullopt;
    elements.push_back(listpack_element(bytes));
    behind.clear();
    append_back_length(behind, before - bytes.size());
    if (bytes.take(behind.size()) != behind) return std::nullopt;
  }
  if (!ends_well(bytes, elements.size(), said)) return std::nullopt;
  return elements;
}

std::string ziplist_element(Bytes& bytes) {
  const std::uint8_t first = bytes.byte();
  switch (first >> 6) {
    case 0:
      return std::string(bytes.take(first & 0x3f));
    case 1:
      return std::string(bytes.take(std::uint64_t{first & 0x3fu} << 8 | bytes.byte()));
    case 2:
      return std::string(bytes.take(bytes.big_endian(4)));
    default:
      break;
  }
  switch (first) {
    case kZiplistInt16:
      return signed_text(bytes.number<std::uint64_t>(2), 16);
    case kZiplistInt32:
      return signed_text(bytes.number<std::uint64_t>(4), 32);
    case kZiplistInt64:
      return signed_text(bytes.number<std::uint64_t>(8), 64);
    case kZiplistInt24:
      return signed_text(bytes.number<std::uint64_t>(3), 24);
    case kZiplistInt8:
      return signed_text(bytes.number<std::uint64_t>(1), 8);
    default:
      break;
  }
  constexpr std::uint8_t kSmallest = 0xf1, kLargest = 0xfd;  // 0 to 12 in the first byte itself
  if (first < kSmallest || first > kLargest) bytes.fail();
  return std::to_string(first - kSmallest);
}

std::optional<Elements> ziplist_elements(std::string_view text) {
  constexpr std::uint8_t kLongPrevious = 0xfe;
  Bytes bytes(text);
  if (bytes.number<std::uint32_t>() != text.size()) return std::nullopt;
  const auto last = bytes.number<std::uint32_t>();
  const auto said = bytes.number<std::uint16_t>();
  Elements elements;
  std::size_t previous = 0, begin = kZiplistHeadBytes;
  while (bytes.ok() && bytes.size() > 1) {
    begin = text.size() - bytes.size();
    const std::uint8_t first = bytes.byte();
    if ((first == kLongPrevious ? bytes.number<std::uint32_t>() : first) != previous) return std::nullopt;
    if (elements.size() == kMostPackedElements) return std::nullopt;
    elements.push_back(ziplist_element(bytes));
    previous = text.size() - bytes.size() - begin;
  }
  if (last != begin || !ends_well(bytes, elements.size(), said)) return std::nullopt;
  return elements;
}

std::optional<Elements> intset_elements(std::string_view text) {
  Bytes bytes(text);
  const auto width = bytes.number<std::uint32_t>();
  const std::uint64_t count = bytes.number<std::uint32_t>();
  if (!bytes.ok() || (width != 2 && width != 4 && width != 8) || bytes.size() != count * width)
    return std::nullopt;
  Elements elements;
  for (std::uint64_t i = 0; i < count; ++i)
    elements.push_back(signed_text(bytes.number<std::uint64_t>(width), static_cast<int>(8 * width)));
  return elements;
}

std::optional<Elements> table_elements(Bytes& bytes, bool in_pairs) {
  const std::uint64_t count = read_length(bytes);
  // An element has one byte at least.
  if (!bytes.ok() || count > bytes.size()) return std::nullopt;
  Elements elements;
  for (std::uint64_t i = 0; i < (in_pairs ? 2 * count : count) && bytes.ok(); ++i)
    elements.push_back(read_string(bytes));
  return bytes.ok() ? std::optional(std::move(elements)) : std::nullopt;
}

std::optional<Elements> read_elements(Bytes& bytes, std::uint8_t type) {
  if (type == kSet || type == kHash) return table_elements(bytes, type == kHash);
  const std::string packed = read_string(bytes);
  if (!bytes.ok()) return std::nullopt;
  switch (type) {
    case kIntset:
      return intset_elements(packed);
    case kHashZiplist:
      return ziplist_elements(packed);
    case kHashListpack:
    case kSetListpack:
      return listpack_elements(packed);
    default:
      return std::nullopt;
  }
}

// Nothing if there are no elements, an odd number for pairs, or a name that comes twice.
std::optional<KeyCopy> collection(Elements elements, bool is_hash) {
  if (elements.empty() || (is_hash && elements.size() % 2 != 0)) return std::nullopt;
  KeyCopy copy;
  copy.is_hash = is_hash;
  copy.is_set = !is_hash;
  const std::size_t step = is_hash ? 2 : 1;
  copy.fields.reserve(elements.size() / step);
  for (std::size_t i = 0; i < elements.size(); i += step)
    copy.fields.emplace_back(std::move(elements[i]), is_hash ? std::move(elements[i + 1]) : std::string());
  boost::unordered_flat_set<std::string_view> names;
  for (const auto& [name, value] : copy.fields) {
    if (!names.insert(name).second) return std::nullopt;
  }
  return copy;
}

}  // namespace

bool is_intact_payload(std::string_view payload) {
  if (payload.size() < kFooterBytes) return false;
  Bytes footer(payload.substr(payload.size() - kFooterBytes));
  if (footer.number<std::uint16_t>() > kHighestVersion) return false;
  return footer.number<std::uint64_t>() == crc64(payload.substr(0, payload.size() - sizeof(std::uint64_t)));
}

// What follows the value is not looked at, as in Redis.
std::optional<KeyCopy> parse_payload(std::string_view payload) {
  if (payload.size() < kFooterBytes) return std::nullopt;
  Bytes bytes(payload.substr(0, payload.size() - kFooterBytes));
  const std::uint8_t type = bytes.byte();
  if (type == kString) {
    KeyCopy copy;
    copy.value = read_string(bytes);
    return bytes.ok() ? std::optional(std::move(copy)) : std::nullopt;
  }
  auto elements = read_elements(bytes, type);
  if (!elements) return std::nullopt;
  return collection(std::move(*elements), type == kHash || type == kHashZiplist || type == kHashListpack);
}

}  // namespace isthmus
