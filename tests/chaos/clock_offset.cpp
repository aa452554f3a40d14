// To be preloaded (ld.so(8)): the process sees the wall clock with an offset that somebody else sets while it
// runs. Its monotonic clock stays true. tests/chaos/run compiles this.
//
// libfaketime would do, but it allocates memory when it is first asked, and jemalloc asks for the time when
// memory is first allocated.

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <ctime>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

namespace {

// Nanoseconds; in a file that ISTHMUS_TEST_CLOCK names (8 bytes, in the machine's order), which processes
// map.
std::atomic<std::int64_t>* offset = nullptr;

constexpr std::int64_t kSecond = 1'000'000'000;

__attribute__((constructor)) void map_offset() {
  const char* path = std::getenv("ISTHMUS_TEST_CLOCK");
  if (path == nullptr) return;
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return;
  void* memory = mmap(nullptr, sizeof(*offset), PROT_READ, MAP_SHARED, file, 0);
  close(file);
  if (memory != MAP_FAILED) offset = static_cast<std::atomic<std::int64_t>*>(memory);
}

std::int64_t now_ns() {
  timespec real{};
  syscall(SYS_clock_gettime, CLOCK_REALTIME, &real);
  const std::int64_t ahead = offset == nullptr ? 0 : offset->load(std::memory_order_relaxed);
  return real.tv_sec * kSecond + real.tv_nsec + ahead;
}

}  // namespace

extern "C" {

int clock_gettime(clockid_t clock, timespec* out) noexcept {
  if (clock != CLOCK_REALTIME && clock != CLOCK_REALTIME_COARSE) {
    return static_cast<int>(syscall(SYS_clock_gettime, clock, out));
  }
  const std::int64_t now = now_ns();
  *out = {now / kSecond, now % kSecond};
  return 0;
}

int gettimeofday(timeval* out, void* /*zone*/) noexcept {
  const std::int64_t now = now_ns();
  *out = {now / kSecond, now % kSecond / 1000};
  return 0;
}

time_t time(time_t* out) noexcept {
  const time_t now = now_ns() / kSecond;
  if (out != nullptr) *out = now;
  return now;
}

}  // extern "C"
