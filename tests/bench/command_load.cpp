// A load generator for single commands: many connections, each with a pipeline of random keys, every reply
// checked. It costs less CPU time per request than redis-benchmark (one read and one write for each pipeline,
// nothing else), so that on a machine with few cores the server is the limit sooner. Prints one JSON object.
#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/load_common.hpp"

namespace isthmus::bench {
namespace {

struct Options {
  std::string host = "127.0.0.1";
  int port = 6379;
  std::string command = "set";  // set, get or hset
  int clients = 50;
  int pipeline = 1;
  int keys = 100'000;
  int payload_bytes = 3;
  double seconds = 3;
  double warm_up_seconds = 0.3;
  double rate = 0;     // commands per second over all clients; 0 = as many as go
  int server_pid = 0;  // whose CPU time to report
  int sql_pid = 0;     // and of the database's first process, with all its children
};

constexpr int kDigits = 12;  // of a key, as redis-benchmark writes it

// One command with a hole for the key's digits, and what its reply may be.
struct Command {
  std::string text;
  std::size_t digits_at = 0;
  std::vector<std::string> replies;
};

Command command_of(const Options& options) {
  const std::string value(static_cast<std::size_t>(options.payload_bytes), 'x');
  const std::string zeros(kDigits, '0');
  Command command;
  if (options.command == "set")
    command = {"*3\r\n" + bulk("SET") + bulk("key:" + zeros) + bulk(value), 0, {"+OK\r\n"}};
  else if (options.command == "get")
    command = {"*2\r\n" + bulk("GET") + bulk("key:" + zeros), 0, {bulk(value)}};
  else if (options.command == "hset")
    command = {"*4\r\n" + bulk("HSET") + bulk("hash:" + zeros) + bulk("field") + bulk(value),
               0,
               {":0\r\n", ":1\r\n"}};
  else
    fail("--command is set, get or hset");
  command.digits_at = command.text.find(zeros);
  return command;
}

struct Connection {
  int fd = -1;
  std::int64_t sent_ns = 0;
  std::string rest;  // of a reply whose end is not here
  int missing = 0;   // replies of the pipeline under way
};

class Load {
 public:
  explicit Load(const Options& options)
      : options_(options), command_(command_of(options)), epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
    for (int i = 0; i < options.pipeline; ++i) out_ += command_.text;
    connections_.resize(static_cast<std::size_t>(options.clients));
    for (std::size_t i = 0; i < connections_.size(); ++i) {
      connections_[i].fd = connect_to(options.host, options.port);
      epoll_event event{};
      event.events = EPOLLIN;
      event.data.u64 = i;
      if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, connections_[i].fd, &event) != 0) fail("epoll_ctl");
    }
  }
  ~Load() {
    for (const auto& connection : connections_) ::close(connection.fd);
    ::close(epoll_);
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void run() {
    if (options_.rate > 0) {
      next_send_ns_ = now_ns();
    } else {
      for (auto& connection : connections_) send(connection);
    }
    work_until(now_ns() + to_ns(options_.warm_up_seconds));
    latencies_ = Histogram();
    const auto done_before = done_;
    const auto use_before = server_use(options_.server_pid);
    const double sql_before = tree_cpu_seconds(options_.sql_pid);
    const auto begin = now_ns();
    work_until(begin + to_ns(options_.seconds));
    const double seconds = static_cast<double>(now_ns() - begin) / 1e9;
    const double cpu = server_use(options_.server_pid).cpu_seconds - use_before.cpu_seconds;
    print(seconds, static_cast<double>(done_ - done_before), cpu,
          tree_cpu_seconds(options_.sql_pid) - sql_before);
  }

 private:
  static std::int64_t to_ns(double seconds) { return static_cast<std::int64_t>(seconds * 1e9); }

  void send(Connection& connection) {
    for (int i = 0; i < options_.pipeline; ++i) {
      auto digits = next_random() % static_cast<std::uint64_t>(options_.keys);
      char* at =
          out_.data() + static_cast<std::size_t>(i) * command_.text.size() + command_.digits_at + kDigits;
      for (int n = 0; n < kDigits; ++n, digits /= 10) *--at = static_cast<char>('0' + digits % 10);
    }
    connection.missing = options_.pipeline;
    connection.sent_ns = now_ns();
    write_all(connection.fd, out_);
  }

  // Sends what is due from connections that have no pipeline under way; what is due while all are busy is
  // sent later. Latencies count from the sending.
  void send_due() {
    const auto interval_ns =
        static_cast<std::int64_t>(1e9 * static_cast<double>(options_.pipeline) / options_.rate);
    for (std::size_t tried = 0; tried < connections_.size() && now_ns() >= next_send_ns_; ++tried) {
      Connection& connection = connections_[turn_++ % connections_.size()];
      if (connection.missing != 0) continue;
      send(connection);
      next_send_ns_ += interval_ns;
    }
  }

  // How long to wait for replies: a second without any is an error, but not if nothing was asked.
  int patience_ms() const {
    if (options_.rate <= 0) return 1000;
    return static_cast<int>(std::clamp<std::int64_t>((next_send_ns_ - now_ns()) / 1'000'000, 0, 1000));
  }

  // xorshift64: cheap, and the same sequence in every run.
  std::uint64_t next_random() {
    random_ ^= random_ << 13;
    random_ ^= random_ >> 7;
    random_ ^= random_ << 17;
    return random_;
  }

  void work_until(std::int64_t end_ns) {
    std::array<epoll_event, 128> events;
    while (now_ns() < end_ns) {
      if (options_.rate > 0) send_due();
      const int ready = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), patience_ms());
      if (ready == 0 && options_.rate <= 0) fail("the server answered nothing for a second");
      for (int i = 0; i < ready; ++i) receive(connections_[events[static_cast<std::size_t>(i)].data.u64]);
    }
  }

  void receive(Connection& connection) {
    std::memcpy(in_.data(), connection.rest.data(), connection.rest.size());
    const ssize_t got = ::recv(connection.fd, in_.data() + connection.rest.size(),
                               in_.size() - connection.rest.size(), MSG_DONTWAIT);
    if (got == 0) fail("the server closed a connection");
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got < 0) fail("recv: " + std::string(std::strerror(errno)));
    std::string_view bytes(in_.data(), connection.rest.size() + static_cast<std::size_t>(got));
    const std::int64_t latency = now_ns() - connection.sent_ns;
    int count = 0;
    while (take_reply(bytes)) ++count;
    if (!may_become_reply(bytes)) fail("an unexpected reply: " + std::string(bytes.substr(0, 80)));
    connection.rest.assign(bytes);
    latencies_.add(latency, static_cast<std::uint64_t>(count));
    done_ += static_cast<std::uint64_t>(count);
    connection.missing -= count;
    if (connection.missing == 0 && options_.rate <= 0) send(connection);
  }

  bool take_reply(std::string_view& bytes) const {
    for (const auto& reply : command_.replies)
      if (bytes.starts_with(reply)) {
        bytes.remove_prefix(reply.size());
        return true;
      }
    return false;
  }

  // What is left behind the last whole reply: nothing, or the beginning of one.
  bool may_become_reply(std::string_view bytes) const {
    return std::any_of(command_.replies.begin(), command_.replies.end(),
                       [&](const std::string& reply) { return reply.starts_with(bytes); });
  }

  void print(double seconds, double done, double cpu, double sql_cpu) const {
    const double per_command = done > 0 ? 1e6 / done : 0.0;
    std::printf(
        "{\"throughput\": %.1f, \"p50\": %.4f, \"p99\": %.4f, \"p999\": %.4f, \"max\": %.4f, \"cpu\": "
        "%.4f, \"cpu_sql\": %.4f}\n",
        done / seconds, latencies_.percentile_ms(50), latencies_.percentile_ms(99),
        latencies_.percentile_ms(99.9), latencies_.max_ms(), cpu * per_command, sql_cpu * per_command);
  }

  const Options& options_;
  const Command command_;
  int epoll_;
  std::vector<Connection> connections_;
  std::string out_;
  std::array<char, 256 * 1024> in_;
  std::uint64_t random_ = 88172645463325252ULL;
  std::uint64_t done_ = 0;
  std::int64_t next_send_ns_ = 0;
  std::size_t turn_ = 0;
  Histogram latencies_;
};

Options parse(int argc, char** argv) {
  Options options;
  read_options(
      argc, argv,
      {{"--port", &options.port},
       {"--clients", &options.clients},
       {"--pipeline", &options.pipeline},
       {"--keys", &options.keys},
       {"--payload", &options.payload_bytes},
       {"--server-pid", &options.server_pid},
       {"--sql-pid", &options.sql_pid}},
      {{"--seconds", &options.seconds}, {"--warm-up", &options.warm_up_seconds}, {"--rate", &options.rate}},
      {{"--host", &options.host}, {"--command", &options.command}});
  if (options.clients < 1 || options.pipeline < 1 || options.keys < 1) fail("a count below 1");
  return options;
}

}  // namespace
}  // namespace isthmus::bench

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  try {
    const auto options = isthmus::bench::parse(argc, argv);
    isthmus::bench::Load(options).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "command_load: %s\n", error.what());
    return 1;
  }
}
