// What COMMAND tells of a command beyond its row: the names of its flags and categories, its tips, its key
// specifications.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "src/command/command.hpp"

namespace isthmus {

/// The flags of COMMAND INFO in Redis's order and words. Ours and those that Redis keeps to itself are left
/// out.
std::vector<std::string_view> flag_names(const Command& command);

/// The ACL categories without their @, in Redis's order: those of the row and those that follow from its
/// flags.
std::vector<std::string_view> category_names(const Command& command);

/// All categories that Redis 7.0 knows, in its order (ACL CAT).
std::span<const std::string_view> all_categories();

/// The tips for clients and proxies (https://redis.io/docs/latest/develop/reference/command-tips/).
std::vector<std::string_view> command_tips(const Command& command);

/// Where keys stand in the arguments and what is done with them
/// (https://redis.io/docs/latest/develop/reference/key-specs/). Only the kinds that our commands have: an
/// index to begin at and a range to go on with, or the number of keys and then the keys.
struct KeySpec {
  std::string_view notes;               ///< empty if there are none
  std::vector<std::string_view> flags;  ///< RO, RW, OW or RM, then what is done; or not_key
  int begin = 0;                        ///< index of the first key among the arguments
  int last = 0;  ///< of the last one, behind `begin`; negative: from the end of the arguments
  int step = 1;
  bool counted = false;  ///< at `begin` stands how many keys follow
};
std::vector<KeySpec> key_specs(const Command& command);

}  // namespace isthmus
