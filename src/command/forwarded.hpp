// Commands that go to the writer of the site, and those that come from other servers. See ARCHITECTURE.md,
// "Several servers".
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "src/command/dispatcher.hpp"
#include "src/site/forward_queue.hpp"
#include "src/site/requesters.hpp"

namespace isthmus {

/// A command that is being evaluated for a client of another server.
struct ForwardedCommand {
  backend::OriginId requester = 0;
  std::uint64_t number = 0;  ///< as the requester counts
  std::uint8_t db = 0;       ///< selected before
  // When it has been evaluated: its effects, and all that its reply shows, are up to `seq` of `lease`.
  backend::OriginId lease = 0;
  backend::Seq seq = 0;
};

/// A client of another server, as commands see it.
class ProxyClient final : public Client {
 public:
  bool subscribe(ChannelKind, std::string_view) override { return false; }
  bool unsubscribe(ChannelKind, std::string_view) override { return false; }
};

/// What a connection is that passed ISTHMUS HELLO.
struct ForwardingPeer {
  backend::OriginId server = 0;
  std::uint64_t epoch = 0;
  std::shared_ptr<Requester> requester;
  std::int64_t waits_since_ms = 0;  ///< for the feed; 0: it does not
  backend::Position waits_for = 0;  ///< for which position of it
  ProxyClient proxy;
};

/// The key as another server can compare it. Its shard is locked.
KeyFingerprint fingerprint(Keyspace& keyspace, const Key& key, std::int64_t now_ms);

/// Whether EXEC may take this command to another server: it needs nothing of the connection or of this
/// server.
bool can_be_forwarded(const Command& command);

/// The request as the writer gets it, after dispatch() has said that it must go there. Of an EXEC its queue
/// and its watched keys; the transaction is the caller's to end.
ForwardRequest forward_request(const Services& services, const Client& client,
                               std::span<const std::string_view> args);

/// ISTHMUS FORWARD number db protocol position command …: evaluates the command as the writer. Replies with
/// [lease, seq, db afterwards, reply]. An error instead means that nothing was done and the connection ends.
Outcome evaluate_forwarded(Services& services, Client& connection, std::span<const std::string_view> args,
                           resp::Writer& reply, std::int64_t now_ms);

/// The answer to a forwarded command that has been undone: `error` is the reply as its client gets it.
std::string forwarded_error(std::string_view error);

/// For the dispatcher, under the locks: puts the reply into the log, if the command has rows, and notes what
/// the reply depends on.
void note_forwarded_answer(Call& call, std::string_view reply);

}  // namespace isthmus
