// EXPIRE and its relatives, TTL and its relatives, PERSIST.
#include "src/command/key_expiry.hpp"

#include <algorithm>

#include "src/command/keys.hpp"

namespace isthmus {

std::optional<std::int64_t> deadline_after(std::int64_t base_ms, std::int64_t amount, TimeUnit unit) {
  std::int64_t milliseconds = 0, deadline = 0;
  if (__builtin_mul_overflow(amount, unit == TimeUnit::seconds ? 1000 : 1, &milliseconds))
    return std::nullopt;
  if (__builtin_add_overflow(milliseconds, base_ms, &deadline)) return std::nullopt;
  return std::min(deadline, kNoDeadline - 1);
}

std::int64_t rounded_seconds(std::int64_t milliseconds) {
  return milliseconds / 1000 + (milliseconds % 1000 >= 500 ? 1 : 0);
}

bool ExpireConditions::add(std::string_view option) {
  if (equals_ignoring_case(option, "nx")) {
    none_yet = true;
  } else if (equals_ignoring_case(option, "xx")) {
    has_one = true;
  } else if (equals_ignoring_case(option, "gt")) {
    later_only = true;
  } else if (equals_ignoring_case(option, "lt")) {
    earlier_only = true;
  } else {
    return false;
  }
  return true;
}

std::string_view ExpireConditions::conflict() const {
  if (none_yet && (has_one || later_only || earlier_only)) {
    return "ERR NX and XX, GT or LT options at the same time are not compatible";
  }
  if (later_only && earlier_only) return "ERR GT and LT options at the same time are not compatible";
  return {};
}

bool ExpireConditions::allow(std::int64_t current, std::int64_t wanted) const {
  if (none_yet && current != kNoDeadline) return false;
  if (has_one && current == kNoDeadline) return false;
  // No deadline counts as one that never comes: nothing is later, everything is earlier.
  if (later_only && wanted <= current) return false;
  return !earlier_only || wanted < current;
}

namespace {

// The options from args[3] on, or nothing if an error has been replied.
std::optional<ExpireConditions> read_conditions(Call& call) {
  ExpireConditions conditions;
  for (const std::string_view option : call.args.subspan(3)) {
    if (conditions.add(option)) continue;
    std::string text = "ERR Unsupported option ";
    call.reply.error(text.append(option.substr(0, option.find('\0'))));
    return std::nullopt;
  }
  if (const std::string_view conflict = conditions.conflict(); !conflict.empty()) {
    call.reply.error(conflict);
    return std::nullopt;
  }
  return conditions;
}

// A deadline that has passed deletes the key at once.
void give_deadline(Call& call, const Key& key, std::int64_t deadline) {
  if (deadline <= call.now_ms()) {
    call.del(key);
    call.notify(kEventGeneric, "del", key);
  } else {
    call.expire(key, deadline);
    call.notify(kEventGeneric, "expire", key);
  }
}

void set_deadline(Call& call, std::int64_t base_ms, TimeUnit unit) {
  const auto conditions = read_conditions(call);
  if (!conditions) return;
  const auto amount = call.integer(2);
  if (!amount) return;
  const auto deadline = deadline_after(base_ms, *amount, unit);
  if (!deadline) {
    std::string text = "ERR invalid expire time in '";
    call.reply.error(text.append(call.command.name).append("' command"));
    return;
  }
  const Key key = call.key(1);
  const Node* node = call.find_for_write(key);
  const bool allowed = node != nullptr && conditions->allow(node->deadline(), *deadline);
  if (allowed) give_deadline(call, key, *deadline);
  call.reply.integer(allowed ? 1 : 0);
}

// EXPIRE key seconds, PEXPIRE key milliseconds, EXPIREAT key time-in-seconds, PEXPIREAT key
// time-in-milliseconds, each with [NX | XX | GT | LT] → 1 if the deadline has been set, else 0. A time in the
// past deletes the key. Errors, in this order: a strange option, options that exclude each other, no integer,
// out of range. O(1).
void expire(Call& call) { set_deadline(call, call.now_ms(), TimeUnit::seconds); }
void pexpire(Call& call) { set_deadline(call, call.now_ms(), TimeUnit::milliseconds); }
void expireat(Call& call) { set_deadline(call, 0, TimeUnit::seconds); }
void pexpireat(Call& call) { set_deadline(call, 0, TimeUnit::milliseconds); }

// Replies with the deadline counted from `base_ms`.
void reply_deadline(Call& call, std::int64_t base_ms, TimeUnit unit) {
  const Node* node = call.find(call.key(1));
  if (node == nullptr) {
    call.reply.integer(-2);
  } else if (node->deadline() == kNoDeadline) {
    call.reply.integer(-1);
  } else {
    const std::int64_t left = std::max<std::int64_t>(node->deadline() - base_ms, 0);
    call.reply.integer(unit == TimeUnit::seconds ? rounded_seconds(left) : left);
  }
}

// TTL key, PTTL key → how long the key has still to live; EXPIRETIME key, PEXPIRETIME key → when it ends; -1
// if never, -2 if the key is absent. O(1).
void ttl(Call& call) { reply_deadline(call, call.now_ms(), TimeUnit::seconds); }
void pttl(Call& call) { reply_deadline(call, call.now_ms(), TimeUnit::milliseconds); }
void expiretime(Call& call) { reply_deadline(call, 0, TimeUnit::seconds); }
void pexpiretime(Call& call) { reply_deadline(call, 0, TimeUnit::milliseconds); }

// PERSIST key → 1 if the key had a deadline, which it has no more, else 0. O(1).
void persist(Call& call) {
  const Key key = call.key(1);
  const Node* node = call.find_for_write(key);
  const bool had_one = node != nullptr && node->deadline() != kNoDeadline;
  if (had_one) {
    call.expire(key, std::nullopt);
    call.notify(kEventGeneric, "persist", key);
  }
  call.reply.integer(had_one ? 1 : 0);
}

constexpr std::uint32_t kChanges = kWrite | kFast;
constexpr std::uint32_t kReads = kReadonly | kFast;

constexpr Command kCommands[] = {
    {"expire", expire, -3, kChanges, 1, 1, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Sets how many seconds a key has to live."},
    {"pexpire", pexpire, -3, kChanges, 1, 1, 1, kCatKeyspace, "generic", "2.6.0", "O(1)",
     "Sets how many milliseconds a key has to live."},
    {"expireat", expireat, -3, kChanges, 1, 1, 1, kCatKeyspace, "generic", "1.2.0", "O(1)",
     "Sets the Unix time in seconds when a key ends."},
    {"pexpireat", pexpireat, -3, kChanges, 1, 1, 1, kCatKeyspace, "generic", "2.6.0", "O(1)",
     "Sets the Unix time in milliseconds when a key ends."},
    {"ttl", ttl, 2, kReads, 1, 1, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Returns how many seconds a key has to live."},
    {"pttl", pttl, 2, kReads, 1, 1, 1, kCatKeyspace, "generic", "2.6.0", "O(1)",
     "Returns how many milliseconds a key has to live."},
    {"expiretime", expiretime, 2, kReads, 1, 1, 1, kCatKeyspace, "generic", "7.0.0", "O(1)",
     "Returns the Unix time in seconds when a key ends."},
    {"pexpiretime", pexpiretime, 2, kReads, 1, 1, 1, kCatKeyspace, "generic", "7.0.0", "O(1)",
     "Returns the Unix time in milliseconds when a key ends."},
    {"persist", persist, 2, kChanges, 1, 1, 1, kCatKeyspace, "generic", "2.2.0", "O(1)",
     "Takes a key's time to live away."},
};

}  // namespace

std::span<const Command> expiry_commands() { return kCommands; }

}  // namespace isthmus
