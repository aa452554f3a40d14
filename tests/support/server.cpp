// A server under test.
#include "tests/support/server.hpp"

#include <cstdlib>
#include <stdexcept>

#include <signal.h>

namespace isthmus::test {
namespace {

constexpr std::string_view kReadyLine = "Ready to accept connections";
constexpr int kStartAttempts = 5;

std::string test_server() {
  const char* chosen = std::getenv("ISTHMUS_TEST_SERVER");
  return chosen == nullptr ? "" : chosen;
}

std::vector<std::string> redis_command_line(int port, const ServerOptions& options,
                                            const TempFolder& folder) {
  std::vector<std::string> line{"redis-server",
                                "--port",
                                std::to_string(port),
                                "--bind",
                                "127.0.0.1",
                                "--dir",
                                folder.path().string(),
                                "--save",
                                "",
                                "--enable-debug-command",
                                "yes"};
  if (options.backend != "memory:")
    line.insert(line.end(), {"--appendonly", "yes", "--appendfsync", "always"});
  for (std::size_t i = 0; i + 1 < options.more.size(); i += 2) {
    const auto& name = options.more[i];
    if (name != "--requirepass" && name != "--maxclients" && name != "--maxmemory") continue;
    line.insert(line.end(), {name, options.more[i + 1]});
  }
  return line;
}

}  // namespace

bool testing_redis() { return test_server() == "redis"; }

std::string server_binary() {
  const auto chosen = test_server();
  return chosen.empty() ? ISTHMUS_BINARY : chosen;
}

Server::Server(ServerOptions options) : options_(std::move(options)) {
  if (options_.backend == "sqlite:") options_.backend += folder_.file("isthmus.db");
  if (options_.backend.starts_with("sqlite:")) database_ = options_.backend.substr(7);
  for (int attempt = 0; attempt < kStartAttempts; ++attempt) {
    port_ = free_port();
    if (try_start()) return;
    const auto said = process_->output();
    const bool taken = said.find("in use") != std::string::npos || said.find("taken") != std::string::npos;
    if (!taken) break;
  }
  throw std::runtime_error("the server did not become ready:\n" + process_->output());
}

Server::~Server() = default;

std::vector<std::string> Server::command_line(int port) const {
  if (testing_redis()) return redis_command_line(port, options_, folder_);
  std::vector<std::string> line{server_binary(), "--port",    std::to_string(port), "--bind",
                                "127.0.0.1",     "--backend", options_.backend};
  line.insert(line.end(), options_.more.begin(), options_.more.end());
  return line;
}

bool Server::try_start() {
  process_ = std::make_unique<Process>(command_line(port_), folder_.path().string());
  return process_->await_output(kReadyLine).has_value();
}

void Server::start() {
  if (!try_start()) throw std::runtime_error("the server did not become ready:\n" + process_->output());
}

std::optional<ExitStatus> Server::stop() {
  process_->signal(SIGTERM);
  return process_->wait(kSanitized ? seconds(30) : seconds(10));
}

}  // namespace isthmus::test
