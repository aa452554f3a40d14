// Maps of strings that are asked with a view.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include <boost/unordered/unordered_flat_map.hpp>

namespace isthmus {

struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const;
};
struct StringEqual {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};
template <class Value>
using StringMap = boost::unordered_flat_map<std::string, Value, StringHash, StringEqual>;

}  // namespace isthmus
