// A key with fields, small or large: a hash, or a set, whose members are its fields. Reading for commands,
// last-writer-wins on each field for the fold.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string_view>

#include "src/keyspace/node.hpp"
#include "src/keyspace/packed_hash.hpp"
#include "src/keyspace/table.hpp"

namespace isthmus {

/// Above either of these a hash becomes a table (Redis 7.0: hash-max-listpack-entries,
/// hash-max-listpack-value), and stays one.
struct HashLimits {
  std::uint32_t max_packed_fields = 512;
  std::uint32_t max_packed_bytes = 64;
};

/// More fields than PackedHash can count, or together larger ones than a node can hold, it is never asked
/// for.
inline constexpr HashLimits kMostPacked{60'000, 16 << 10};

/// Above either of these a set becomes a table. (Redis 7.0 has no such form; 7.2 has it up to as many.)
inline constexpr HashLimits kSetLimits{128, 64};

/// What a table_hash or table_set points to.
struct FieldTable {
  Table fields;
  std::uint32_t live = 0;
};

/// Number of live fields. 0 for a key that holds only tombstones, which is no key to a client.
std::uint32_t hash_size(const Node& key);
/// Number of deleted fields that are still remembered.
std::uint32_t hash_tombstones(const Node& key);
/// The live field of that name.
std::optional<FieldView> hash_find(const Node& key, std::string_view name);
/// Calls `visit` for each field, tombstones too if `with_deleted`. Packed hashes in the order of insertion.
void hash_for_each(const Node& key, bool with_deleted, const std::function<void(const FieldView&)>& visit);
/// One step of HSCAN: live fields of a bucket (all of a packed hash), next cursor, 0 at the end.
std::uint64_t hash_scan(const Node& key, std::uint64_t cursor,
                        const std::function<void(const FieldView&)>& visit);
/// A random live field; the hash must have one.
FieldView hash_random(const Node& key, const std::function<std::uint64_t()>& random);
/// Bytes that hang on the node besides its own allocation.
std::size_t hash_bytes(const Node& key, std::size_t samples);

/// Writes the field, replacing whatever the hash had under that name. Returns the node, which may have moved.
Node* hash_write(Heap& heap, Node* key, const FieldView& field, const HashLimits& limits);
/// Makes a packed hash a table. Returns the node, which may have moved.
Node* hash_unpack(Heap& heap, Node* key);
/// Takes the field out altogether. Returns the node, which may have moved.
Node* hash_erase(Heap& heap, Node* key, std::string_view name);
/// The field with its tombstone, if either is there.
std::optional<FieldView> hash_find_any(const Node& key, std::string_view name);
/// Takes out every field for which `dead` says so. Returns the node, which may have moved.
Node* hash_erase_if(Heap& heap, Node* key, const std::function<bool(const FieldView&)>& dead);
/// Frees what a table points to. The node's value is meaningless afterwards.
void hash_release(Heap& heap, Node* key);

}  // namespace isthmus
