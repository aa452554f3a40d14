#include "src/keyspace/table.hpp"

#include <cstdlib>
#include <new>
#include <random>
#include <utility>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "src/keyspace/side_bytes.hpp"

namespace isthmus {
namespace {

std::uint64_t random_seed() {
  std::random_device device;
  return (std::uint64_t{device()} << 32) | device();
}
const std::uint64_t kSeed = random_seed();

std::uint64_t reverse_bits(std::uint64_t v) {
  v = ((v >> 1) & 0x5555555555555555) | ((v & 0x5555555555555555) << 1);
  v = ((v >> 2) & 0x3333333333333333) | ((v & 0x3333333333333333) << 2);
  v = ((v >> 4) & 0x0f0f0f0f0f0f0f0f) | ((v & 0x0f0f0f0f0f0f0f0f) << 4);
  return __builtin_bswap64(v);
}

}  // namespace

std::uint64_t hash_name(std::string_view name) {
  return XXH3_64bits_withSeed(name.data(), name.size(), kSeed);
}

Table::~Table() { release(); }

void Table::swap(Table& other) noexcept {
  std::swap(buckets_, other.buckets_);
  std::swap(mask_, other.mask_);
  std::swap(size_, other.size_);
}

std::uint64_t Table::next_cursor(std::uint64_t cursor) const {
  // Counting on the reversed bits below the mask: a table twice as large continues exactly where this one
  // stands.
  return reverse_bits(reverse_bits(cursor | ~std::uint64_t{mask_}) + 1);
}

void Table::grow() { resize(4); }

void Table::release() {
  side_bytes.fetch_sub(bucket_bytes(), std::memory_order_relaxed);
  std::free(buckets_);
  buckets_ = nullptr;
  mask_ = 0;
}

void Table::resize(std::uint32_t buckets) {
  auto* fresh = static_cast<Node**>(std::calloc(buckets, sizeof(Node*)));
  if (fresh == nullptr) throw std::bad_alloc();
  side_bytes.fetch_add(buckets * sizeof(Node*), std::memory_order_relaxed);
  side_bytes.fetch_sub(bucket_bytes(), std::memory_order_relaxed);
  Node** const old = std::exchange(buckets_, fresh);
  const std::uint64_t old_count = old == nullptr ? 0 : std::uint64_t{mask_} + 1;
  mask_ = buckets - 1;
  for (std::uint64_t i = 0; i < old_count; ++i) {
    for (Node* node = old[i]; node != nullptr;) {
      Node* const next = node->next;
      Node*& head = buckets_[index(hash_name(node->name()))];
      node->next = head;
      head = node;
      node = next;
    }
  }
  std::free(old);
}

}  // namespace isthmus
