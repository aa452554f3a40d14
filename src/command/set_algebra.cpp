// SINTER, SUNION and SDIFF with their kin: what several sets have in common, have together, or differ in.
#include <algorithm>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include <boost/unordered/unordered_flat_set.hpp>

#include "src/command/keys.hpp"
#include "src/command/sets.hpp"

namespace isthmus {
namespace {

/// The sets of a command; null for those that are absent.
using Sets = std::vector<const Node*>;

// The sets of these keys; nothing if the error has been replied because one is of another type.
std::optional<Sets> find_sets(Call& call, std::span<const std::string_view> keys) {
  Sets sets;
  sets.reserve(keys.size());
  for (const std::string_view name : keys) {
    bool failed = false;
    sets.push_back(call.find_set(Key(call.db(), name), failed));
    if (failed) return std::nullopt;
  }
  return sets;
}

// Calls `visit` for what is in all sets, until it says that it has enough.
void visit_common(Sets sets, const std::function<bool(std::string_view)>& visit) {
  if (std::find(sets.begin(), sets.end(), nullptr) != sets.end()) return;
  std::sort(sets.begin(), sets.end(),
            [](const Node* a, const Node* b) { return hash_size(*a) < hash_size(*b); });
  bool more = true;
  hash_for_each(*sets[0], false, [&](const FieldView& member) {
    const auto has = [&](const Node* set) { return hash_find(*set, member.name).has_value(); };
    if (more && std::all_of(sets.begin() + 1, sets.end(), has)) more = visit(member.name);
  });
}

Members intersection(const Sets& sets) {
  Members members;
  visit_common(sets, [&](std::string_view member) {
    members.push_back(member);
    return true;
  });
  return members;
}

Members union_of(const Sets& sets) {
  Members members;
  boost::unordered_flat_set<std::string_view> seen;
  for (const Node* set : sets) {
    if (set == nullptr) continue;
    hash_for_each(*set, false, [&](const FieldView& member) {
      if (seen.insert(member.name).second) members.push_back(member.name);
    });
  }
  return members;
}

Members difference(const Sets& sets) {
  Members members;
  if (sets[0] == nullptr) return members;
  hash_for_each(*sets[0], false, [&](const FieldView& member) {
    const auto has = [&](const Node* set) { return set != nullptr && hash_find(*set, member.name); };
    if (std::none_of(sets.begin() + 1, sets.end(), has)) members.push_back(member.name);
  });
  return members;
}

void reply_members(Call& call, Members (*combine)(const Sets&)) {
  const auto sets = find_sets(call, call.args.subspan(1));
  if (!sets) return;
  Members members = combine(*sets);
  sort_integers(members);
  call.reply.set(members.size());
  for (const std::string_view member : members) call.reply.bulk(member);
}

// The destination becomes this set, whatever it was; none if it is empty.
void store(Call& call, const Key& destination, const std::vector<std::string>& members,
           std::string_view event) {
  const bool existed = call.find_for_write(destination) != nullptr;
  if (existed) call.del(destination);
  if (members.empty()) {
    if (existed) call.notify(kEventGeneric, "del", destination);
    call.reply.integer(0);
    return;
  }
  backend::Row row;
  row.kind = backend::RowKind::screate;
  for (const std::string& member : members) {
    row.field = member;
    call.evaluation().emit(row, destination);
    row.kind = backend::RowKind::sadd;
  }
  // A set that has once been more than an intset holds stays so (OBJECT ENCODING).
  const auto is_integer = [](const std::string& member) { return parse_integer(member).has_value(); };
  if (members.size() > kMaxIntset || !std::ranges::all_of(members, is_integer))
    call.services.keyspace.mark_as_text(destination);
  if (!existed) call.notify(kEventNew, "new", destination);
  call.notify(kEventSet, event, destination);
  call.reply.integer(static_cast<std::int64_t>(members.size()));
}

void store_members(Call& call, Members (*combine)(const Sets&), std::string_view event) {
  const auto sets = find_sets(call, call.args.subspan(2));
  if (!sets) return;
  const Key destination = call.key(1);
  std::vector<std::string> members;
  std::size_t bytes = 0;
  for (const std::string_view member : combine(*sets)) {
    members.emplace_back(member);
    bytes += member.size() + destination.name.size();
  }
  if (call.fits(bytes)) store(call, destination, members, event);
}

// SINTER key [key …] → a set of what all of them have. O(N·M) for the smallest of M sets.
void sinter(Call& call) { reply_members(call, intersection); }

// SUNION key [key …] → a set of what any of them has. O(N) of all members.
void sunion(Call& call) { reply_members(call, union_of); }

// SDIFF key [key …] → a set of what the first has and no other. O(N·M) for the first of M sets.
void sdiff(Call& call) { reply_members(call, difference); }

// SINTERSTORE destination key [key …] → the size of the set that destination is now; if that is 0, it is
// deleted. As SINTER.
void sinterstore(Call& call) { store_members(call, intersection, "sinterstore"); }

// SUNIONSTORE destination key [key …] → likewise, as SUNION.
void sunionstore(Call& call) { store_members(call, union_of, "sunionstore"); }

// SDIFFSTORE destination key [key …] → likewise, as SDIFF.
void sdiffstore(Call& call) { store_members(call, difference, "sdiffstore"); }

// LIMIT of SINTERCARD behind its keys; 0 is none. Nothing if the error has been replied.
std::optional<std::int64_t> intersection_limit(Call& call, std::size_t first) {
  constexpr std::string_view kNegative = "ERR LIMIT can't be negative";
  std::int64_t limit = 0;
  for (std::size_t i = first; i < call.argc(); i += 2) {
    if (!call.is(i, "limit") || i + 1 >= call.argc()) {
      call.reply.error(error::kSyntax);
      return std::nullopt;
    }
    const auto number = call.integer(i + 1, kNegative);
    if (!number) return std::nullopt;
    if (*number < 0) {
      call.reply.error(kNegative);
      return std::nullopt;
    }
    limit = *number;
  }
  return limit;
}

// SINTERCARD numkeys key [key …] [LIMIT limit] → how much all of them have in common, `limit` at most (0:
// all). O(N·M) for the smallest of M sets.
void sintercard(Call& call) {
  constexpr std::string_view kNumber = "ERR numkeys should be greater than 0";
  const auto number = call.integer(1, kNumber);
  if (!number) return;
  if (*number < 1) {
    call.reply.error(kNumber);
    return;
  }
  const auto keys = counted_keys(call.args);
  if (!keys) {
    call.reply.error("ERR Number of keys can't be greater than number of args");
    return;
  }
  const auto limit = intersection_limit(call, 2 + keys->size());
  if (!limit) return;
  const auto sets = find_sets(call, *keys);
  if (!sets) return;
  std::int64_t count = 0;
  visit_common(*sets, [&](std::string_view) { return ++count != *limit; });
  call.reply.integer(count);
}

constexpr std::string_view kGroup = "set";
constexpr std::string_view kOfSmallest =
    "O(N*M) worst case where N is the cardinality of the smallest set and M is the number of sets.";
constexpr std::string_view kOfAll = "O(N) where N is the total number of elements in all given sets.";

constexpr Command kCommands[] = {
    {"sinter", sinter, -2, kReadonly, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfSmallest,
     "Returns what several sets have in common."},
    {"sunion", sunion, -2, kReadonly, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfAll,
     "Returns what several sets have together."},
    {"sdiff", sdiff, -2, kReadonly, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfAll,
     "Returns what only the first of several sets has."},
    {"sinterstore", sinterstore, -3, kWrite | kDenyOom, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfSmallest,
     "Stores what several sets have in common."},
    {"sunionstore", sunionstore, -3, kWrite | kDenyOom, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfAll,
     "Stores what several sets have together."},
    {"sdiffstore", sdiffstore, -3, kWrite | kDenyOom, 1, -1, 1, kCatSet, kGroup, "1.0.0", kOfAll,
     "Stores what only the first of several sets has."},
    {"sintercard", sintercard, -3, kReadonly | kMovableKeys | kCountedKeys, 0, 0, 0, kCatSet, kGroup, "7.0.0",
     kOfSmallest, "Counts what several sets have in common."},
};

}  // namespace

std::span<const Command> set_algebra_commands() { return kCommands; }

}  // namespace isthmus
