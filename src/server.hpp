// The one place that builds all parts of the server and takes them apart again.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "src/config.hpp"

namespace isthmus {

/// A whole server. Its constructor listens, opens the backend and loads the state, in this order, so that a
/// taken port touches no database; it throws std::runtime_error with one clear line if it cannot.
class Server {
 public:
  explicit Server(const Config& config);
  ~Server();

  /// Serves until SIGTERM, SIGINT or SHUTDOWN; then stops accepting, commits and answers what is open, and
  /// returns. True if everything that was acknowledged or waited is in the log.
  bool run();
  /// The ports that are listened on, without TLS and with it; 0 where there is none.
  std::uint16_t port() const;
  std::uint16_t tls_port() const;

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace isthmus
