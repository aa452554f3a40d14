// Hash commands (https://redis.io/docs/latest/commands/?group=hash).
#include <cmath>
#include <functional>
#include <limits>
#include <optional>
#include <string>

#include "src/command/call.hpp"
#include "src/command/random.hpp"
#include "src/command/random_fields.hpp"
#include "src/command/scan.hpp"

namespace isthmus {
namespace {

// At most what the effects of the call hold: the arguments, and the key once for each field.
std::size_t argument_bytes(const Call& call) {
  std::size_t bytes = 0;
  for (const std::string_view arg : call.args.subspan(1)) bytes += arg.size();
  return bytes + call.args[1].size() * (call.argc() / 2);
}

// Writes the pairs from args[2] on into a key that is a hash or absent. Returns how many fields are new.
std::int64_t write_pairs(Call& call, const Key& key, const Node* node) {
  std::int64_t created = 0;
  for (std::size_t i = 2; i + 1 < call.argc(); i += 2) {
    if (i > 2) node = call.find_for_write(key);
    if (node == nullptr || !hash_find(*node, call.args[i])) ++created;
    call.hset(key, call.args[i], call.args[i + 1], node == nullptr);
  }
  call.notify(kEventHash, "hset", key);
  return created;
}

// HSET and HMSET: the number of new fields, or nothing if an error has been replied.
std::optional<std::int64_t> set_pairs(Call& call) {
  if (call.argc() % 2 != 0) {
    call.wrong_arity();
    return std::nullopt;
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_hash_for_write(key, failed);
  if (failed || !call.fits(argument_bytes(call))) return std::nullopt;
  return write_pairs(call, key, node);
}

// HSET key field value [field value …] → the number of new fields. O(1) for each field.
void hset(Call& call) {
  if (const auto created = set_pairs(call)) call.reply.integer(*created);
}

// HMSET key field value [field value …] → OK. O(1) for each field.
void hmset(Call& call) {
  if (set_pairs(call)) call.reply.ok();
}

// HSETNX key field value → 1, or 0 if the field is there, which stays as it is. O(1).
void hsetnx(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_hash_for_write(key, failed);
  if (failed) return;
  if (node != nullptr && hash_find(*node, call.args[2])) {
    call.reply.integer(0);
    return;
  }
  if (!call.fits(argument_bytes(call))) return;
  write_pairs(call, key, node);
  call.reply.integer(1);
}

// HGET key field → the value, or null. O(1).
void hget(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  const auto field = node == nullptr ? std::nullopt : hash_find(*node, call.args[2]);
  if (field) {
    call.reply.bulk(field->value);
  } else {
    call.reply.null();
  }
}

// HMGET key field [field …] → an array: each value, or null. O(1) for each field.
void hmget(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  call.reply.array(call.argc() - 2);
  for (const std::string_view name : call.args.subspan(2)) {
    const auto field = node == nullptr ? std::nullopt : hash_find(*node, name);
    if (field) {
      call.reply.bulk(field->value);
    } else {
      call.reply.null();
    }
  }
}

// HGETALL key → a map of all fields, empty if the key is absent. O(N).
void hgetall(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  call.reply.map(node == nullptr ? 0 : hash_size(*node));
  if (node == nullptr) return;
  hash_for_each(*node, false, [&](const FieldView& field) {
    call.reply.bulk(field.name);
    call.reply.bulk(field.value);
  });
}

void reply_each(Call& call, std::string_view FieldView::*part) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  call.reply.array(node == nullptr ? 0 : hash_size(*node));
  if (node == nullptr) return;
  hash_for_each(*node, false, [&](const FieldView& field) { call.reply.bulk(field.*part); });
}

// HKEYS key → an array of all field names. O(N).
void hkeys(Call& call) { reply_each(call, &FieldView::name); }

// HVALS key → an array of all values. O(N).
void hvals(Call& call) { reply_each(call, &FieldView::value); }

// HDEL key field [field …] → the number of fields that were there. O(1) for each field.
void hdel(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_hash_for_write(key, failed);
  if (failed) return;
  std::int64_t deleted = 0;
  for (std::size_t i = 2; i < call.argc() && node != nullptr; ++i) {
    if (!hash_find(*node, call.args[i])) continue;
    call.hdel(key, call.args[i]);
    ++deleted;
    node = call.find_for_write(key);
  }
  if (deleted > 0) call.notify(kEventHash, "hdel", key);
  if (deleted > 0 && node == nullptr) call.notify(kEventGeneric, "del", key);
  call.reply.integer(deleted);
}

// HEXISTS key field → 1 or 0. O(1).
void hexists(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (!failed) call.reply.integer(node != nullptr && hash_find(*node, call.args[2]) ? 1 : 0);
}

// HLEN key → the number of fields. O(1).
void hlen(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (!failed) call.reply.integer(node == nullptr ? 0 : hash_size(*node));
}

// HSTRLEN key field → the bytes of the value, 0 if there is none. O(1).
void hstrlen(Call& call) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  const auto field = node == nullptr ? std::nullopt : hash_find(*node, call.args[2]);
  call.reply.integer(field ? static_cast<std::int64_t>(field->value.size()) : 0);
}

// HINCRBY key field increment → the sum. An absent field counts as 0. Errors if the value or the increment is
// no integer of 64 bits, or the sum would not be one. O(1).
void hincrby(Call& call) {
  const auto increment = call.integer(3);
  if (!increment) return;
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_hash_for_write(key, failed);
  if (failed) return;
  const auto field = node == nullptr ? std::nullopt : hash_find(*node, call.args[2]);
  const auto old = field ? parse_integer(field->value) : 0;
  if (!old) {
    call.reply.error("ERR hash value is not an integer");
    return;
  }
  std::int64_t sum = 0;
  if (__builtin_add_overflow(*old, *increment, &sum)) {
    call.reply.error(error::kOverflow);
    return;
  }
  if (!call.fits(argument_bytes(call))) return;
  call.hcount(key, call.args[2], *increment, sum, node == nullptr);
  call.notify(kEventHash, "hincrby", key);
  call.reply.integer(sum);
}

// HINCRBYFLOAT key field increment → the sum as a bulk string. An absent field counts as 0. Errors if the
// value or the increment is no number, or one of them or the sum is not finite. O(1).
void hincrbyfloat(Call& call) {
  const auto increment = call.number(3);
  if (!increment) return;
  if (std::isinf(*increment)) {
    call.reply.error("ERR value is NaN or Infinity");
    return;
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_hash_for_write(key, failed);
  if (failed) return;
  const auto field = node == nullptr ? std::nullopt : hash_find(*node, call.args[2]);
  const auto old = field ? parse_number(field->value) : std::optional<long double>(0);
  if (!old) {
    call.reply.error("ERR hash value is not a float");
    return;
  }
  const long double sum = *old + *increment;
  if (!std::isfinite(sum)) {
    call.reply.error("ERR increment would produce NaN or Infinity");
    return;
  }
  if (!call.fits(argument_bytes(call))) return;
  const std::string text = number_text(sum);
  call.hset(key, call.args[2], text, node == nullptr);
  call.notify(kEventHash, "hincrbyfloat", key);
  call.reply.bulk(text);
}

// HSCAN key cursor [MATCH pattern] [COUNT count] → the next cursor and some fields with their values. A
// packed hash is returned whole, whatever the cursor. O(1) for each call.
void hscan(Call& call) { scan_fields(call, &Call::find_hash, true); }

void hrandfield_count(Call& call, std::int64_t count, bool with_values) {
  bool failed = false;
  const Node* node = call.find_hash(call.key(1), failed);
  if (failed) return;
  RandomFields(call, with_values).reply(node, count);
}

// HRANDFIELD key → a random field name, or null. HRANDFIELD key count [WITHVALUES] → an array of so many
// different ones, or, for a negative count, of exactly so many with repetition (at most 512 MiB of reply,
// else an error). O(N) of those returned.
void hrandfield(Call& call) {
  if (call.argc() == 2) {
    bool failed = false;
    const Node* node = call.find_hash(call.key(1), failed);
    if (failed) return;
    if (node == nullptr) {
      call.reply.null();
    } else {
      call.reply.bulk(hash_random(*node, random_bits).name);
    }
    return;
  }
  constexpr std::int64_t kMax = std::numeric_limits<std::int64_t>::max();
  const auto count = call.integer(2);
  if (!count) return;
  if (*count < -kMax) {
    call.reply.error(error::kCountOutOfRange);
  } else if (call.argc() > 4 || (call.argc() == 4 && !call.is(3, "withvalues"))) {
    call.reply.error(error::kSyntax);
  } else if (call.argc() == 4 && (*count < -kMax / 2 || *count > kMax / 2)) {
    call.reply.error("ERR value is out of range");
  } else {
    hrandfield_count(call, *count, call.argc() == 4);
  }
}

constexpr std::uint32_t kAdds = kWrite | kDenyOom | kFast;
constexpr std::uint32_t kReads = kReadonly | kFast;

constexpr Command kHashCommands[] = {
    {"hset", hset, -4, kAdds, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(1) for each field/value pair added, so O(N) to add N field/value pairs when the command is called "
     "with multiple "
     "field/value pairs.",
     "Sets one or more fields of a hash."},
    {"hsetnx", hsetnx, 4, kAdds, 1, 1, 1, kCatHash, "hash", "2.0.0", "O(1)",
     "Sets a field of a hash unless it is there."},
    {"hmset", hmset, -4, kAdds, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the number of fields being set.", "Sets several fields of a hash; HSET does the same."},
    {"hget", hget, 3, kReads, 1, 1, 1, kCatHash, "hash", "2.0.0", "O(1)", "Returns the value of a field."},
    {"hmget", hmget, -3, kReads, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the number of fields being requested.", "Returns the values of several fields."},
    {"hgetall", hgetall, 2, kReadonly, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the size of the hash.", "Returns all fields of a hash with their values."},
    {"hdel", hdel, -3, kWrite | kFast, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the number of fields to be removed.",
     "Deletes fields, and the hash with its last one."},
    {"hexists", hexists, 3, kReads, 1, 1, 1, kCatHash, "hash", "2.0.0", "O(1)",
     "Says whether a field is there."},
    {"hlen", hlen, 2, kReads, 1, 1, 1, kCatHash, "hash", "2.0.0", "O(1)", "Counts the fields of a hash."},
    {"hkeys", hkeys, 2, kReadonly, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the size of the hash.", "Returns the names of all fields."},
    {"hvals", hvals, 2, kReadonly, 1, 1, 1, kCatHash, "hash", "2.0.0",
     "O(N) where N is the size of the hash.", "Returns the values of all fields."},
    {"hstrlen", hstrlen, 3, kReads, 1, 1, 1, kCatHash, "hash", "3.2.0", "O(1)",
     "Returns the length of a field's value in bytes."},
    {"hincrby", hincrby, 4, kAdds, 1, 1, 1, kCatHash, "hash", "2.0.0", "O(1)", "Adds an integer to a field."},
    {"hincrbyfloat", hincrbyfloat, 4, kAdds, 1, 1, 1, kCatHash, "hash", "2.6.0", "O(1)",
     "Adds a floating-point number to a field."},
    {"hscan", hscan, -3, kReadonly, 1, 1, 1, kCatHash, "hash", "2.8.0",
     "O(1) for every call. O(N) for a complete iteration, including enough command calls for the cursor to "
     "return back to 0. "
     "N is the number of elements inside the collection..",
     "Walks the fields of a hash step by step."},
    {"hrandfield", hrandfield, -2, kReadonly, 1, 1, 1, kCatHash, "hash", "6.2.0",
     "O(N) where N is the number of fields returned", "Returns random fields of a hash."},
};

}  // namespace

std::span<const Command> hash_commands() { return kHashCommands; }

}  // namespace isthmus
