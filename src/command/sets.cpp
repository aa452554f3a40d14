// Commands of one set, and SMOVE (https://redis.io/docs/latest/commands/?group=set). What sets make of each
// other is in set_algebra.cpp.
#include "src/command/sets.hpp"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "src/command/keys.hpp"
#include "src/command/random.hpp"
#include "src/command/random_fields.hpp"
#include "src/command/scan.hpp"

namespace isthmus {

void sort_integers(Members& members) {
  if (members.size() > kMaxIntset) return;
  std::vector<std::pair<std::int64_t, std::string_view>> numbers;
  numbers.reserve(members.size());
  for (const std::string_view member : members) {
    const auto number = parse_integer(member);
    if (!number) return;
    numbers.emplace_back(*number, member);
  }
  std::sort(numbers.begin(), numbers.end());
  for (std::size_t i = 0; i < members.size(); ++i) members[i] = numbers[i].second;
}

bool add_member(Call& call, const Key& key, std::string_view member) {
  const Node* const node = call.find_for_write(key);
  if (node != nullptr && hash_find(*node, member)) {
    // Between linked sites it must outlive a removal that has not seen it.
    if (call.services.keyspace.linked()) call.sadd(key, member, false);
    return false;
  }
  call.sadd(key, member, node == nullptr);
  const Node* const after = call.find_for_write(key);
  if (!after->as_text && (!parse_integer(member) || hash_size(*after) > kMaxIntset))
    call.services.keyspace.mark_as_text(key);
  return true;
}

namespace {

// At most what the effects of the call hold: the arguments, and the key once for each member.
std::size_t argument_bytes(const Call& call) {
  std::size_t bytes = 0;
  for (const std::string_view arg : call.args.subspan(1)) bytes += arg.size();
  return bytes + call.args[1].size() * call.argc();
}

// SADD key member [member …] → the number of new members. O(1) for each.
void sadd(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  call.find_set_for_write(key, failed);
  if (failed || !call.fits(argument_bytes(call))) return;
  std::int64_t added = 0;
  for (const std::string_view member : call.args.subspan(2)) added += add_member(call, key, member);
  if (added > 0) call.notify(kEventSet, "sadd", key);
  call.reply.integer(added);
}

// What the removal of members raises, and of the key if they were the last ones.
void tell_removed(Call& call, const Key& key, std::string_view event) {
  call.notify(kEventSet, event, key);
  if (call.find_for_write(key) == nullptr) call.notify(kEventGeneric, "del", key);
}

// SREM key member [member …] → the number of members that were there. O(1) for each.
void srem(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_set_for_write(key, failed);
  if (failed) return;
  std::int64_t removed = 0;
  for (std::size_t i = 2; i < call.argc() && node != nullptr; ++i) {
    if (!hash_find(*node, call.args[i])) continue;
    call.srem(key, call.args[i]);
    ++removed;
    node = call.find_for_write(key);
  }
  if (removed > 0) tell_removed(call, key, "srem");
  call.reply.integer(removed);
}

// SISMEMBER key member → 1 or 0. O(1).
void sismember(Call& call) {
  bool failed = false;
  const Node* node = call.find_set(call.key(1), failed);
  if (!failed) call.reply.integer(node != nullptr && hash_find(*node, call.args[2]) ? 1 : 0);
}

// SMISMEMBER key member [member …] → an array: 1 or 0 for each. O(1) for each.
void smismember(Call& call) {
  bool failed = false;
  const Node* node = call.find_set(call.key(1), failed);
  if (failed) return;
  call.reply.array(call.argc() - 2);
  for (const std::string_view member : call.args.subspan(2))
    call.reply.integer(node != nullptr && hash_find(*node, member) ? 1 : 0);
}

// SCARD key → the number of members. O(1).
void scard(Call& call) {
  bool failed = false;
  const Node* node = call.find_set(call.key(1), failed);
  if (!failed) call.reply.integer(node == nullptr ? 0 : hash_size(*node));
}

// SMEMBERS key → a set of all members. O(N).
void smembers(Call& call) {
  bool failed = false;
  const Node* node = call.find_set(call.key(1), failed);
  if (failed) return;
  call.reply.set(node == nullptr ? 0 : hash_size(*node));
  if (node == nullptr) return;
  if (hash_size(*node) > kMaxIntset) {
    hash_for_each(*node, false, [&](const FieldView& member) { call.reply.bulk(member.name); });
    return;
  }
  Members members;
  members.reserve(hash_size(*node));
  hash_for_each(*node, false, [&](const FieldView& member) { members.push_back(member.name); });
  sort_integers(members);
  for (const std::string_view member : members) call.reply.bulk(member);
}

// SMOVE source destination member → 1, or 0 if the source has no such member. Errors if either key is of
// another type. O(1).
void smove(Call& call) {
  const Key source = call.key(1), destination = call.key(2);
  const std::string_view member = call.args[3];
  const Node* const from = call.find_for_write(source);
  const Node* const to = call.find_for_write(destination);
  if (from == nullptr) {
    call.reply.integer(0);
    return;
  }
  if (!from->is_set() || (to != nullptr && !to->is_set())) {
    call.reply.error(error::kWrongType);
    return;
  }
  const bool is_member = hash_find(*from, member).has_value();
  if (!is_member || source.name == destination.name) {
    call.reply.integer(is_member ? 1 : 0);
    return;
  }
  if (!call.fits(argument_bytes(call))) return;
  call.srem(source, member);
  tell_removed(call, source, "srem");
  if (add_member(call, destination, member)) call.notify(kEventSet, "sadd", destination);
  call.reply.integer(1);
}

// Takes the members out, which the reply has already.
void pop(Call& call, const Key& key, const std::vector<std::string>& members) {
  for (const std::string& member : members) call.srem(key, member);
  tell_removed(call, key, "spop");
}

// SPOP key count → a set of so many members at most.
void spop_count(Call& call) {
  const auto count = call.integer(2, error::kNotPositive);
  if (!count) return;
  if (*count < 0) {
    call.reply.error(error::kNotPositive);
    return;
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_set_for_write(key, failed);
  if (failed) return;
  if (node == nullptr || *count == 0) {
    call.reply.set(0);
    return;
  }
  std::vector<std::string> members;
  std::size_t bytes = 0;
  choose_fields(*node, std::min<std::uint64_t>(static_cast<std::uint64_t>(*count), hash_size(*node)),
                [&](const FieldView& member) {
                  members.emplace_back(member.name);
                  bytes += key.name.size() + member.name.size();
                });
  if (!call.fits(bytes)) return;
  call.reply.set(members.size());
  for (const std::string& member : members) call.reply.bulk(member);
  pop(call, key, members);
}

// SPOP key → a random member, which is taken out, or null. SPOP key count: above. The log has the members,
// not the choice. O(1) for each.
void spop(Call& call) {
  if (call.argc() > 3) {
    call.reply.error(error::kSyntax);
    return;
  }
  if (call.argc() == 3) {
    spop_count(call);
    return;
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_set_for_write(key, failed);
  if (failed) return;
  if (node == nullptr) {
    call.reply.null();
    return;
  }
  const std::string member(hash_random(*node, random_bits).name);
  call.reply.bulk(member);
  pop(call, key, {member});
}

// SRANDMEMBER key → a random member, or null. SRANDMEMBER key count → an array of so many different ones, or,
// for a negative count, of exactly so many with repetition (at most 512 MiB of reply, else an error). O(N) of
// those returned.
void srandmember(Call& call) {
  if (call.argc() > 3) {
    call.reply.error(error::kSyntax);
    return;
  }
  std::optional<std::int64_t> count;
  if (call.argc() == 3) {
    count = call.integer(2);
    if (!count) return;
    if (*count == std::numeric_limits<std::int64_t>::min()) {
      call.reply.error(error::kCountOutOfRange);
      return;
    }
  }
  bool failed = false;
  const Node* node = call.find_set(call.key(1), failed);
  if (failed) return;
  if (count) {
    RandomFields(call, false).reply(node, *count);
  } else if (node == nullptr) {
    call.reply.null();
  } else {
    call.reply.bulk(hash_random(*node, random_bits).name);
  }
}

// SSCAN key cursor [MATCH pattern] [COUNT count] → the next cursor and some members. A packed set is returned
// whole, whatever the cursor. O(1) for each call.
void sscan(Call& call) { scan_fields(call, &Call::find_set, false); }

constexpr std::uint32_t kAdds = kWrite | kDenyOom | kFast;
constexpr std::uint32_t kReads = kReadonly | kFast;
constexpr std::string_view kGroup = "set";

constexpr Command kCommands[] = {
    {"sadd", sadd, -3, kAdds, 1, 1, 1, kCatSet, kGroup, "1.0.0",
     "O(1) for each element added, so O(N) to add N elements when the command is called with multiple "
     "arguments.",
     "Adds members to a set."},
    {"srem", srem, -3, kWrite | kFast, 1, 1, 1, kCatSet, kGroup, "1.0.0",
     "O(N) where N is the number of members to be removed.",
     "Removes members of a set, and the set with its last one."},
    {"sismember", sismember, 3, kReads, 1, 1, 1, kCatSet, kGroup, "1.0.0", "O(1)",
     "Says whether a member is there."},
    {"smismember", smismember, -3, kReads, 1, 1, 1, kCatSet, kGroup, "6.2.0",
     "O(N) where N is the number of elements being checked for membership",
     "Says of several members whether they are there."},
    {"scard", scard, 2, kReads, 1, 1, 1, kCatSet, kGroup, "1.0.0", "O(1)", "Counts the members of a set."},
    {"smembers", smembers, 2, kReadonly, 1, 1, 1, kCatSet, kGroup, "1.0.0",
     "O(N) where N is the set cardinality.", "Returns all members of a set."},
    {"smove", smove, 4, kWrite | kFast, 1, 2, 1, kCatSet, kGroup, "1.0.0", "O(1)",
     "Moves a member from one set to another."},
    {"spop", spop, -2, kWrite | kFast, 1, 1, 1, kCatSet, kGroup, "1.0.0",
     "Without the count argument O(1), otherwise O(N) where N is the value of the passed count.",
     "Takes random members out of a set."},
    {"srandmember", srandmember, -2, kReadonly, 1, 1, 1, kCatSet, kGroup, "1.0.0",
     "Without the count argument O(1), otherwise O(N) where N is the absolute value of the passed count.",
     "Returns random members of a set."},
    {"sscan", sscan, -3, kReadonly, 1, 1, 1, kCatSet, kGroup, "2.8.0",
     "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to "
     "return back to "
     "0. N is the number of elements inside the collection..",
     "Walks over the members of a set."},
};

}  // namespace

std::span<const Command> set_commands() { return kCommands; }

}  // namespace isthmus
