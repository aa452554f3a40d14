// A server under test: started on a free port with a folder of its own, stopped, killed, started again on the
// same data.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/ports.hpp"
#include "tests/support/process.hpp"
#include "tests/support/temp_folder.hpp"

namespace isthmus::test {

/// Whether ISTHMUS_TEST_SERVER=redis asks for redis-server in the place of Isthmus. The tests of common
/// behaviour then check themselves: what fails there is a wrong test.
bool testing_redis();

/// The executable under test: ISTHMUS_TEST_SERVER if that is a path, else the one of this build.
std::string server_binary();

/// Ends the test here when it runs against redis-server.
#define ISTHMUS_ONLY()                                                       \
  do {                                                                       \
    if (::isthmus::test::testing_redis()) GTEST_SKIP() << "of Isthmus only"; \
  } while (false)

/// What a test may choose of a server.
struct ServerOptions {
  /// `memory:`, `sqlite:PATH`, or `sqlite:` for a file in the server's own folder.
  std::string backend = "memory:";
  /// More options with their values, as `{"--maxclients", "10"}`.
  std::vector<std::string> more;
};

/// A running server. Starts in the constructor and is ready when that returns; throws std::runtime_error with
/// the server's output if it does not become ready. The destructor kills it.
class Server {
 public:
  explicit Server(ServerOptions options = {});
  ~Server();

  int port() const { return port_; }
  Process& process() { return *process_; }
  /// The path of the SQLite file (`sqlite:` only).
  const std::string& database() const { return database_; }
  const TempFolder& folder() const { return folder_; }
  std::string log() const { return process_->output(); }

  /// Starts it again on the same port and the same data. It must have ended.
  void start();
  /// SIGTERM, then waits; nothing if it does not end within 10 seconds (more under sanitizers).
  std::optional<ExitStatus> stop();
  /// SIGKILL, as a crash.
  void kill_now() { process_->kill_now(); }

  /// The command line for a server on `port`; for tests that start one which must fail.
  std::vector<std::string> command_line(int port) const;

 private:
  bool try_start();

  TempFolder folder_;
  ServerOptions options_;
  std::string database_;
  int port_ = 0;
  std::unique_ptr<Process> process_;
};

}  // namespace isthmus::test
