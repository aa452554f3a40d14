// A key's value and deadline, taken out of the keyspace to be written again under another name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "src/command/call.hpp"

namespace isthmus {

/// What RENAME, COPY, MOVE and SWAPDB carry. Owns its bytes: every effect invalidates the nodes.
struct KeyCopy {
  bool is_hash = false;
  bool is_set = false;
  bool piecewise = false;  ///< of a string, as in Node
  bool as_text = false;    ///< of a string or a set, as in Node
  bool table = false;      ///< of a hash: no packed one, though it may be small now
  std::string value;       ///< of a string
  /// Of a hash; a packed one's in their order. Of a set the members, without values.
  std::vector<std::pair<std::string, std::string>> fields;
  std::optional<std::int64_t> deadline;  ///< milliseconds since the Unix epoch

  bool has_fields() const { return is_hash || is_set; }
  /// What the effects that write it hold, for Call::fits.
  std::size_t effect_bytes(std::size_t name_size) const;
};

/// The key must hold a value.
KeyCopy copy_key(const Node& node);

/// Writes the copy to a key that is absent, or that holds anything if the copy is a string. Raises no event.
void write_copy(Call& call, const Key& key, const KeyCopy& copy);

}  // namespace isthmus
