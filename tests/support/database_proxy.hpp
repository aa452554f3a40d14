// A way to PostgreSQL that a test can block: a TCP proxy.
#pragma once

#include <atomic>
#include <list>
#include <string>
#include <thread>
#include <vector>

namespace isthmus::test {

/// Forwards connections from a free port of the loopback to another one. Throws std::system_error if it
/// cannot begin.
class DatabaseProxy {
 public:
  explicit DatabaseProxy(int target_port);
  ~DatabaseProxy();
  DatabaseProxy(const DatabaseProxy&) = delete;
  DatabaseProxy& operator=(const DatabaseProxy&) = delete;

  int port() const { return port_; }
  /// A URI of the database behind it.
  std::string url(const std::string& database = "postgres") const;
  /// Holds all bytes back; connections stay open, new ones are taken and hear nothing. As a network that
  /// drops every packet.
  void stall() { set(Mode::stalled); }
  /// Closes all connections, and new ones as they come.
  void cut() { set(Mode::cut); }
  /// Everything flows again, what was held back first.
  void open() { set(Mode::open); }
  /// Closes the clients' ends of all connections, and keeps the database's ends open and silent until the
  /// proxy ends: the database does not learn that its clients are gone. New connections are as before.
  void orphan();

 private:
  enum class Mode { open, stalled, cut };
  struct Side {
    int fd = -1;
    std::string held;  // read from the other side, not written here yet
  };
  struct Pair {
    Side client, database;
    bool broken = false;
  };

  void set(Mode mode);
  void run();
  void serve();
  void take_connection();
  void close_clients();
  static void move_bytes(Pair& pair, Side& from, Side& to);
  static void write_held(Pair& pair, Side& to);
  void close_broken(bool all);

  const int target_port_;
  int port_ = 0, listener_ = -1, wake_ = -1;
  std::atomic<Mode> mode_{Mode::open};
  std::atomic<bool> stopping_{false}, orphaning_{false};
  std::list<Pair> pairs_;
  std::vector<int> orphans_;
  std::thread thread_;
};

}  // namespace isthmus::test
