// OBJECT: what Redis would say of how it keeps a value.
#include <algorithm>

#include "src/command/help.hpp"
#include "src/command/keys.hpp"
#include "src/keyspace/clock.hpp"

namespace isthmus {
namespace {

// Strings up to here are kept in one piece with their header (object.c of Redis 7.0,
// OBJ_ENCODING_EMBSTR_SIZE_LIMIT).
constexpr std::size_t kEmbeddedBytes = 44;
// Redis keeps the integers below this once for all keys (server.h of Redis 7.0, OBJ_SHARED_INTEGERS), and
// says INT_MAX.
constexpr std::int64_t kSharedIntegers = 10000;
constexpr std::int64_t kSharedCount = std::numeric_limits<std::int32_t>::max();

// The key of args[2]; null if the null for an absent one has been replied.
const Node* find_object(Call& call) {
  const Node* node = call.find_for_write(call.key(2));
  if (node == nullptr) call.reply.null();
  return node;
}

// OBJECT ENCODING key → the name of the encoding, or null. O(1).
void encoding(Call& call) {
  if (const Node* node = find_object(call)) call.reply.bulk(encoding_name(*node));
}

// OBJECT REFCOUNT key → 1, or INT_MAX for a small integer, or null. O(1).
void refcount(Call& call) {
  const Node* node = find_object(call);
  if (node == nullptr) return;
  const bool is_integer = encoding_name(*node) == "int";
  const std::int64_t number = is_integer ? parse_integer(node->value()).value_or(-1) : -1;
  const bool shared = number >= 0 && number < kSharedIntegers;
  call.reply.integer(shared ? kSharedCount : 1);
}

// OBJECT IDLETIME key → seconds since the last write of the key (reads are not remembered), or null. O(1).
void idletime(Call& call) {
  const Node* node = find_object(call);
  if (node == nullptr) return;
  const std::int64_t idle_ms = call.now_ms() - HybridClock::milliseconds(node->version);
  call.reply.integer(std::max<std::int64_t>(idle_ms, 0) / 1000);
}

// OBJECT FREQ key → null if the key is absent, else the error for any policy but LFU, which there is not.
// O(1).
void freq(Call& call) {
  if (find_object(call) == nullptr) return;
  call.reply.error(
      "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when "
      "switching between "
      "policies at runtime LRU and LFU data will take some time to adjust.");
}

// OBJECT HELP → lines of text. O(1).
void help(Call& call) {
  reply_help(call, "OBJECT",
             {"ENCODING <key>", "    Name the representation that Redis would choose for the value.",
              "FREQ <key>", "    An error, because no LFU policy keeps count of accesses.", "IDLETIME <key>",
              "    Say how many seconds ago the key was last written.", "REFCOUNT <key>",
              "    Say how many references to the value Redis would have."});
}

constexpr Command kObject[] = {
    {"object|encoding", encoding, 3, kReadonly, 2, 2, 1, kCatKeyspace, "generic", "2.2.3", "O(1)",
     "Names the encoding of a key's value."},
    {"object|freq", freq, 3, kReadonly, 2, 2, 1, kCatKeyspace, "generic", "4.0.0", "O(1)",
     "Would count accesses under an LFU policy."},
    {"object|help", help, 2, kLoading | kStale, 0, 0, 0, kCatKeyspace, "generic", "6.2.0", "O(1)",
     "Lists the subcommands."},
    {"object|idletime", idletime, 3, kReadonly, 2, 2, 1, kCatKeyspace, "generic", "2.2.3", "O(1)",
     "Returns the seconds since a key was last written."},
    {"object|refcount", refcount, 3, kReadonly, 2, 2, 1, kCatKeyspace, "generic", "2.2.3", "O(1)",
     "Returns the references to a key's value."},
};

constexpr Command kCommands[] = {
    {"object", nullptr, -2, 0, 0, 0, 0, 0, "generic", "2.2.3", "Depends on subcommand.",
     "Looks into a key's value.", kObject},
};

}  // namespace

bool is_intset(const Node& node) {
  if (node.as_text || hash_size(node) > kMaxIntset) return false;
  bool integers = true;
  hash_for_each(node, false,
                [&](const FieldView& member) { integers &= parse_integer(member.name).has_value(); });
  return integers;
}

std::string_view encoding_name(const Node& node) {
  if (node.type == NodeType::packed_hash) return "listpack";
  if (node.type == NodeType::table_hash) return "hashtable";
  if (node.is_set()) return is_intset(node) ? "intset" : "hashtable";
  if (node.piecewise) return "raw";
  if (!node.as_text && parse_integer(node.value())) return "int";
  return node.value().size() <= kEmbeddedBytes ? "embstr" : "raw";
}

std::span<const Command> object_commands() { return kCommands; }

}  // namespace isthmus
