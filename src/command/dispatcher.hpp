// From a request to its reply: the gates that every command passes, in Redis's order, and its evaluation
// under locks.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "resp/writer.hpp"
#include "src/command/call.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// What became of a request.
struct Outcome {
  /// Nothing was done or replied; ask again later: CLIENT PAUSE, or what must wait for forwarded commands.
  bool postponed = false;
  backend::Seq gate = 0;  ///< the reply may leave when this seq is committed; 0: at once
  bool forward = false;   ///< nothing was done or replied: the writer of the site must evaluate it
};

/// Evaluates one request of the client and appends its reply. Any I/O thread; `now_ms` is milliseconds since
/// the Unix epoch. While the client awaits forwarded commands, nothing else than another one to forward
/// passes; a request that is refused is still replied to at once.
Outcome dispatch(Services& services, Client& client, std::span<const std::string_view> args,
                 resp::Writer& reply, std::int64_t now_ms);

/// Runs the command's function and counts it; the locks are held. For the dispatcher and EXEC.
void run(Call& call);

/// Shows the request at hand, which another server evaluates, to the connections in MONITOR; of an EXEC the
/// queued commands, too.
void show_forwarded_to_monitors(Services& services, const Client& client,
                                std::span<const std::string_view> args);

/// Whether a command with effects must be evaluated by another server. Certain only while a shard is locked.
inline bool is_elsewhere(const Services& services) {
  return services.site != nullptr && !services.site->is_writer();
}

/// Whether the client may send more than AUTH and its like. Without a password everybody may, also who came
/// while there was one.
inline bool is_admitted(const Services& services, const Client& client) {
  return client.authenticated || !services.settings.has_password();
}

/// Adds the shards of the command's keys, or all of them.
void add_shards(const Command& command, std::span<const std::string_view> args, ShardSet& set);

/// Forgets MULTI with its queue, and every WATCH. Takes shard locks one by one, so hold none.
void end_transaction(Services& services, Client& client);

/// Drops the connection's WATCHes. Takes the shard locks one by one, so hold none.
void forget_watches(Services& services, Client& client);

}  // namespace isthmus
