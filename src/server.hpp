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
  /// The port that is listened on.
  std::uint16_t port() const;

 private:
  class Parts;
  std::unique_ptr<Parts> parts_;
};

}  // namespace isthmus
