// Commands on keys of any type (https://redis.io/docs/latest/commands/?group=generic): those that ask and
// delete. The others are in the files key_*.cpp.
#include "src/command/keys.hpp"

#include <vector>

namespace isthmus {

std::optional<std::uint8_t> database_argument(Call& call, std::size_t index) {
  const auto number = call.integer(index);
  if (!number) return std::nullopt;
  if (*number < std::numeric_limits<std::int32_t>::min() ||
      *number > std::numeric_limits<std::int32_t>::max()) {
    call.reply.error(error::kIntOutOfRange);
    return std::nullopt;
  }
  if (*number < 0 || *number >= static_cast<std::int64_t>(kDatabaseCount)) {
    call.reply.error(error::kDbIndexOutOfRange);
    return std::nullopt;
  }
  return static_cast<std::uint8_t>(*number);
}

namespace {

// DEL key [key …] and UNLINK key [key …] → the number of keys that were there. O(1) for a string, O(M) for a
// hash of M fields.
void del(Call& call) {
  std::int64_t deleted = 0;
  for (std::size_t i = 1; i < call.argc(); ++i) {
    const Key key = call.key(i);
    if (call.find_for_write(key) == nullptr) continue;
    call.del(key);
    call.notify(kEventGeneric, "del", key);
    ++deleted;
  }
  call.reply.integer(deleted);
}

// EXISTS key [key …] and TOUCH key [key …] → the number of keys that are there; one named twice counts twice.
// There is no time of the last access here that TOUCH could set: OBJECT IDLETIME counts from the last write.
// O(1) for each key.
void exists(Call& call) {
  std::int64_t found = 0;
  for (std::size_t i = 1; i < call.argc(); ++i) {
    if (call.find(call.key(i)) != nullptr) ++found;
  }
  call.reply.integer(found);
}

// TYPE key → string, hash or none. O(1).
void type(Call& call) {
  const Node* node = call.find(call.key(1));
  call.reply.simple(node == nullptr ? "none" : type_name(*node));
}

constexpr Command kCommands[] = {
    {"del", del, -2, kWrite, 1, -1, 1, kCatKeyspace, "generic", "1.0.0",
     "O(N) where N is the number of keys that will be removed. When a key to remove holds a value other than "
     "a string, the "
     "individual complexity for this key is O(M) where M is the number of elements in the list, set, sorted "
     "set or hash. "
     "Removing a single key that holds a string value is O(1).",
     "Deletes keys."},
    {"unlink", del, -2, kWrite | kFast, 1, -1, 1, kCatKeyspace, "generic", "4.0.0",
     "O(1) for each key removed regardless of its size. Then the command does O(N) work in a different "
     "thread in order to "
     "reclaim memory, where N is the number of allocations the deleted objects where composed of.",
     "Deletes keys, as DEL does."},
    {"exists", exists, -2, kReadonly | kFast, 1, -1, 1, kCatKeyspace, "generic", "1.0.0",
     "O(N) where N is the number of keys to check.", "Counts which of the keys are there."},
    {"touch", exists, -2, kReadonly | kFast, 1, -1, 1, kCatKeyspace, "generic", "3.2.1",
     "O(N) where N is the number of keys that will be touched.", "Counts which of the keys are there."},
    {"type", type, 2, kReadonly | kFast, 1, 1, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Says which kind of value a key holds."},
};

}  // namespace

std::span<const Command> key_commands() {
  static const std::vector<Command> all = [] {
    std::vector<Command> joined(std::begin(kCommands), std::end(kCommands));
    for (const auto part :
         {expiry_commands(), walking_commands(), moving_commands(), database_commands(), object_commands()}) {
      joined.insert(joined.end(), part.begin(), part.end());
    }
    return joined;
  }();
  return all;
}

}  // namespace isthmus
