// What HRANDFIELD and SRANDMEMBER choose with a count, and how they reply it.
#pragma once

#include <functional>

#include "src/command/call.hpp"

namespace isthmus {

namespace error {
inline constexpr std::string_view kCountOutOfRange =
    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807";
}  // namespace error

/// Replies with fields of a hash, or members of a set, chosen at random: names, or names with values, which
/// RESP3 has in pairs.
class RandomFields {
 public:
  RandomFields(Call& call, bool with_values) : call_(call), with_values_(with_values) {}

  /// So many different ones at most; of a negative count exactly so many with repetition (at most 512 MiB of
  /// reply, else an error). An empty array if the key is not there. `count` is above -2^63. O(N) of those
  /// returned.
  void reply(const Node* node, std::int64_t count);

 private:
  void begin(std::uint64_t count);
  void add(const FieldView& field);
  void with_repetition(const Node& node, std::uint64_t count);
  void without_repetition(const Node& node, std::uint64_t count);

  Call& call_;
  const bool with_values_;
};

/// Calls `visit` for `count` different fields of a key that has at least so many.
void choose_fields(const Node& node, std::uint64_t count, const std::function<void(const FieldView&)>& visit);

}  // namespace isthmus
