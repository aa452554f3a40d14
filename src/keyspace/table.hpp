// A chained hash table of nodes whose SCAN cursors survive growing and shrinking.
#pragma once

#include <cstdint>
#include <string_view>

#include "src/keyspace/node.hpp"

namespace isthmus {

/// Hash of a key or field name with a seed that is random for each process (against crafted collisions).
std::uint64_t hash_name(std::string_view name);

/// Owns its bucket array, not the nodes: the keyspace frees them, because only it knows what hangs on them. A
/// library table would do for everything but SCAN: the guarantee that what is there all the time is returned
/// (https://redis.io/docs/latest/commands/scan/) needs buckets that a cursor can name across resizes. Not
/// thread-safe.
class Table {
 public:
  Table() = default;
  Table(const Table&) = delete;
  Table& operator=(const Table&) = delete;
  Table(Table&& other) noexcept { swap(other); }
  Table& operator=(Table&& other) noexcept {
    swap(other);
    return *this;
  }
  ~Table();

  void swap(Table& other) noexcept;
  std::uint32_t size() const { return size_; }
  std::size_t bucket_bytes() const {
    return buckets_ == nullptr ? 0 : (std::size_t{mask_} + 1) * sizeof(Node*);
  }

  /// The link that points to the node of that name, or the null link behind the last node of its bucket.
  /// Never null itself; valid until the table changes. `insert` there, or assign through it to replace a node
  /// that has moved.
  Node** find(std::uint64_t hash, std::string_view name) {
    if (buckets_ == nullptr) grow();
    Node** link = &buckets_[index(hash)];
    while (*link != nullptr && (*link)->name() != name) link = &(*link)->next;
    return link;
  }
  const Node* find(std::uint64_t hash, std::string_view name) const {
    if (buckets_ == nullptr) return nullptr;
    const Node* node = buckets_[index(hash)];
    while (node != nullptr && node->name() != name) node = node->next;
    return node;
  }
  /// The node with that hash and that deadline, if there is one.
  const Node* find_by_hash(std::uint64_t hash, std::int64_t deadline) const {
    if (buckets_ == nullptr) return nullptr;
    const Node* node = buckets_[index(hash)];
    while (node != nullptr && (node->deadline() != deadline || hash_name(node->name()) != hash))
      node = node->next;
    return node;
  }
  /// The link to the node with that hash of which something can be forgotten; null if there is none.
  Node** find_awaited(std::uint64_t hash) {
    if (buckets_ == nullptr) return nullptr;
    Node** link = &buckets_[index(hash)];
    while (*link != nullptr && (!(*link)->awaited || hash_name((*link)->name()) != hash))
      link = &(*link)->next;
    return *link == nullptr ? nullptr : link;
  }
  /// Puts a node at a null link that `find` gave. True if the table has grown: then all links are invalid.
  bool insert(Node** link, Node* node) {
    node->next = nullptr;
    *link = node;
    if (++size_ <= mask_) return false;
    resize((mask_ + 1) * 2);
    return true;
  }
  /// Takes the node out. Links are invalid afterwards.
  Node* unlink(Node** link) {
    Node* node = *link;
    *link = node->next;
    --size_;
    if (mask_ >= kShrinkAbove && size_ < mask_ / 8) resize((mask_ + 1) / 4);
    return node;
  }

  /// Calls `visit(const Node&)` for the nodes of the bucket that the cursor names, and returns the next
  /// cursor; 0 ends. The cursor counts in the high bits first, so that a bucket that splits or joins is
  /// covered by what has been seen.
  template <class Visit>
  std::uint64_t scan(std::uint64_t cursor, Visit&& visit) const {
    if (buckets_ == nullptr) return 0;
    for (const Node* node = buckets_[cursor & mask_]; node != nullptr; node = node->next) visit(*node);
    return next_cursor(cursor);
  }
  /// Takes out and hands over every node: `take(Node*)` becomes its owner. The table is empty afterwards.
  template <class Take>
  void drain(Take&& take) {
    for (std::uint64_t i = 0; buckets_ != nullptr && i <= mask_; ++i) {
      for (Node* node = buckets_[i]; node != nullptr;) {
        Node* const next = node->next;
        take(node);
        node = next;
      }
      buckets_[i] = nullptr;
    }
    size_ = 0;
    release();
  }
  template <class Visit>
  void for_each(Visit&& visit) const {
    if (buckets_ == nullptr) return;
    for (std::uint64_t i = 0; i <= mask_; ++i) {
      for (const Node* node = buckets_[i]; node != nullptr; node = node->next) visit(*node);
    }
  }
  /// A node of a random bucket that has one; null if the table is empty. `random` supplies 64 random bits a
  /// call.
  template <class Random>
  const Node* random_node(Random&& random) const {
    if (size_ == 0) return nullptr;
    const Node* head = nullptr;
    while (head == nullptr) head = buckets_[random() & mask_];
    std::uint64_t length = 0;
    for (const Node* node = head; node != nullptr; node = node->next) ++length;
    for (std::uint64_t skip = random() % length; skip > 0; --skip) head = head->next;
    return head;
  }

 private:
  static constexpr std::uint32_t kShrinkAbove = 63;
  // The low eight bits chose the shard.
  std::uint64_t index(std::uint64_t hash) const { return (hash >> 8) & mask_; }
  std::uint64_t next_cursor(std::uint64_t cursor) const;
  void grow();
  void release();
  void resize(std::uint32_t buckets);

  Node** buckets_ = nullptr;
  std::uint32_t mask_ = 0;
  std::uint32_t size_ = 0;
};

}  // namespace isthmus
