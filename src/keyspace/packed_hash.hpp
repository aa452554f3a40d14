// A small hash as one run of bytes: fields in the order of their insertion, each with its version.
//
// Layout: base version (8 bytes), number of live fields (2), number of fields with tombstones (2), then for
// each field
//   flags (1) · version minus base (varint, zigzag) · [site (1)] · size of name (varint) · size of value
//   (varint) · name · value
// One hash that a single HSET makes costs 4 bytes a field beyond its name and value.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "src/keyspace/node.hpp"

namespace isthmus {

/// A field as a view; the views live until its key changes.
struct FieldView {
  std::string_view name;
  std::string_view value;
  Version version = 0;
  SiteIndex site = 0;
  bool deleted = false;
};

/// Reads and rebuilds the bytes of a packed hash. Reading functions take the bytes, changing ones a
/// std::string of them.
class PackedHash {
 public:
  static constexpr std::size_t kHeadSize = 12;

  static std::uint16_t live(std::string_view bytes);
  static std::uint16_t total(std::string_view bytes);

  /// Where a field stands in the bytes: [begin, end), or begin == end if it is not there.
  struct Place {
    std::size_t begin = 0;
    std::size_t end = 0;
    FieldView field;
    bool found() const { return begin != end; }
  };
  static Place find(std::string_view bytes, std::string_view name);
  /// Reads the field at `offset` and moves `offset` behind it; false at the end. Start at kHeadSize.
  static bool next(std::string_view bytes, std::size_t& offset, FieldView& field);

  /// The head of an empty hash whose versions will be near `base`.
  static std::string empty(Version base);
  /// Appends the encoding of a field to `out`, for a hash with that base.
  static void encode(std::string& out, Version base, const FieldView& field);
  static Version base(std::string_view bytes);
  static void set_counts(char* bytes, std::uint16_t live, std::uint16_t total);
};

}  // namespace isthmus
