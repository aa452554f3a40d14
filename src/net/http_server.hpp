// The HTTP port: probes and metrics. Boost.Beast does HTTP.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace isthmus {

struct HttpReply {
  unsigned status = 200;
  std::string type = "text/plain; charset=utf-8";
  std::string body;
};

/// Answers GET and HEAD on a thread of its own, from the constructor on until it is destroyed, so that probes
/// are answered while the server starts and drains. Slow clients are dropped; connections are few and small.
class HttpServer {
 public:
  /// Gives the reply for a path, on the server's thread.
  using Handler = std::function<HttpReply(const std::string& path)>;
  /// Listens on every address; port 0 takes any free one. Throws std::runtime_error with one clear line.
  HttpServer(const std::vector<std::string>& addresses, std::uint16_t port, Handler handler);
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;
  std::uint16_t port() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace isthmus
