// Clients of several servers of a site, and a judge of what they were told.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/client.hpp"

namespace isthmus::test {

/// Load on every server until `stop`: INCR of one counter, SETs of unique values and DELs of some of them,
/// SET NX of the same keys everywhere, numbered messages, and a subscriber to all of them. What each client
/// was told is kept. Connections that end are made again.
class SiteLoad {
 public:
  /// Begins. The servers listen on `ports` of the loopback.
  explicit SiteLoad(std::vector<int> ports);
  ~SiteLoad() { stop(); }
  SiteLoad(const SiteLoad&) = delete;
  SiteLoad& operator=(const SiteLoad&) = delete;

  /// Waits until so many more writes have been acknowledged; false if that takes too long.
  bool acknowledges(int count);
  /// Ends all clients. The subscribers first wait for what has been acknowledged, if that is expected.
  void stop();

  /// Which promises about messages hold whatever happened besides: `all_messages` is false where the database
  /// lost them.
  struct Expected {
    bool all_messages = true;
    /// Acknowledged increments may be missing where two lines of the log came to be.
    bool exact_counter = true;
  };
  /// After `stop`: every server, and SQL as `current` gives it (key to value), hold the same and what clients
  /// were promised. Failures are those of the running test.
  void judge(const std::function<std::map<std::string, std::string>()>& current, Expected expected);
  void judge(const std::function<std::map<std::string, std::string>()>& current) { judge(current, {}); }
  /// Errors that did not begin with CLUSTERDOWN.
  std::vector<std::string> wrong_errors();
  std::uint64_t acknowledged() const { return acknowledged_.load(); }
  std::uint64_t unknown() const { return unknown_.load(); }

 private:
  enum class Told { done, refused, unknown };
  struct Key {
    std::set<std::string> possible;  ///< values, "" for none
  };
  struct Publisher {
    int port = 0;
    std::string channel;
    std::vector<int> acknowledged;
  };
  struct Subscriber {
    int port = 0;
    std::map<std::string, std::vector<int>> received;
    bool whole = true;  ///< its connection never broke
  };
  using Work = std::function<void(std::unique_ptr<Client>&)>;

  void run(int port, const Work& work);
  Told ask(std::unique_ptr<Client>& client, const std::vector<std::string_view>& args, Value& reply);
  void increment(int port);
  void set_and_delete(int port, int number);
  void race(int port, int number);
  void publish(Publisher& publisher);
  void receive(Subscriber& subscriber, std::atomic<std::size_t>& ready);
  std::map<std::string, std::string> state_of(int port) const;
  void judge_keys(const std::map<std::string, std::string>& state);
  void judge_messages(bool all);

  const std::vector<int> ports_;
  std::atomic<bool> stopping_{false}, subscribers_stop_{false};
  std::atomic<std::uint64_t> acknowledged_{0}, unknown_{0};
  std::atomic<std::uint64_t> increments_{0}, unknown_increments_{0};
  std::mutex mutex_;  // of the following
  std::map<std::string, Key> keys_;
  std::map<std::string, std::string> winners_;
  std::vector<std::string> wrong_;
  std::vector<std::unique_ptr<Publisher>> publishers_;
  std::vector<std::unique_ptr<Subscriber>> subscribers_;
  std::vector<std::thread> threads_, subscriber_threads_;
};

}  // namespace isthmus::test
