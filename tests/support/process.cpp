// A child process with its output captured.
#include "tests/support/process.hpp"

#include <array>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

namespace isthmus::test {
namespace {

[[noreturn]] void fail(const char* what) { throw std::system_error(errno, std::generic_category(), what); }

// Between fork and exec only calls that are safe in a signal handler are allowed.
[[noreturn]] void become(char* const* arguments, const char* folder, int output) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int nothing = ::open("/dev/null", O_RDONLY);
  ::dup2(nothing, 0);
  ::dup2(output, 1);
  ::dup2(output, 2);
  if (::chdir(folder) == 0) ::execvp(arguments[0], arguments);
  constexpr std::string_view kMessage = "cannot start the program\n";
  [[maybe_unused]] const auto written = ::write(2, kMessage.data(), kMessage.size());
  ::_exit(127);
}

// ThreadSanitizer's search for deadlocks takes no more than 64 locks in one thread, and a command on all keys
// holds a lock for every shard. Those are always taken in the same order; a hang would show as a test that
// reaches its deadline.
void allow_many_locks() {
  const char* given = std::getenv("TSAN_OPTIONS");
  const std::string options =
      (given == nullptr ? std::string() : given + std::string(":")) + "detect_deadlocks=0";
  if (given == nullptr || std::string_view(given).find("detect_deadlocks") == std::string_view::npos)
    ::setenv("TSAN_OPTIONS", options.c_str(), 1);
}

// What a sanitizer found in the process is a failure of the test, however the process ended.
void fail_on_findings(const std::string& output) {
  for (const auto* mark : {"WARNING: ThreadSanitizer", "ERROR: AddressSanitizer", "runtime error: "}) {
    const auto at = output.find(mark);
    if (at != std::string::npos) ADD_FAILURE() << output.substr(at, 6000);
  }
}

}  // namespace

Process::Process(const std::vector<std::string>& arguments, const std::string& folder) {
  allow_many_locks();
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) fail("pipe2");
  std::vector<char*> pointers;
  for (const auto& argument : arguments) pointers.push_back(const_cast<char*>(argument.c_str()));
  pointers.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) become(pointers.data(), folder.c_str(), pipe[1]);
  ::close(pipe[1]);
  output_fd_ = pipe[0];
  if (pid_ < 0) fail("fork");
  reader_ = std::thread([this] { read_all(); });
}

Process::~Process() {
  kill_now();
  if (reader_.joinable()) reader_.join();
  ::close(output_fd_);
  fail_on_findings(output_);
}

void Process::read_all() {
  std::array<char, 16384> buffer;
  while (true) {
    const ssize_t got = ::read(output_fd_, buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    std::lock_guard lock(mutex_);
    if (got <= 0) ended_ = true;
    if (got > 0) output_.append(buffer.data(), static_cast<std::size_t>(got));
    changed_.notify_all();
    if (got <= 0) return;
  }
}

void Process::signal(int number) {
  if (status_) return;
  ::kill(pid_, number);
  if (number != SIGSTOP) return;
  siginfo_t stopped{};
  ::waitid(P_PID, static_cast<id_t>(pid_), &stopped, WSTOPPED | WEXITED | WNOWAIT);
}

std::optional<ExitStatus> Process::wait(milliseconds patience) {
  if (status_) return status_;
  // A pidfd becomes readable when the process ends, so nothing needs to be polled in a loop.
  const int handle = static_cast<int>(::syscall(SYS_pidfd_open, pid_, 0));
  if (handle < 0) fail("pidfd_open");
  pollfd wanted{handle, POLLIN, 0};
  const int ready = ::poll(&wanted, 1, static_cast<int>(patience.count()));
  ::close(handle);
  if (ready != 1) return std::nullopt;
  int status = 0;
  ::waitpid(pid_, &status, 0);
  if (reader_.joinable()) reader_.join();
  status_ = WIFEXITED(status) ? ExitStatus{WEXITSTATUS(status), 0} : ExitStatus{-1, WTERMSIG(status)};
  return status_;
}

void Process::kill_now() {
  if (pid_ <= 0 || status_) return;
  signal(SIGKILL);
  wait();
}

bool Process::running() { return !status_ && !wait(milliseconds(0)); }

std::string Process::output() const {
  std::lock_guard lock(mutex_);
  return output_;
}

std::optional<std::size_t> Process::await_output(std::string_view text, std::size_t from,
                                                 milliseconds patience) const {
  std::unique_lock lock(mutex_);
  auto found = std::string::npos;
  changed_.wait_for(lock, patience, [&] {
    found = output_.find(text, from);
    return found != std::string::npos || ended_;
  });
  if (found == std::string::npos) return std::nullopt;
  return found + text.size();
}

std::uint64_t Process::resident_bytes() const {
  std::ifstream in("/proc/" + std::to_string(pid_) + "/statm");
  std::uint64_t total = 0, resident = 0;
  in >> total >> resident;
  return resident * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
}

double Process::cpu_seconds() const {
  std::ifstream in("/proc/" + std::to_string(pid_) + "/stat");
  std::string line;
  std::getline(in, line);
  // The name in parentheses may hold spaces; utime and stime are the 12th and 13th words behind it.
  std::istringstream words(line.substr(line.rfind(')') + 1));
  std::string skipped;
  for (int i = 0; i < 11; ++i) words >> skipped;
  double user = 0, system = 0;
  words >> user >> system;
  return (user + system) / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

void Process::limit(__rlimit_resource resource, rlim_t soft) {
  rlimit now{};
  if (::prlimit(pid_, resource, nullptr, &now) != 0) fail("prlimit");
  now.rlim_cur = soft;
  if (::prlimit(pid_, resource, &now, nullptr) != 0) fail("prlimit");
}

}  // namespace isthmus::test
