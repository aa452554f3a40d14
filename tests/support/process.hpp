// A child process with its output captured, and what /proc says of it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/resource.h>
#include <sys/types.h>

namespace isthmus::test {

using std::chrono::milliseconds;
using std::chrono::seconds;

/// Longer under sanitizers, where everything takes several times as long.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
/// The deadline of every wait that names none. Generous, for it is reached only when something is wrong.
inline constexpr milliseconds kPatience = kSanitized ? milliseconds(60'000) : milliseconds(30'000);

/// How a process ended.
struct ExitStatus {
  int code = -1;   ///< what it passed to exit; -1 if a signal ended it
  int signal = 0;  ///< the signal that ended it, or 0
};

/// A running child process. Its standard output and standard error are read into one text. The destructor
/// kills what still runs, and fails the running test if a sanitizer complained. Start it in the main thread:
/// the child dies with the thread that started it, so that a test that crashes leaves no servers behind.
class Process {
 public:
  /// Starts `arguments[0]` (a path, or a name in PATH). Throws std::system_error if it cannot be started.
  explicit Process(const std::vector<std::string>& arguments, const std::string& folder = "/");
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  pid_t pid() const { return pid_; }
  /// Sends a signal; does nothing if the process was already waited for. After SIGSTOP it stands when this
  /// returns.
  void signal(int number);
  /// Waits until it ends and all its output has been read; nothing if that takes longer than `patience`.
  std::optional<ExitStatus> wait(milliseconds patience = kPatience);
  /// SIGKILL, then wait.
  void kill_now();
  bool running();

  /// Everything written so far.
  std::string output() const;
  /// Waits until the output holds `text` at or behind `from`; gives the offset behind it, or nothing if the
  /// process ends or the patience does.
  std::optional<std::size_t> await_output(std::string_view text, std::size_t from = 0,
                                          milliseconds patience = kPatience) const;

  /// Resident memory in bytes (VmRSS).
  std::uint64_t resident_bytes() const;
  /// User and system time of all its threads so far, in seconds.
  double cpu_seconds() const;
  /// Sets the soft limit `resource` (RLIMIT_FSIZE …) of the running process. Throws std::system_error.
  void limit(__rlimit_resource resource, rlim_t soft);

 private:
  void read_all();

  pid_t pid_ = -1;
  int output_fd_ = -1;
  std::optional<ExitStatus> status_;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  std::string output_;
  bool ended_ = false;
  std::thread reader_;
};

}  // namespace isthmus::test
