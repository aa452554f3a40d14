// The string commands (https://redis.io/docs/latest/commands/?group=string).
#include <algorithm>
#include <limits>

#include "src/command/call.hpp"
#include "src/command/expiry_argument.hpp"

namespace isthmus {
namespace {

constexpr std::string_view kIncrementNanOrInf = "ERR increment would produce NaN or Infinity";

// What SET and GETEX may say after the value.
struct SetOptions {
  bool nx = false, xx = false, get = false, keep_ttl = false, persist = false;
  std::optional<std::int64_t> deadline_ms;
};

// Reads SET's options from args[3] on. False after a reply.
bool parse_set_options(Call& call, SetOptions& options) {
  std::optional<ExpiryUnit> unit;
  std::size_t amount = 0;
  for (std::size_t i = 3; i < call.argc(); ++i) {
    const bool more = i + 1 < call.argc();
    const auto expiry = expiry_option(call.args[i]);
    if (call.is(i, "nx") && !options.xx) {
      options.nx = true;
    } else if (call.is(i, "xx") && !options.nx) {
      options.xx = true;
    } else if (call.is(i, "get")) {
      options.get = true;
    } else if (call.is(i, "keepttl") && !unit) {
      options.keep_ttl = true;
    } else if (expiry && more && (!unit || unit == expiry) && !options.keep_ttl) {
      unit = expiry;
      amount = ++i;
    } else {
      call.reply.error(error::kSyntax);
      return false;
    }
  }
  if (unit) options.deadline_ms = deadline_argument(call, amount, *unit);
  return !unit || options.deadline_ms.has_value();
}

void reply_value_or_null(Call& call, const Node* node) {
  if (node == nullptr) {
    call.reply.null();
  } else {
    call.reply.bulk(node->value());
  }
}

// GET key → bulk or null. O(1).
void get(Call& call) {
  bool failed = false;
  const Node* node = call.find_string(call.key(1), failed);
  if (!failed) reply_value_or_null(call, node);
}

// A deadline that has passed already leaves no key behind, as in Redis.
void set_with_deadline(Call& call, const Key& key, std::string_view value,
                       std::optional<std::int64_t> deadline_ms) {
  call.set(key, value, deadline_ms);
  call.notify(kEventString, "set", key);
  if (deadline_ms) call.notify(kEventGeneric, "expire", key);
}

// SET key value [NX|XX] [GET] [EX s|PX ms|EXAT s|PXAT ms|KEEPTTL] → OK, or null if NX/XX forbids; with GET
// the old value. O(1).
void set(Call& call) {
  const Key key = call.key(1);
  if (call.argc() == 3) {
    if (!call.fits(call.args[2].size())) return;
    call.set(key, call.args[2]);
    call.notify(kEventString, "set", key);
    call.reply.ok();
    return;
  }
  SetOptions options;
  if (!parse_set_options(call, options)) return;
  if (!call.fits(call.args[2].size())) return;
  const Node* old = call.find_for_write(key);
  if (options.get) {
    bool failed = false;
    call.find_string(key, failed);
    if (failed) return;
    reply_value_or_null(call, old);
  }
  if ((options.nx && old != nullptr) || (options.xx && old == nullptr)) {
    if (!options.get) call.reply.null();
    return;
  }
  if (options.keep_ttl && old != nullptr) {
    const std::int64_t deadline = old->deadline();
    call.set(key, call.args[2], deadline == kNoDeadline ? std::nullopt : std::optional(deadline));
    call.notify(kEventString, "set", key);
  } else {
    set_with_deadline(call, key, call.args[2], options.deadline_ms);
  }
  if (!options.get) call.reply.ok();
}

// SETNX key value → 1 or 0. O(1).
void setnx(Call& call) {
  const Key key = call.key(1);
  if (!call.fits(call.args[2].size())) return;
  if (call.find_for_write(key) != nullptr) {
    call.reply.integer(0);
    return;
  }
  call.set(key, call.args[2]);
  call.notify(kEventString, "set", key);
  call.reply.integer(1);
}

void set_for(Call& call, ExpiryUnit unit) {
  const auto deadline = deadline_argument(call, 2, unit);
  if (!deadline || !call.fits(call.args[3].size())) return;
  set_with_deadline(call, call.key(1), call.args[3], deadline);
  call.reply.ok();
}

// SETEX key seconds value, PSETEX key milliseconds value → OK. O(1).
void setex(Call& call) { set_for(call, ExpiryUnit::seconds); }
void psetex(Call& call) { set_for(call, ExpiryUnit::milliseconds); }

// GETSET key value → the old value or null. O(1).
void getset(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* old = call.find_string(key, failed);
  if (failed || !call.fits(call.args[2].size())) return;
  reply_value_or_null(call, old);
  call.set(key, call.args[2]);
  call.notify(kEventString, "set", key);
}

// GETDEL key → the value or null; the key is gone. O(1).
void getdel(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string(key, failed);
  if (failed) return;
  reply_value_or_null(call, node);
  if (node == nullptr) return;
  call.del(key);
  call.notify(kEventGeneric, "del", key);
}

// GETEX key [EX s|PX ms|EXAT s|PXAT ms|PERSIST] → the value or null. O(1).
void getex(Call& call) {
  std::optional<ExpiryUnit> unit;
  bool persist = false;
  std::size_t amount = 0;
  for (std::size_t i = 2; i < call.argc(); ++i) {
    const auto expiry = expiry_option(call.args[i]);
    if (call.is(i, "persist") && !unit) {
      persist = true;
    } else if (expiry && i + 1 < call.argc() && (!unit || unit == expiry) && !persist) {
      unit = expiry;
      amount = ++i;
    } else {
      call.reply.error(error::kSyntax);
      return;
    }
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string(key, failed);
  if (failed) return;
  if (node == nullptr) {
    call.reply.null();
    return;
  }
  std::optional<std::int64_t> deadline;
  if (unit && !(deadline = deadline_argument(call, amount, *unit))) return;
  const bool had_deadline = node->deadline() != kNoDeadline;
  call.reply.bulk(node->value());
  if (deadline && *deadline <= call.now_ms()) {
    call.del(key);
    call.notify(kEventGeneric, "del", key);
  } else if (deadline) {
    call.expire(key, deadline);
    call.notify(kEventGeneric, "expire", key);
  } else if (persist && had_deadline) {
    call.expire(key, std::nullopt);
    call.notify(kEventGeneric, "persist", key);
  }
}

// MGET key … → an array; null for what is absent or no string. O(N).
void mget(Call& call) {
  call.reply.array(call.argc() - 1);
  for (std::size_t i = 1; i < call.argc(); ++i) {
    const Node* node = call.find(call.key(i));
    reply_value_or_null(call, node != nullptr && node->type == NodeType::string ? node : nullptr);
  }
}

// Sets all pairs from args[1] on. False after a reply.
bool set_pairs(Call& call) {
  std::size_t bytes = 0;
  for (const std::string_view arg : call.args) bytes += arg.size();
  if (!call.fits(bytes)) return false;
  for (std::size_t i = 1; i + 1 < call.argc(); i += 2) {
    call.set(call.key(i), call.args[i + 1]);
    call.notify(kEventString, "set", call.key(i));
  }
  return true;
}

// MSET key value … → OK. O(N).
void mset(Call& call) {
  if (call.argc() % 2 == 0) {
    call.wrong_arity();
  } else if (set_pairs(call)) {
    call.reply.ok();
  }
}

// MSETNX key value … → 1, or 0 if any of the keys is there. O(N).
void msetnx(Call& call) {
  if (call.argc() % 2 == 0) {
    call.wrong_arity();
    return;
  }
  for (std::size_t i = 1; i < call.argc(); i += 2) {
    if (call.find_for_write(call.key(i)) == nullptr) continue;
    call.reply.integer(0);
    return;
  }
  if (set_pairs(call)) call.reply.integer(1);
}

// Whether a string of that size is allowed. False after a reply.
bool size_allowed(Call& call, std::uint64_t size) {
  const auto limit = static_cast<std::uint64_t>(call.services.settings.proto_max_bulk_bytes.load());
  if (size > std::min(limit, kMostStringBytes)) {
    call.reply.error(error::kStringTooLong);
    return false;
  }
  return call.fits(size);
}

// APPEND key value → the new length. O(length): the whole value goes into the log.
void append(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string_for_write(key, failed);
  if (failed) return;
  if (node == nullptr) {
    if (!call.fits(call.args[2].size())) return;
    call.set(key, call.args[2]);
    call.notify(kEventString, "append", key);
    call.reply.integer(static_cast<std::int64_t>(call.args[2].size()));
    return;
  }
  if (!size_allowed(call, node->value().size() + call.args[2].size())) return;
  std::string value;
  value.reserve(node->value().size() + call.args[2].size());
  value.append(node->value()).append(call.args[2]);
  call.update(key, value, true);
  call.notify(kEventString, "append", key);
  call.reply.integer(static_cast<std::int64_t>(value.size()));
}

// STRLEN key → the length, 0 if absent. O(1).
void strlen(Call& call) {
  bool failed = false;
  const Node* node = call.find_string(call.key(1), failed);
  if (!failed) call.reply.integer(node == nullptr ? 0 : static_cast<std::int64_t>(node->value().size()));
}

// GETRANGE key start end (SUBSTR too) → the bytes from start to end inclusive; negative ones count from the
// end. O(N).
void getrange(Call& call) {
  const auto start_argument = call.integer(2);
  if (!start_argument) return;
  const auto end_argument = call.integer(3);
  if (!end_argument) return;
  bool failed = false;
  const Node* node = call.find_string(call.key(1), failed);
  if (failed) return;
  const std::string_view value = node == nullptr ? std::string_view{} : node->value();
  const auto size = static_cast<std::int64_t>(value.size());
  std::int64_t start = *start_argument, end = *end_argument;
  if (size == 0 || (start < 0 && end < 0 && start > end)) {
    call.reply.bulk({});
    return;
  }
  const auto from_end = [size](std::int64_t index) {
    return index < 0 ? std::max<std::int64_t>(size + index, 0) : index;
  };
  start = from_end(start);
  end = std::min(from_end(end), size - 1);
  if (start > end) {
    call.reply.bulk({});
  } else {
    call.reply.bulk(value.substr(static_cast<std::size_t>(start), static_cast<std::size_t>(end - start + 1)));
  }
}

// SETRANGE key offset value → the new length; a gap is filled with zero bytes. O(length).
void setrange(Call& call) {
  const auto offset = call.integer(2);
  if (!offset) return;
  if (*offset < 0) {
    call.reply.error("ERR offset is out of range");
    return;
  }
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string_for_write(key, failed);
  if (failed) return;
  const std::string_view patch = call.args[3];
  if (patch.empty()) {
    call.reply.integer(node == nullptr ? 0 : static_cast<std::int64_t>(node->value().size()));
    return;
  }
  const std::uint64_t end = static_cast<std::uint64_t>(*offset) + patch.size();
  if (!size_allowed(call, std::max<std::uint64_t>(end, node == nullptr ? 0 : node->value().size()))) return;
  std::string value(node == nullptr ? std::string_view{} : node->value());
  if (value.size() < end) value.resize(end, '\0');
  value.replace(static_cast<std::size_t>(*offset), patch.size(), patch);
  if (node == nullptr) {
    call.set(key, value);
    call.services.keyspace.mark_piecewise(key);
  } else {
    call.update(key, value, true);
  }
  call.notify(kEventString, "setrange", key);
  call.reply.integer(static_cast<std::int64_t>(value.size()));
}

void write_result(Call& call, const Key& key, bool exists, std::string_view text) {
  if (exists) {
    call.update(key, text);
  } else {
    call.set(key, text);
  }
}

void increment_by(Call& call, std::int64_t by) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string_for_write(key, failed);
  if (failed) return;
  const auto value = node == nullptr ? std::optional<std::int64_t>(0) : parse_integer(node->value());
  std::int64_t sum = 0;
  if (!value) {
    call.reply.error(error::kNotInteger);
  } else if (__builtin_add_overflow(*value, by, &sum)) {
    call.reply.error(error::kOverflow);
  } else {
    call.count(key, by, sum, node != nullptr);
    call.notify(kEventString, "incrby", key);
    call.reply.integer(sum);
  }
}

// INCR DECR key, INCRBY DECRBY key amount → the new value. O(1).
void incr(Call& call) { increment_by(call, 1); }
void decr(Call& call) { increment_by(call, -1); }
void incrby(Call& call) {
  if (const auto by = call.integer(2)) increment_by(call, *by);
}
void decrby(Call& call) {
  const auto by = call.integer(2);
  if (!by) return;
  if (*by == std::numeric_limits<std::int64_t>::min()) {
    call.reply.error("ERR decrement would overflow");
    return;
  }
  increment_by(call, -*by);
}

// INCRBYFLOAT key amount → the new value as a bulk string. O(1).
void incrbyfloat(Call& call) {
  const Key key = call.key(1);
  bool failed = false;
  const Node* node = call.find_string_for_write(key, failed);
  if (failed) return;
  const auto value = node == nullptr ? std::optional<long double>(0) : parse_number(node->value());
  if (!value) {
    call.reply.error(error::kNotFloat);
    return;
  }
  const auto by = call.number(2);
  if (!by) return;
  const long double sum = *value + *by;
  if (sum != sum || sum - sum != 0) {
    call.reply.error(kIncrementNanOrInf);
    return;
  }
  const std::string text = number_text(sum);
  write_result(call, key, node != nullptr, text);
  call.services.keyspace.mark_as_text(key);
  call.notify(kEventString, "incrbyfloat", key);
  call.reply.bulk(text);
}

constexpr std::string_view kGroup = "string";
constexpr std::uint32_t kGrows = kWrite | kDenyOom;

constexpr Command kCommands[] = {
    {"append", append, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "2.0.0",
     "O(N) with N the length of the string: the whole of it goes into the log",
     "Appends to a string, making it if need be"},
    {"decr", decr, 2, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)", "Takes one off a number"},
    {"decrby", decrby, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)",
     "Takes an amount off a number"},
    {"get", get, 2, kReadonly | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)", "Tells a string"},
    {"getdel", getdel, 2, kWrite | kFast, 1, 1, 1, kCatString, kGroup, "6.2.0", "O(1)",
     "Tells a string and deletes it"},
    {"getex", getex, -2, kWrite | kFast, 1, 1, 1, kCatString, kGroup, "6.2.0", "O(1)",
     "Tells a string and changes its deadline"},
    {"getrange", getrange, 4, kReadonly, 1, 1, 1, kCatString, kGroup, "2.4.0",
     "O(N) with N the length of the part", "Tells a part of a string"},
    {"getset", getset, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)",
     "Sets a string and tells what it was"},
    {"incr", incr, 2, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)", "Adds one to a number"},
    {"incrby", incrby, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)",
     "Adds an amount to a number"},
    {"incrbyfloat", incrbyfloat, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "2.6.0", "O(1)",
     "Adds an amount with a fraction to a number"},
    {"mget", mget, -2, kReadonly | kFast, 1, -1, 1, kCatString, kGroup, "1.0.0",
     "O(N) with N the number of keys", "Tells several strings"},
    {"mset", mset, -3, kGrows, 1, -1, 2, kCatString, kGroup, "1.0.1", "O(N) with N the number of keys",
     "Sets several strings at once"},
    {"msetnx", msetnx, -3, kGrows, 1, -1, 2, kCatString, kGroup, "1.0.1", "O(N) with N the number of keys",
     "Sets several strings if none of the keys is there"},
    {"psetex", psetex, 4, kGrows, 1, 1, 1, kCatString, kGroup, "2.6.0", "O(1)",
     "Sets a string with a time to live in milliseconds"},
    {"set", set, -3, kGrows, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)",
     "Sets a string, whatever the key was"},
    {"setex", setex, 4, kGrows, 1, 1, 1, kCatString, kGroup, "2.0.0", "O(1)",
     "Sets a string with a time to live in seconds"},
    {"setnx", setnx, 3, kGrows | kFast, 1, 1, 1, kCatString, kGroup, "1.0.0", "O(1)",
     "Sets a string if the key is not there"},
    {"setrange", setrange, 4, kGrows, 1, 1, 1, kCatString, kGroup, "2.2.0",
     "O(N) with N the length of the string: the whole of it goes into the log",
     "Overwrites a part of a string"},
    {"strlen", strlen, 2, kReadonly | kFast, 1, 1, 1, kCatString, kGroup, "2.2.0", "O(1)",
     "Tells the length of a string"},
    {"substr", getrange, 4, kReadonly, 1, 1, 1, kCatString, kGroup, "1.0.0",
     "O(N) with N the length of the part", "An older name of GETRANGE"},
};

}  // namespace

std::span<const Command> string_commands() { return kCommands; }

}  // namespace isthmus
