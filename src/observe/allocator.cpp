// Asks jemalloc, when the program is linked with it.
#include "src/observe/allocator.hpp"

#include <cstddef>

// Weak, because a sanitizer's build has the sanitizer's allocator and no jemalloc.
extern "C" {
__attribute__((weak)) int mallctl(const char* name, void* old_value, std::size_t* old_size, void* new_value,
                                  std::size_t new_size);
__attribute__((weak)) void malloc_stats_print(void (*write)(void*, const char*), void* context,
                                              const char* options);
}

namespace isthmus {
namespace {

bool have_jemalloc() { return mallctl != nullptr && malloc_stats_print != nullptr; }

std::uint64_t figure(const char* name) {
  std::size_t value = 0, size = sizeof value;
  return mallctl(name, &value, &size, nullptr, 0) == 0 ? value : 0;
}

void append_piece(void* report, const char* piece) { static_cast<std::string*>(report)->append(piece); }

}  // namespace

AllocatorBytes allocator_bytes() {
  if (!have_jemalloc()) return {};
  std::uint64_t epoch = 1;  // setting it, to anything, is what refreshes the figures
  std::size_t size = sizeof epoch;
  mallctl("epoch", &epoch, &size, &epoch, size);
  return {figure("stats.allocated"), figure("stats.active"), figure("stats.resident")};
}

std::string allocator_name() {
  const char* version = nullptr;
  std::size_t size = sizeof version;
  if (!have_jemalloc() || mallctl("version", &version, &size, nullptr, 0) != 0) return "libc";
  const std::string text(version);
  return "jemalloc-" + text.substr(0, text.find('-'));
}

std::string allocator_report() {
  std::string report;
  if (have_jemalloc()) malloc_stats_print(append_piece, &report, nullptr);
  return report;
}

void purge_allocator() {
  constexpr auto kAllArenas = "arena.4096.purge";  // MALLCTL_ARENAS_ALL
  if (have_jemalloc()) mallctl(kAllArenas, nullptr, nullptr, nullptr, 0);
}

}  // namespace isthmus
