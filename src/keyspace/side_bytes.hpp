// What stands in memory beside the nodes: bucket arrays and lists of deadlines.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace isthmus {

/// Bytes of all keyspaces of the process together; there is a second one only while a state is read anew.
/// Whoever allocates adds, and takes back what it has added. Thread-safe.
inline std::atomic<std::uint64_t> side_bytes{0};

/// A standard allocator that counts in side_bytes.
template <class T>
struct SideAllocator {
  using value_type = T;
  SideAllocator() = default;
  template <class U>
  explicit SideAllocator(const SideAllocator<U>& /*other*/) {}
  T* allocate(std::size_t count) {
    T* const place = std::allocator<T>().allocate(count);
    side_bytes.fetch_add(count * sizeof(T), std::memory_order_relaxed);
    return place;
  }
  void deallocate(T* place, std::size_t count) {
    side_bytes.fetch_sub(count * sizeof(T), std::memory_order_relaxed);
    std::allocator<T>().deallocate(place, count);
  }
  friend bool operator==(const SideAllocator&, const SideAllocator&) { return true; }
};

}  // namespace isthmus
