// What the process's memory allocator says of itself.
#pragma once

#include <cstdint>
#include <string>

namespace isthmus {

/// Bytes, in jemalloc's words (https://jemalloc.net/jemalloc.3.html, stats.*): handed out to the program, in
/// pages that hold any of that, and mapped.
struct AllocatorBytes {
  std::uint64_t allocated = 0, active = 0, resident = 0;
};

/// The figures of now; all 0 if the allocator is not jemalloc. Refreshes jemalloc's caches, some microseconds
/// for each arena.
AllocatorBytes allocator_bytes();

/// "jemalloc-5.3.0", or "libc".
std::string allocator_name();

/// jemalloc's long report for people; empty if the allocator is not jemalloc.
std::string allocator_report();

/// Gives unused pages back to the kernel, if the allocator is jemalloc.
void purge_allocator();

}  // namespace isthmus
