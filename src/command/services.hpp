// What commands may reach beyond the keyspace and their own connection: one small interface for each concern.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "src/command/settings.hpp"
#include "src/config.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/observe/stats.hpp"
#include "src/pubsub/pubsub.hpp"
#include "src/site/checkpointer.hpp"
#include "src/site/journal.hpp"
#include "src/site/site.hpp"

namespace isthmus {

class Client;
class Forwarder;
class Site;
class TlsContexts;

/// All connections of the server. Thread-safe.
class ClientRegistry {
 public:
  virtual ~ClientRegistry() = default;
  /// Calls `visit` for every connection under the registry's lock, by id. The visit reads only what Client
  /// allows.
  virtual void for_each(const std::function<void(const Client&)>& visit) const = 0;
  /// Changes the texts of a connection that other threads read.
  virtual void update(const std::function<void()>& change) = 0;
  /// Closes the connections for which `choose` says so, the caller's own after its reply. Returns how many.
  virtual std::size_t kill(const std::function<bool(const Client&)>& choose, const Client& caller) = 0;
  virtual std::size_t count() const = 0;
};

/// CLIENT PAUSE. Thread-safe.
struct Pause {
  std::atomic<std::int64_t> until_ms{0};
  std::atomic<bool> writes_only{false};
  bool active(std::int64_t now_ms) const { return until_ms.load(std::memory_order_relaxed) > now_ms; }
};

struct Services {
  const Config& config;
  Settings& settings;
  Keyspace& keyspace;
  HybridClock& clock;
  Journal& journal;
  backend::Log& log;
  PubSub& pubsub;
  ClientRegistry& clients;
  Stats& stats;
  Pause& pause;
  std::function<void()> shutdown;  ///< begins an orderly end of the process; any thread
  std::int64_t started_ms;         ///< milliseconds since the Unix epoch
  std::string run_id;              ///< 40 hexadecimal digits, new for each start
  std::uint16_t port;              ///< the port that is listened on without TLS; 0 if there is none
  Checkpointer* checkpointer;      ///< null on a log that is not durable
  Site* site = nullptr;            ///< null on a log of this server's own: then it is always the writer
  Forwarder* forwarder = nullptr;  ///< to the writer of the site; null likewise
  TlsContexts* tls = nullptr;      ///< null without the options of TLS
  std::uint16_t tls_port = 0;      ///< the port that is listened on with TLS; 0 if there is none
};

/// Whether a message that was sent then (milliseconds since the Unix epoch, by the clock of the site's
/// database) is too old to be handed to anybody; counts it if it is. On a shared log only.
bool is_stale(const Services& services, std::int64_t sent_at_ms);

}  // namespace isthmus
