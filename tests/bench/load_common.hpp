// What the load generators share: connections, latencies, and what /proc says of the server. Standard library
// and Linux only.
#pragma once

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

namespace isthmus::bench {

using Clock = std::chrono::steady_clock;

inline std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

[[noreturn]] inline void fail(const std::string& what) { throw std::runtime_error(what); }

// Latencies in nanoseconds, in buckets of 1/32 of a power of two: an error of at most about 3 percent.
class Histogram {
 public:
  void add(std::int64_t nanoseconds, std::uint64_t count = 1) {
    counts_[index(static_cast<std::uint64_t>(std::max<std::int64_t>(nanoseconds, 1)))] += count;
    total_ += count;
    max_ = std::max(max_, nanoseconds);
  }
  void merge(const Histogram& other) {
    for (std::size_t i = 0; i < counts_.size(); ++i) counts_[i] += other.counts_[i];
    total_ += other.total_;
    max_ = std::max(max_, other.max_);
  }
  double percentile_ms(double percent) const {
    const auto wanted = static_cast<std::uint64_t>(static_cast<double>(total_) * percent / 100.0);
    std::uint64_t seen = 0;
    for (std::size_t i = 0; i < counts_.size(); ++i) {
      seen += counts_[i];
      if (seen > wanted) return static_cast<double>(value(i)) / 1e6;
    }
    return max_ms();
  }
  double max_ms() const { return static_cast<double>(max_) / 1e6; }

 private:
  static constexpr unsigned kStepBits = 5;
  static std::size_t index(std::uint64_t n) {
    if (n < (1u << kStepBits)) return n;
    const unsigned shift = static_cast<unsigned>(std::bit_width(n)) - kStepBits - 1;
    return (static_cast<std::size_t>(shift) << kStepBits) + (n >> shift);
  }
  static std::uint64_t value(std::size_t index) {
    if (index < (2u << kStepBits)) return index;
    const std::size_t shift = (index >> kStepBits) - 1;
    return (index - (shift << kStepBits)) << shift;
  }
  std::vector<std::uint64_t> counts_ = std::vector<std::uint64_t>(64u << kStepBits);
  std::uint64_t total_ = 0;
  std::int64_t max_ = 0;
};

inline int connect_to(const std::string& host, int port) {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("socket: " + std::string(std::strerror(errno)));
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1) fail("--host takes an IPv4 address");
  if (::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0)
    fail("connect: " + std::string(std::strerror(errno)));
  return fd;
}

inline void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = ::send(fd, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (done < 0 && errno == EINTR) continue;
    if (done < 0) fail("send: " + std::string(std::strerror(errno)));
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
}

inline std::string bulk(std::string_view text) {
  return "$" + std::to_string(text.size()) + "\r\n" + std::string(text) + "\r\n";
}

struct ServerUse {
  double cpu_seconds = 0;
  double resident_bytes = 0;
};

// utime and stime of all threads of the process, and its resident memory, from /proc.
inline ServerUse server_use(int pid) {
  if (pid == 0) return {};
  std::ifstream in("/proc/" + std::to_string(pid) + "/stat");
  std::string line;
  if (!std::getline(in, line)) fail("the server has gone");
  std::istringstream words(line.substr(line.rfind(')') + 1));
  std::vector<std::string> word;
  for (std::string w; words >> w;) word.push_back(w);
  const double ticks = std::stod(word.at(11)) + std::stod(word.at(12));
  return {ticks / static_cast<double>(::sysconf(_SC_CLK_TCK)),
          std::stod(word.at(21)) * static_cast<double>(::sysconf(_SC_PAGESIZE))};
}

// utime and stime of a process and all its children, also of those that have ended: PostgreSQL by the process
// id of its postmaster.
inline double tree_cpu_seconds(int pid) {
  if (pid == 0) return 0;
  const auto ticks = [](const std::string& id, int first, int last) {
    std::ifstream in("/proc/" + id + "/stat");
    std::string line;
    if (!std::getline(in, line)) return 0.0;  // it has just ended, and its parent counts it
    std::istringstream words(line.substr(line.rfind(')') + 1));
    double sum = 0;
    std::string word;
    for (int i = 0; i <= last && words >> word; ++i)
      if (i >= first) sum += std::stod(word);
    return sum;
  };
  const std::string parent = std::to_string(pid);
  double sum = ticks(parent, 11, 14);  // utime, stime, cutime, cstime
  std::ifstream children("/proc/" + parent + "/task/" + parent + "/children");
  for (std::string child; children >> child;) sum += ticks(child, 11, 12);
  return sum / static_cast<double>(::sysconf(_SC_CLK_TCK));
}

inline void sleep_seconds(double seconds) {
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
}

// Sets options of the form `--name value` from the command line, each by its place in one of the maps.
inline void read_options(int argc, char** argv, const std::map<std::string_view, int*>& whole,
                         const std::map<std::string_view, double*>& real,
                         const std::map<std::string_view, std::string*>& words) {
  for (int i = 1; i < argc; i += 2) {
    const std::string_view name = argv[i];
    if (i + 1 == argc) fail("an option without a value: " + std::string(name));
    if (whole.contains(name))
      *whole.at(name) = std::stoi(argv[i + 1]);
    else if (real.contains(name))
      *real.at(name) = std::stod(argv[i + 1]);
    else if (words.contains(name))
      *words.at(name) = argv[i + 1];
    else
      fail("unknown option " + std::string(name));
  }
}

}  // namespace isthmus::bench
