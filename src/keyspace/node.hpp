// One allocation of the keyspace: a key or a hash field with its name, its registers and its value.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string_view>

#include "backend/row.hpp"

namespace isthmus {

using backend::Version;

/// Index of a site in the keyspace's table of site ids. 0 is the own site.
using SiteIndex = std::uint8_t;

/// A deadline that never comes.
inline constexpr std::int64_t kNoDeadline = std::numeric_limits<std::int64_t>::max();

enum class NodeType : std::uint8_t {
  none,         ///< deleted, and still remembered for the merge
  string,       ///< value is the string
  packed_hash,  ///< value is a PackedHash
  table_hash,   ///< value is a pointer to a FieldTable
  packed_set,   ///< as packed_hash: the members are fields (dots.hpp)
  table_set,    ///< as table_hash
};

/// What a key has besides its type register and value. Only keys that need it pay for it.
struct Registers {
  std::int64_t deadline = kNoDeadline;  ///< milliseconds since the Unix epoch
  Version expire_version = 0;           ///< of the deadline register
  Version cut_version = 0;              ///< fields at or below (cut_version, cut_site) are dead
  SiteIndex expire_site = 0;
  SiteIndex cut_site = 0;
};

/// Bytes held by the nodes of one shard, as the allocator counts them. Changed under the shard's lock,
/// readable without.
class Heap {
 public:
  void add(std::size_t bytes) { set(this->bytes() + bytes); }
  void subtract(std::size_t bytes) { set(this->bytes() - bytes); }
  std::uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }
  void swap(Heap& other) {
    const std::uint64_t mine = bytes();
    set(other.bytes());
    other.set(mine);
  }

 private:
  void set(std::uint64_t bytes) { bytes_.store(bytes, std::memory_order_relaxed); }
  std::atomic<std::uint64_t> bytes_{0};
};

/// The longest value, as a node counts its bytes; with room for what a packed hash puts around it.
inline constexpr std::uint64_t kMostStringBytes = 0xffff0000;

/// Header of a node. Registers (if any), name and value follow it without padding. Created and resized by the
/// functions below only; whoever links it into a table owns it.
struct Node {
  Node* next;
  Version version;  ///< type register of a key (highest version of a row of its type); version of a field
  std::uint32_t name_size;
  std::uint32_t value_size;
  NodeType type;
  SiteIndex site;
  bool has_registers : 1;
  bool piecewise : 1;      ///< a string that APPEND or SETRANGE built (OBJECT ENCODING says raw)
  bool as_text : 1;        ///< a string that INCRBYFLOAT wrote, a set that was more than few integers
                           ///< (OBJECT ENCODING never says int or intset)
  bool field_deleted : 1;  ///< a field's tombstone
  bool told : 1;           ///< of a key: its deadline has passed, and this server has said so
  bool awaited : 1;        ///< of a key: its shard's list of what can be forgotten later has it
  bool counted : 1;        ///< of a key: its shard has totals of counters for it or for its fields

  const char* data() const { return reinterpret_cast<const char*>(this) + kHeaderSize; }
  char* data() { return reinterpret_cast<char*>(this) + kHeaderSize; }
  std::size_t registers_size() const { return has_registers ? sizeof(Registers) : 0; }
  std::string_view name() const { return {data() + registers_size(), name_size}; }
  std::string_view value() const { return {value_data(), value_size}; }
  const char* value_data() const { return data() + registers_size() + name_size; }
  char* value_data() { return data() + registers_size() + name_size; }
  Registers registers() const {
    Registers r;
    if (has_registers) std::memcpy(&r, data(), sizeof r);
    return r;
  }
  std::int64_t deadline() const {
    std::int64_t d = kNoDeadline;
    if (has_registers) std::memcpy(&d, data() + offsetof(Registers, deadline), sizeof d);
    return d;
  }
  bool is_string() const { return type == NodeType::string; }
  bool is_hash() const { return type == NodeType::packed_hash || type == NodeType::table_hash; }
  bool is_set() const { return type == NodeType::packed_set || type == NodeType::table_set; }
  /// A hash or a set.
  bool has_fields() const { return type >= NodeType::packed_hash; }
  bool is_packed() const { return type == NodeType::packed_hash || type == NodeType::packed_set; }
  bool is_table() const { return type == NodeType::table_hash || type == NodeType::table_set; }
  std::size_t total_size() const { return kHeaderSize + registers_size() + name_size + value_size; }

  static constexpr std::size_t kHeaderSize = 27;  // the bytes of the members above; the tail padding is used
};
static_assert(sizeof(Node) == 32 && offsetof(Node, site) == 25);

/// A new unlinked node; `value` is copied.
Node* make_node(Heap& heap, std::string_view name, std::string_view value, NodeType type, Version version,
                SiteIndex site);

/// Gives the node room for a value of `value_size` bytes, keeping the first bytes of the old value. Returns
/// the node, which may have moved (the caller relinks it). With `spare`, a growing value gets room to grow
/// again.
Node* resize_value(Heap& heap, Node* node, std::size_t value_size, bool spare = false);

/// Writes the registers, or removes them when they say nothing (`keep` false). Returns the node, which may
/// have moved.
Node* write_registers(Heap& heap, Node* node, const Registers& registers, bool keep);

/// Frees the node's memory only, not what a table points to.
void free_node(Heap& heap, Node* node);

/// What the allocator holds for the node, in bytes.
std::size_t allocated_bytes(const Node* node);

}  // namespace isthmus
