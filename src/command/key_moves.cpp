// Commands that give a value another name or another database: RENAME, RENAMENX, COPY, MOVE.
//
// The log knows no renaming: what it gets is the value written anew, and the source deleted. So they cost as
// much as the value is large.
#include "src/command/key_copy.hpp"
#include "src/command/keys.hpp"

namespace isthmus {
namespace {

// Writes the copy over whatever the target holds. Redis raises no `del` for what is overwritten so, and `new`
// for what comes.
void put(Call& call, const Key& target, const KeyCopy& copy) {
  if (copy.has_fields() && call.find_for_write(target) != nullptr) call.del(target);
  write_copy(call, target, copy);
  call.notify(kEventNew, "new", target);
}

// Deletes the source, whose value the target has got, and raises `from` for the one and `to` for the other.
void take_away(Call& call, const Key& source, std::string_view from, const Key& target, std::string_view to,
               std::optional<std::int64_t> deadline) {
  call.del(source);
  call.notify(kEventGeneric, from, source);
  // Other servers raise an event at the last row of its key, so the target gets another one, which changes
  // nothing: else `to` would come before `from` there.
  if (call.services.site != nullptr) call.expire(target, deadline);
  call.notify(kEventGeneric, to, target);
}

// RENAME and RENAMENX. True if the key has the new name now; nothing if an error has been replied.
std::optional<bool> rename_key(Call& call, bool overwrite) {
  const Key source = call.key(1), target = call.key(2);
  const Node* node = call.find_for_write(source);
  if (node == nullptr) {
    call.reply.error(error::kNoSuchKey);
    return std::nullopt;
  }
  if (source.name == target.name) return false;
  const KeyCopy copy = copy_key(*node);
  if (!overwrite && call.find_for_write(target) != nullptr) return false;
  if (!call.fits(copy.effect_bytes(target.name.size()))) return std::nullopt;
  put(call, target, copy);
  take_away(call, source, "rename_from", target, "rename_to", copy.deadline);
  return true;
}

// RENAME key newkey → OK; what newkey held is gone, and the deadline goes with the value. Error if the key is
// absent. O(N) of the value's size.
void rename(Call& call) {
  if (rename_key(call, true)) call.reply.ok();
}

// RENAMENX key newkey → 1, or 0 if newkey is there. Error if the key is absent. O(N) of the value's size.
void renamenx(Call& call) {
  if (const auto renamed = rename_key(call, false)) call.reply.integer(*renamed ? 1 : 0);
}

struct CopyOptions {
  bool replace = false;
  std::uint8_t db = 0;
};

std::optional<CopyOptions> read_copy_options(Call& call) {
  CopyOptions options{.db = call.db()};
  for (std::size_t i = 3; i < call.argc(); ++i) {
    if (call.is(i, "replace")) {
      options.replace = true;
    } else if (call.is(i, "db") && i + 1 < call.argc()) {
      const auto db = database_argument(call, ++i);
      if (!db) return std::nullopt;
      options.db = *db;
    } else {
      call.reply.error(error::kSyntax);
      return std::nullopt;
    }
  }
  return options;
}

// COPY source destination [DB number] [REPLACE] → 1, or 0 if the source is absent or the destination is there
// and may not be replaced. Errors: the options', source and destination the same. O(N) of the value's size.
void copy(Call& call) {
  const auto options = read_copy_options(call);
  if (!options) return;
  const Key source = call.key(1), target(options->db, call.args[2]);
  if (source.db == target.db && source.name == target.name) {
    call.reply.error(error::kSameObject);
    return;
  }
  const Node* node = call.find(source);
  if (node == nullptr || (call.find_for_write(target) != nullptr && !options->replace)) {
    call.reply.integer(0);
    return;
  }
  const KeyCopy value = copy_key(*node);
  if (!call.fits(value.effect_bytes(target.name.size()))) return;
  put(call, target, value);
  call.notify(kEventGeneric, "copy_to", target);
  call.reply.integer(1);
}

// MOVE key db → 1, or 0 if the key is absent here or present there. Error if db is this database or none.
// O(N) of the value's size.
void move(Call& call) {
  const auto db = database_argument(call, 2);
  if (!db) return;
  const Key source = call.key(1), target(*db, call.args[1]);
  if (source.db == target.db) {
    call.reply.error(error::kSameObject);
    return;
  }
  const Node* node = call.find_for_write(source);
  if (node == nullptr || call.find_for_write(target) != nullptr) {
    call.reply.integer(0);
    return;
  }
  const KeyCopy value = copy_key(*node);
  if (!call.fits(value.effect_bytes(target.name.size()))) return;
  put(call, target, value);
  take_away(call, source, "move_from", target, "move_to", value.deadline);
  call.reply.integer(1);
}

constexpr Command kCommands[] = {
    {"rename", rename, 3, kWrite, 1, 2, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Renames a key, over another one if need be."},
    {"renamenx", renamenx, 3, kWrite | kFast, 1, 2, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Renames a key unless the new name is taken."},
    {"copy", copy, -3, kWrite | kDenyOom, 1, 2, 1, kCatKeyspace, "generic", "6.2.0",
     "O(N) worst case for collections, where N is the number of nested items. O(1) for string values.",
     "Copies the value of a key to another key."},
    {"move", move, 3, kWrite | kFast, 1, 1, 1, kCatKeyspace, "generic", "1.0.0", "O(1)",
     "Moves a key to another database."},
};

}  // namespace

std::span<const Command> moving_commands() { return kCommands; }

}  // namespace isthmus
