// What commands know of a connection.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_set.hpp>

#include "backend/row.hpp"
#include "src/keyspace/shard.hpp"
#include "src/pubsub/pubsub.hpp"

namespace isthmus {

struct Command;
struct ForwardedCommand;
struct ForwardingPeer;

/// A command that waits for EXEC, with its own copy of the arguments.
struct QueuedCommand {
  const Command* command;
  std::vector<std::string> args;
};

/// A state of a key that another server can compare with its own. Absent, or expired: zeros.
struct KeyFingerprint {
  backend::Version version = 0;
  std::int64_t deadline_ms = 0;
  bool operator==(const KeyFingerprint&) const = default;
};

/// A key under WATCH.
struct WatchedKey {
  std::uint8_t db;
  std::string name;
  bool was_expired;
  KeyFingerprint fingerprint;  ///< as it was at WATCH; on a log that several servers share only
};

/// CLIENT REPLY.
enum class ReplyMode : std::uint8_t { on, off, skip_next, skip };

/// The state of a connection. Owned and changed by its I/O thread; what CLIENT LIST shows to other threads is
/// atomic or guarded by the registry's lock (`name`, `library`, `library_version`).
class Client {
 public:
  virtual ~Client() = default;

  /// Adds or removes a subscription of this connection. False if there was nothing to change.
  virtual bool subscribe(ChannelKind kind, std::string_view name) = 0;
  virtual bool unsubscribe(ChannelKind kind, std::string_view name) = 0;

  const boost::unordered_flat_set<std::string, StringHash, StringEqual>& subscriptions(
      ChannelKind kind) const {
    return subscriptions_[static_cast<std::size_t>(kind)];
  }
  /// Channels and patterns: what the last number of a subscribe reply counts. Shard channels count for
  /// themselves.
  std::size_t subscription_count() const { return subscriptions_[0].size() + subscriptions_[1].size(); }
  std::size_t shard_subscription_count() const { return subscriptions_[2].size(); }
  bool in_subscribed_mode() const { return subscription_count() + shard_subscription_count() != 0; }

  std::uint64_t id = 0;
  std::atomic<std::size_t> thread{0};  ///< number of its I/O thread
  std::string address;                 ///< peer, ip:port
  std::string local_address;           ///< ip:port
  int fd = -1;                         ///< for show: the socket's number, even when it is closed
  std::int64_t created_ms = 0;         ///< by the steady clock, as all moments here

  int protocol = 2;
  bool authenticated = false;
  ReplyMode reply_mode = ReplyMode::on;
  bool close_after_reply = false;
  std::int64_t sleep_until_ms = 0;  ///< DEBUG SLEEP: nothing more is read before that time

  bool in_multi = false;
  bool in_exec = false;       ///< its queued commands are being evaluated
  bool multi_failed = false;  ///< a command was refused while queueing: EXEC will abort
  std::vector<QueuedCommand> queue;
  std::size_t queue_bytes = 0;
  std::vector<WatchedKey> watched;
  std::shared_ptr<WatchFlag> watch_flag;

  backend::Seq last_gate = 0;     ///< highest seq that a reply of this connection waits for
  backend::Seq last_message = 0;  ///< the place of its last message in the log that others read

  // Several servers of a site:
  bool awaits_forwarded = false;  ///< forwarded commands are unanswered: nothing is evaluated here meanwhile
  /// EXEC found under its locks that this server is not the writer, and has done nothing.
  bool must_forward = false;
  /// Not null while a command is evaluated for a client of another server.
  ForwardedCommand* forwarded = nullptr;
  /// Not null if the connection is another server's, which forwards commands over it.
  std::shared_ptr<ForwardingPeer> peer;

  // Guarded by the registry's lock.
  std::string name;
  std::string library;
  std::string library_version;

  // Shown by CLIENT LIST.
  std::atomic<std::uint8_t> db{0};
  std::atomic<std::int64_t> last_active_ms{0};
  std::atomic<const Command*> last_command{nullptr};
  std::atomic<std::uint32_t> shown_subscriptions{0}, shown_patterns{0}, shown_shard_subscriptions{0};
  std::atomic<std::int32_t> shown_multi{-1};
  std::atomic<std::uint32_t> shown_watched{0};
  std::atomic<std::uint64_t> input_bytes{0}, output_bytes{0}, queued_messages{0};
  std::atomic<std::uint64_t> reply_bytes{0};  ///< of output_bytes what is not a shared message
  std::atomic<int> shown_protocol{2};
  std::atomic<bool> monitors{false};
  std::atomic<bool> no_evict{false}, no_touch{false};
  std::atomic<bool> killed{false};

 protected:
  std::array<boost::unordered_flat_set<std::string, StringHash, StringEqual>, kChannelKinds> subscriptions_;
};

}  // namespace isthmus
