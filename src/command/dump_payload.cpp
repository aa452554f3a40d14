// Writing payloads. They are read in restore_payload.cpp.
#include "src/command/dump_payload.hpp"

#include <algorithm>
#include <cstring>
#include <vector>

#include <liblzf/lzf.h>

#include "src/command/crc64.hpp"
#include "src/command/keys.hpp"
#include "src/command/rdb_format.hpp"

namespace isthmus {
namespace {

using namespace rdb;

template <class Number>
void append_number(std::string& out, Number number) {
  for (std::size_t i = 0; i < sizeof number; ++i)
    out.push_back(static_cast<char>(static_cast<std::uint64_t>(number) >> (8 * i)));
}

void append_length(std::string& out, std::uint64_t length) {
  if (length < 1 << 6) {
    out.push_back(static_cast<char>(length));
  } else if (length < 1 << 14) {
    out.push_back(static_cast<char>(k14Bits << 6 | length >> 8));
    out.push_back(static_cast<char>(length));
  } else {
    const bool wide = length > 0xffffffff;
    out.push_back(static_cast<char>(wide ? k64Bits : k32Bits));
    for (int shift = wide ? 56 : 24; shift >= 0; shift -= 8)
      out.push_back(static_cast<char>(length >> shift));
  }
}

bool append_as_integer(std::string& out, std::string_view text) {
  const auto number = text.size() <= kLongestInteger ? parse_integer(text) : std::nullopt;
  if (!number || *number != static_cast<std::int32_t>(*number)) return false;
  const auto encoded = [&](Encoding encoding) { out.push_back(static_cast<char>(kEncoded << 6 | encoding)); };
  if (*number == static_cast<std::int8_t>(*number)) {
    encoded(kInt8);
    append_number(out, static_cast<std::int8_t>(*number));
  } else if (*number == static_cast<std::int16_t>(*number)) {
    encoded(kInt16);
    append_number(out, static_cast<std::int16_t>(*number));
  } else {
    encoded(kInt32);
    append_number(out, static_cast<std::int32_t>(*number));
  }
  return true;
}

bool append_compressed(std::string& out, std::string_view text) {
  constexpr std::size_t kShortest = 21, kGain = 4;  // as Redis: what is shorter, or gains less, is left alone
  if (text.size() < kShortest || text.size() > 0xffffffff) return false;
  std::string compressed(text.size() - kGain, '\0');
  const unsigned size = lzf_compress(text.data(), static_cast<unsigned>(text.size()), compressed.data(),
                                     static_cast<unsigned>(compressed.size()));
  if (size == 0) return false;
  out.push_back(static_cast<char>(kEncoded << 6 | kLzf));
  append_length(out, size);
  append_length(out, text.size());
  out.append(compressed, 0, size);
  return true;
}

void append_string(std::string& out, std::string_view text) {
  if (append_as_integer(out, text) || append_compressed(out, text)) return;
  append_length(out, text.size());
  out.append(text);
}

// One string of a listpack: its size, its bytes, and the size of both to be read from behind.
void append_to_listpack(std::string& out, std::string_view text) {
  const std::size_t begin = out.size();
  if (text.size() < 1 << 6) {
    out.push_back(static_cast<char>(kListpack6BitString | text.size()));
  } else if (text.size() < 1 << 12) {
    out.push_back(static_cast<char>(kListpack12BitString | text.size() >> 8));
    out.push_back(static_cast<char>(text.size()));
  } else {
    out.push_back(static_cast<char>(kListpack32BitString));
    append_number(out, static_cast<std::uint32_t>(text.size()));
  }
  out.append(text);
  append_back_length(out, out.size() - begin);
}

std::string listpack(const Node& hash) {
  std::string bytes(kListpackHeadBytes, '\0');
  hash_for_each(hash, false, [&](const FieldView& field) {
    append_to_listpack(bytes, field.name);
    append_to_listpack(bytes, field.value);
  });
  bytes.push_back(static_cast<char>(kListEnd));
  std::string head;
  append_number(head, static_cast<std::uint32_t>(bytes.size()));
  append_number(head, static_cast<std::uint16_t>(
                          std::min<std::uint64_t>(2 * std::uint64_t{hash_size(hash)}, kUnknownCount)));
  return bytes.replace(0, head.size(), head);
}

std::string intset(const Node& set) {
  std::vector<std::int64_t> numbers;
  hash_for_each(set, false, [&](const FieldView& member) { numbers.push_back(*parse_integer(member.name)); });
  std::sort(numbers.begin(), numbers.end());
  const auto fits = [&](auto limit) {
    using Limit = std::numeric_limits<decltype(limit)>;
    return numbers.front() >= Limit::min() && numbers.back() <= Limit::max();
  };
  const std::uint32_t width = fits(std::int16_t{}) ? 2 : fits(std::int32_t{}) ? 4 : 8;
  std::string bytes;
  append_number(bytes, width);
  append_number(bytes, static_cast<std::uint32_t>(numbers.size()));
  for (const std::int64_t number : numbers) {
    if (width == 2) append_number(bytes, static_cast<std::int16_t>(number));
    if (width == 4) append_number(bytes, static_cast<std::int32_t>(number));
    if (width == 8) append_number(bytes, number);
  }
  return bytes;
}

// Type and value of what has no compact form in Redis.
void append_table(std::string& out, const Node& node) {
  out.push_back(static_cast<char>(node.is_set() ? kSet : kHash));
  append_length(out, hash_size(node));
  hash_for_each(node, false, [&](const FieldView& field) {
    append_string(out, field.name);
    if (node.is_hash()) append_string(out, field.value);
  });
}

}  // namespace

std::string dump_payload(const Node& node) {
  std::string out;
  if (node.is_string()) {
    out.push_back(static_cast<char>(kString));
    append_string(out, node.value());
  } else if (node.is_set() && is_intset(node)) {
    out.push_back(static_cast<char>(kIntset));
    append_string(out, intset(node));
  } else if (node.type == NodeType::packed_hash) {
    out.push_back(static_cast<char>(kHashListpack));
    append_string(out, listpack(node));
  } else {
    append_table(out, node);
  }
  append_number(out, kWrittenVersion);
  append_number(out, crc64(out));
  return out;
}

}  // namespace isthmus
