// A load generator for pub/sub: many subscribers and publishers in one process, every delivery checked.
// Prints one JSON object. Needs the standard library and Linux only: g++ -std=c++20 -O2 -pthread
// pubsub_load.cpp -o pubsub_load
#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/bench/load_common.hpp"

namespace isthmus::bench {
namespace {

// What the command line says. The defaults are those of the benchmark's PUBLISH tests.
struct Options {
  std::string host = "127.0.0.1";
  int port = 6379;
  int subscribe_port = 0;  // of another server for the subscribers; 0: the same
  int subscribers = 1;
  int publishers = 50;
  int pipeline = 1;         // PUBLISH commands that a publisher has under way
  int payload_bytes = 100;  // at least kStampBytes
  int idle = 0;             // further subscribers, each of a channel that nobody publishes to
  int threads = 1;
  double seconds = 3;  // of the measured part
  double warm_up_seconds = 0.5;
  double rate = 0;         // messages per second over all publishers; 0 = as many as go
  int server_pid = 0;      // whose CPU time and memory to report
  int subscriber_pid = 0;  // and CPU time of the subscribers' server, if that is another one
  int sql_pid = 0;         // and of the database's first process, with all its children

  bool two_servers() const { return subscribe_port != 0 && subscribe_port != port; }
};

// What the first bytes of each payload say. Memory order of this machine: only this program reads it.
struct Stamp {
  std::int64_t sent_ns;
  std::uint32_t publisher;
  std::uint32_t number;  // 0, 1, 2, … of this publisher
};
constexpr std::size_t kStampBytes = sizeof(Stamp);
constexpr std::string_view kChannel = "bench:channel";
constexpr std::size_t kReadBytes = 256 * 1024;

// Sends SUBSCRIBE on every connection, then awaits every acknowledgement, so that thousands take little time.
std::vector<int> subscribe(const Options& options, int count, bool same_channel) {
  std::vector<int> result;
  std::vector<std::size_t> expected;
  for (int i = 0; i < count; ++i) {
    const std::string channel = same_channel ? std::string(kChannel) : "idle:" + std::to_string(i);
    result.push_back(
        connect_to(options.host, options.subscribe_port != 0 ? options.subscribe_port : options.port));
    write_all(result.back(), "*2\r\n$9\r\nSUBSCRIBE\r\n" + bulk(channel));
    expected.push_back(std::string("*3\r\n$9\r\nsubscribe\r\n").size() + bulk(channel).size() + 4);
  }
  for (int i = 0; i < count; ++i) {
    std::string reply(expected[static_cast<std::size_t>(i)], '\0');
    const ssize_t got = ::recv(result[static_cast<std::size_t>(i)], reply.data(), reply.size(), MSG_WAITALL);
    if (got != static_cast<ssize_t>(reply.size()) || !reply.ends_with(":1\r\n"))
      fail("a SUBSCRIBE was not acknowledged: " + reply.substr(0, 60));
  }
  return result;
}

enum class Phase { warm_up, measured, draining, over };

// What all threads share.
struct Shared {
  const Options& options;
  std::string frame_head;  // of a delivered message, up to the payload
  std::size_t frame_bytes = 0;
  std::atomic<Phase> phase{Phase::warm_up};
  std::atomic<std::uint64_t> published{0};  // sent to the server
  std::atomic<std::uint64_t> answered{0};
  std::atomic<std::uint64_t> delivered{0};
  // Publishing waits while more deliveries than this are under way: a server that acknowledges faster than
  // this program reads would else close its slow subscribers.
  std::uint64_t window = 0;
};

struct Subscriber {
  int fd = -1;
  std::string rest;                        // the first part of a frame whose end is not here
  std::vector<std::uint32_t> next_number;  // per publisher
};

struct Publisher {
  int fd = -1;
  std::uint32_t id = 0;
  std::uint32_t number = 0;
  int under_way = 0;
  std::string reply_rest;
};

// One thread: some subscribers and some publishers on one epoll.
class Worker {
 public:
  Worker(Shared& shared, std::vector<int> subscribers, std::vector<int> publishers,
         std::uint32_t first_publisher)
      : shared_(shared), epoll_(::epoll_create1(EPOLL_CLOEXEC)), buffer_(kReadBytes) {
    for (const int fd : subscribers) {
      auto& added = subscribers_.emplace_back();
      added.fd = fd;
      added.next_number.resize(static_cast<std::size_t>(shared.options.publishers));
    }
    for (const int fd : publishers) {
      auto& added = publishers_.emplace_back();
      added.fd = fd;
      added.id = first_publisher++;
    }
    // The connections were made blocking and stay so for writing; reading asks for what is there
    // (MSG_DONTWAIT).
    for (std::size_t i = 0; i < subscribers_.size(); ++i) watch(subscribers_[i].fd, i);
    for (std::size_t i = 0; i < publishers_.size(); ++i) watch(publishers_[i].fd, i + subscribers_.size());
    command_ = "*3\r\n$7\r\nPUBLISH\r\n" + bulk(kChannel) + "$" +
               std::to_string(shared.options.payload_bytes) + "\r\n";
    stamp_at_ = command_.size();
    command_ += std::string(static_cast<std::size_t>(shared.options.payload_bytes), 'x') + "\r\n";
  }
  ~Worker() { ::close(epoll_); }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void run() {
    next_send_ns_ = now_ns();
    while (true) {
      const Phase phase = shared_.phase.load(std::memory_order_relaxed);
      if (phase == Phase::over) return;
      if (phase != Phase::draining) publish();
      wait_and_read(phase);
    }
  }

  const Histogram& latencies() const { return latencies_; }

 private:
  void watch(int fd, std::size_t index) const {
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = index;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
  }

  bool window_open() const {
    const auto promised = shared_.published.load(std::memory_order_relaxed) *
                          static_cast<std::uint64_t>(shared_.options.subscribers);
    return promised - shared_.delivered.load(std::memory_order_relaxed) < shared_.window;
  }

  void publish() {
    if (publishers_.empty()) return;
    if (shared_.options.rate > 0) return publish_paced();
    for (auto& publisher : publishers_)
      if (publisher.under_way == 0) {
        if (!window_open()) return;
        send(publisher, shared_.options.pipeline);
      }
  }

  // Messages leave at their due times whether or not earlier ones were answered. Only the first worker has
  // publishers then.
  void publish_paced() {
    const auto interval_ns = static_cast<std::int64_t>(1e9 / shared_.options.rate);
    while (now_ns() >= next_send_ns_) {
      send(publishers_[turn_++ % publishers_.size()], 1);
      next_send_ns_ += interval_ns;
    }
  }

  void send(Publisher& publisher, int count) {
    out_.clear();
    for (int i = 0; i < count; ++i) {
      const Stamp stamp{now_ns(), publisher.id, publisher.number++};
      std::memcpy(command_.data() + stamp_at_, &stamp, kStampBytes);
      out_ += command_;
    }
    publisher.under_way += count;
    shared_.published.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
    write_all(publisher.fd, out_);
  }

  void wait_and_read(Phase phase) {
    std::int64_t wait_ns = 20'000'000;
    if (shared_.options.rate > 0 && phase != Phase::draining && !publishers_.empty())
      wait_ns = std::clamp<std::int64_t>(next_send_ns_ - now_ns(), 0, wait_ns);
    else if (!publishers_.empty() && !window_open())
      wait_ns = 200'000;
    const timespec timeout{0, wait_ns};
    std::array<epoll_event, 256> events;
    const int ready =
        ::epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), &timeout, nullptr);
    for (int i = 0; i < ready; ++i) {
      const auto index = events[static_cast<std::size_t>(i)].data.u64;
      if (index < subscribers_.size())
        read_messages(subscribers_[index]);
      else
        read_replies(publishers_[index - subscribers_.size()]);
    }
  }

  // Bytes that are there now, in buffer_ behind `kept`; an end of the stream is an error.
  std::string_view receive(int fd, std::string& kept) {
    std::memcpy(buffer_.data(), kept.data(), kept.size());
    const ssize_t got = ::recv(fd, buffer_.data() + kept.size(), buffer_.size() - kept.size(), MSG_DONTWAIT);
    if (got == 0) fail("the server closed a connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR) fail("recv: " + std::string(std::strerror(errno)));
    return {buffer_.data(), kept.size() + static_cast<std::size_t>(std::max<ssize_t>(got, 0))};
  }

  void read_messages(Subscriber& subscriber) {
    std::string_view bytes = receive(subscriber.fd, subscriber.rest);
    const std::int64_t now = now_ns();
    const bool measured = shared_.phase.load(std::memory_order_relaxed) == Phase::measured;
    std::uint64_t count = 0;
    for (; bytes.size() >= shared_.frame_bytes; bytes.remove_prefix(shared_.frame_bytes), ++count) {
      if (!bytes.starts_with(shared_.frame_head))
        fail("an unexpected message: " + std::string(bytes.substr(0, 80)));
      Stamp stamp;
      std::memcpy(&stamp, bytes.data() + shared_.frame_head.size(), kStampBytes);
      if (stamp.publisher >= subscriber.next_number.size()) fail("a payload arrived damaged");
      if (subscriber.next_number[stamp.publisher]++ != stamp.number)
        fail("a message was lost, repeated or out of order");
      if (measured) latencies_.add(now - stamp.sent_ns);
    }
    subscriber.rest.assign(bytes);
    shared_.delivered.fetch_add(count, std::memory_order_relaxed);
  }

  void read_replies(Publisher& publisher) {
    const std::string_view bytes = receive(publisher.fd, publisher.reply_rest);
    std::size_t at = 0, end = 0;
    int count = 0;
    while ((end = bytes.find('\n', at)) != std::string_view::npos) {
      if (bytes[at] != ':') fail("PUBLISH was answered " + std::string(bytes.substr(at, end - at)));
      // PUBLISH counts the receivers at its own server.
      if (!shared_.options.two_servers() && std::atoi(bytes.data() + at + 1) != shared_.options.subscribers)
        fail("PUBLISH counted " + std::string(bytes.substr(at, end - at)) + " receivers");
      at = end + 1;
      ++count;
    }
    publisher.reply_rest.assign(bytes.substr(at));
    publisher.under_way -= count;
    shared_.answered.fetch_add(static_cast<std::uint64_t>(count), std::memory_order_relaxed);
  }

  Shared& shared_;
  int epoll_;
  std::vector<char> buffer_;
  std::vector<Subscriber> subscribers_;
  std::vector<Publisher> publishers_;
  std::string command_, out_;
  std::size_t stamp_at_ = 0;
  std::int64_t next_send_ns_ = 0;
  std::size_t turn_ = 0;
  Histogram latencies_;
};

struct Sample {
  std::int64_t at_ns;
  std::uint64_t answered, delivered;
  ServerUse use, subscriber_use;
  double sql_cpu_seconds;
};

Sample sample(const Shared& shared) {
  return {now_ns(),
          shared.answered.load(),
          shared.delivered.load(),
          server_use(shared.options.server_pid),
          server_use(shared.options.subscriber_pid),
          tree_cpu_seconds(shared.options.sql_pid)};
}

// After publishing has stopped every message must come. True if all did within ten seconds.
bool drain(Shared& shared) {
  shared.phase = Phase::draining;
  sleep_seconds(0.05);
  for (int i = 0; i < 1000; ++i) {
    const auto published = shared.published.load();
    if (shared.answered == published &&
        shared.delivered == published * static_cast<std::uint64_t>(shared.options.subscribers))
      return true;
    sleep_seconds(0.01);
  }
  return false;
}

void print_result(const Shared& shared, const Sample& begin, const Sample& end, const Histogram& latencies,
                  double memory_before) {
  const double seconds = static_cast<double>(end.at_ns - begin.at_ns) / 1e9;
  const auto published = static_cast<double>(end.answered - begin.answered);
  const auto delivered = static_cast<double>(end.delivered - begin.delivered);
  const double cpu = end.use.cpu_seconds - begin.use.cpu_seconds;
  const double subscriber_cpu = end.subscriber_use.cpu_seconds - begin.subscriber_use.cpu_seconds;
  const double sql_cpu = end.sql_cpu_seconds - begin.sql_cpu_seconds;
  const double per_publish = published > 0 ? 1e6 / published : 0.0;
  std::printf(
      "{\"seconds\": %.3f, \"published_per_second\": %.1f, \"delivered_per_second\": %.1f, "
      "\"server_cpu_seconds\": %.3f, "
      "\"cpu_us_per_publish\": %.4f, \"cpu_us_per_delivery\": %.4f, \"p50_ms\": %.4f, \"p95_ms\": %.4f, "
      "\"p99_ms\": %.4f, "
      "\"p999_ms\": %.4f, \"max_ms\": %.4f, \"resident_bytes_before\": %.0f, \"resident_bytes_begin\": %.0f, "
      "\"resident_bytes_end\": %.0f, \"total_published\": %llu, \"total_delivered\": %llu, "
      "\"subscriber_cpu_us_per_publish\": %.4f, \"sql_cpu_us_per_publish\": %.4f}\n",
      seconds, published / seconds, delivered / seconds, cpu, cpu * per_publish,
      delivered > 0 ? cpu * 1e6 / delivered : 0.0, latencies.percentile_ms(50), latencies.percentile_ms(95),
      latencies.percentile_ms(99), latencies.percentile_ms(99.9), latencies.max_ms(), memory_before,
      begin.use.resident_bytes, end.use.resident_bytes,
      static_cast<unsigned long long>(shared.published.load()),
      static_cast<unsigned long long>(shared.delivered.load()), subscriber_cpu * per_publish,
      sql_cpu * per_publish);
}

std::vector<std::unique_ptr<Worker>> make_workers(Shared& shared) {
  const auto& options = shared.options;
  const auto all = subscribe(options, options.subscribers, true);
  std::vector<std::unique_ptr<Worker>> workers;
  std::uint32_t first_publisher = 0;
  for (int t = 0; t < options.threads; ++t) {
    std::vector<int> subscribers, publishers;
    for (std::size_t i = static_cast<std::size_t>(t); i < all.size();
         i += static_cast<std::size_t>(options.threads))
      subscribers.push_back(all[i]);
    const int share = options.rate > 0 ? (t == 0 ? options.publishers : 0)
                                       : options.publishers / options.threads +
                                             (t < options.publishers % options.threads ? 1 : 0);
    for (int i = 0; i < share; ++i) publishers.push_back(connect_to(options.host, options.port));
    workers.push_back(std::make_unique<Worker>(shared, subscribers, publishers, first_publisher));
    first_publisher += static_cast<std::uint32_t>(share);
  }
  return workers;
}

int run(const Options& options) {
  const double memory_before = server_use(options.server_pid).resident_bytes;
  const auto idle = subscribe(options, options.idle, false);
  Shared shared{options};
  shared.frame_head =
      "*3\r\n$7\r\nmessage\r\n" + bulk(kChannel) + "$" + std::to_string(options.payload_bytes) + "\r\n";
  shared.frame_bytes = shared.frame_head.size() + static_cast<std::size_t>(options.payload_bytes) + 2;
  const auto subscribers = static_cast<std::uint64_t>(std::max(options.subscribers, 1));
  const auto in_flight =
      static_cast<std::uint64_t>(options.publishers) * static_cast<std::uint64_t>(options.pipeline);
  shared.window = std::max<std::uint64_t>(2 * in_flight * subscribers, 50'000);

  auto workers = make_workers(shared);
  std::vector<std::thread> threads;
  for (auto& worker : workers)
    threads.emplace_back([&worker] {
      try {
        worker->run();
      } catch (const std::exception& error) {
        std::fprintf(stderr, "pubsub_load: %s\n", error.what());
        std::_Exit(1);
      }
    });
  sleep_seconds(options.warm_up_seconds);
  const Sample begin = sample(shared);
  shared.phase = Phase::measured;
  sleep_seconds(options.seconds);
  const Sample end = sample(shared);
  const bool complete = drain(shared);
  shared.phase = Phase::over;
  for (auto& thread : threads) thread.join();
  if (!complete)
    fail("messages are missing: " + std::to_string(shared.published * subscribers) + " promised, " +
         std::to_string(shared.delivered) + " came");
  Histogram latencies;
  for (const auto& worker : workers) latencies.merge(worker->latencies());
  print_result(shared, begin, end, latencies, memory_before);
  for (const int fd : idle) ::close(fd);
  return 0;
}

Options parse(int argc, char** argv) {
  Options options;
  const std::map<std::string_view, int*> whole{{"--port", &options.port},
                                               {"--subscribers", &options.subscribers},
                                               {"--publishers", &options.publishers},
                                               {"--pipeline", &options.pipeline},
                                               {"--payload", &options.payload_bytes},
                                               {"--idle", &options.idle},
                                               {"--threads", &options.threads},
                                               {"--subscribe-port", &options.subscribe_port},
                                               {"--server-pid", &options.server_pid},
                                               {"--subscriber-pid", &options.subscriber_pid},
                                               {"--sql-pid", &options.sql_pid}};
  const std::map<std::string_view, double*> real{
      {"--seconds", &options.seconds}, {"--warm-up", &options.warm_up_seconds}, {"--rate", &options.rate}};
  read_options(argc, argv, whole, real, {{"--host", &options.host}});
  options.payload_bytes = std::max(options.payload_bytes, static_cast<int>(kStampBytes));
  if (options.publishers < 1 || options.threads < 1 || options.pipeline < 1) fail("a count below 1");
  return options;
}

}  // namespace
}  // namespace isthmus::bench

int main(int argc, char** argv) {
  ::signal(SIGPIPE, SIG_IGN);
  try {
    return isthmus::bench::run(isthmus::bench::parse(argc, argv));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "pubsub_load: %s\n", error.what());
    return 1;
  }
}
