// DUMP and RESTORE: a key's value as bytes that Redis understands.
#include <limits>
#include <optional>

#include "src/command/dump_payload.hpp"

namespace isthmus {
namespace {

// DUMP key → the value in Redis's format, or null. O(N) of its size.
void dump(Call& call) {
  const Node* node = call.find(call.key(1));
  if (node == nullptr) {
    call.reply.null();
  } else {
    call.reply.bulk(dump_payload(*node));
  }
}

struct RestoreOptions {
  bool replace = false;
  bool absolute = false;
};

// A number behind IDLETIME or FREQ, of which nothing is made but errors. False if one has been replied.
bool check_number(Call& call, std::size_t index, std::int64_t most, std::string_view error) {
  const auto number = call.integer(index);
  if (!number) return false;
  if (*number >= 0 && *number <= most) return true;
  call.reply.error(error);
  return false;
}

std::optional<RestoreOptions> read_restore_options(Call& call) {
  constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
  RestoreOptions options;
  bool has_idle = false, has_frequency = false;
  for (std::size_t i = 4; i < call.argc(); ++i) {
    const bool more = i + 1 < call.argc();
    if (call.is(i, "replace")) {
      options.replace = true;
    } else if (call.is(i, "absttl")) {
      options.absolute = true;
    } else if (call.is(i, "idletime") && more && !has_frequency) {
      if (!check_number(call, ++i, kMost, "ERR Invalid IDLETIME value, must be >= 0")) return std::nullopt;
      has_idle = true;
    } else if (call.is(i, "freq") && more && !has_idle) {
      if (!check_number(call, ++i, 255, "ERR Invalid FREQ value, must be >= 0 and <= 255"))
        return std::nullopt;
      has_frequency = true;
    } else {
      call.reply.error(error::kSyntax);
      return std::nullopt;
    }
  }
  return options;
}

// The deadline in milliseconds since the Unix epoch, 0 for none; nothing if the error has been replied.
std::optional<std::int64_t> read_deadline(Call& call, bool absolute) {
  const auto ttl = call.integer(2);
  if (!ttl) return std::nullopt;
  if (*ttl < 0) {
    call.reply.error("ERR Invalid TTL value, must be >= 0");
    return std::nullopt;
  }
  if (*ttl == 0 || absolute) return *ttl;
  return *ttl > kNoDeadline - 1 - call.now_ms() ? kNoDeadline - 1 : *ttl + call.now_ms();
}

// The key becomes the copy, with an event for it but none for what was there. What has expired already only
// deletes.
void put(Call& call, const Key& key, const KeyCopy& copy) {
  const bool existed = call.find_for_write(key) != nullptr;
  if (existed) call.del(key);
  if (copy.deadline && *copy.deadline <= call.now_ms()) {
    if (existed) call.notify(kEventGeneric, "del", key);
    return;
  }
  write_copy(call, key, copy);
  call.notify(kEventNew, "new", key);
  call.notify(kEventGeneric, "restore", key);
}

// RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency] → OK. Errors: the key is
// there and may not be replaced; the payload is not whole, or none that we know. O(N) of the value's size.
void restore(Call& call) {
  const auto options = read_restore_options(call);
  if (!options) return;
  const Key key = call.key(1);
  const std::string_view payload = call.args[3];
  if (!options->replace && call.find_for_write(key) != nullptr) {
    call.reply.error("BUSYKEY Target key name already exists.");
    return;
  }
  const auto deadline = read_deadline(call, options->absolute);
  if (!deadline) return;
  if (!is_intact_payload(payload)) {
    call.reply.error("ERR DUMP payload version or checksum are wrong");
    return;
  }
  auto copy = parse_payload(payload);
  if (!copy) {
    call.reply.error("ERR Bad data format");
    return;
  }
  if (*deadline != 0) copy->deadline = *deadline;
  if (!call.fits(copy->effect_bytes(key.name.size()))) return;
  put(call, key, *copy);
  call.reply.ok();
}

constexpr Command kCommands[] = {
    {"dump", dump, 2, kReadonly, 1, 1, 1, kCatKeyspace, "generic", "2.6.0",
     "O(1) to access the key and additional O(N*M) to serialize it, where N is the number of Redis objects "
     "composing the value and M their average size. For small string values the time complexity is thus "
     "O(1)+O(1*M) where M is small, so simply O(1).",
     "Returns a value in Redis's own format."},
    {"restore", restore, -4, kWrite | kDenyOom, 1, 1, 1, kCatKeyspace | kCatDangerous, "generic", "2.6.0",
     "O(1) to create the new key and additional O(N*M) to reconstruct the serialized value, where N is the "
     "number of Redis objects composing the value and M their average size. For small string values the time "
     "complexity is thus O(1)+O(1*M) where M is small, so simply O(1). However for sorted set values the "
     "complexity is O(N*M*log(N)) because inserting values into sorted sets is O(log(N)).",
     "Makes a key of what DUMP has returned."},
};

}  // namespace

std::span<const Command> dump_commands() { return kCommands; }

}  // namespace isthmus
