// Who subscribes to what, over all I/O threads, and the way of a message to those threads.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "src/pubsub/message.hpp"
#include "src/pubsub/remote_subscribers.hpp"
#include "src/pubsub/string_map.hpp"

namespace isthmus {

/// Where an I/O thread takes its messages. `push` is called by any thread, in the order of publishing, and
/// must not block.
class Mailbox {
 public:
  virtual ~Mailbox() = default;
  virtual void push(MessageRef message) = 0;
};

/// The registry of subscriptions of this server. Each I/O thread keeps its own list of subscribers; here
/// stands only how many it has. Thread-safe. A message published after `subscribe` has returned reaches that
/// thread.
class PubSub {
 public:
  /// `mailboxes[i]` is that of I/O thread i; they outlive this.
  void set_mailboxes(std::vector<Mailbox*> mailboxes) { mailboxes_ = std::move(mailboxes); }

  void subscribe(ChannelKind kind, std::string_view name, std::size_t thread);
  void unsubscribe(ChannelKind kind, std::string_view name, std::size_t thread);

  /// A subscriber of these names goes from one thread to another. `hand_over` is called while no message can
  /// be published: what came before is in the mailbox of `from`, what comes after goes to `to`. It must not
  /// call back.
  struct Name {
    ChannelKind kind;
    std::string_view text;
  };
  void move(const std::vector<Name>& names, std::size_t from, std::size_t to,
            const std::function<void()>& hand_over);

  /// Hands the message to all subscribers of the channel and of matching patterns; returns how many there
  /// are.
  std::size_t publish(std::string_view channel, std::string_view payload);
  std::size_t publish_to_shard(std::string_view channel, std::string_view payload);
  /// How many a message would reach now.
  std::size_t receivers(bool shard, std::string_view channel) const;
  void publish_to_monitors(std::string_view line);
  bool has_monitors() const { return totals_[3].load(std::memory_order_relaxed) != 0; }
  /// False while a published message could reach nobody.
  bool has_subscribers() const {
    return totals_[0].load(std::memory_order_relaxed) + totals_[1].load(std::memory_order_relaxed) != 0;
  }

  /// PUBSUB NUMSUB and SHARDNUMSUB for one name.
  std::size_t subscribers(ChannelKind kind, std::string_view name) const;
  /// PUBSUB NUMPAT: patterns that have a subscriber, each once.
  std::size_t patterns() const;
  /// Names of that kind that have a subscriber, each once.
  std::size_t names(ChannelKind kind) const;
  /// Whether anybody subscribes to anything.
  bool has_names() const;

  // For telling other servers. One thread.
  /// From now on names whose number of subscribers changes are noted.
  void note_changes();
  struct NamedCount {
    ChannelKind kind;
    std::string name;
    std::uint32_t count;
  };
  /// Names whose number of subscribers is another one than when they were last taken, of about `bytes` of
  /// names at most; the rest comes with the next call. Nothing if too many have changed to be noted: then all
  /// counts are to be told.
  std::optional<std::vector<NamedCount>> take_changes(std::size_t bytes);
  /// All names with subscribers, of about `bytes` of names at most.
  std::vector<NamedCount> all_counts(std::size_t bytes) const;
  /// Who subscribes at other servers. What is said above counts this server only.
  RemoteSubscribers& others() { return others_; }
  const RemoteSubscribers& others() const { return others_; }
  /// PUBSUB CHANNELS and SHARDCHANNELS: names with a subscriber that match the pattern, or all.
  std::vector<std::string> channels(ChannelKind kind, std::optional<std::string_view> pattern) const;

 private:
  struct Counts {
    std::vector<std::uint32_t> by_thread;
    std::uint32_t total = 0;
  };
  using Registry = StringMap<Counts>;
  Registry& registry(ChannelKind kind) { return registries_[static_cast<std::size_t>(kind)]; }
  const Registry& registry(ChannelKind kind) const { return registries_[static_cast<std::size_t>(kind)]; }
  std::size_t send(const Counts& counts, const MessageRef& message) const;
  void note(ChannelKind kind, std::string_view name, std::uint32_t before);

  // Names that have changed, with what others were told of them; a client may change as many as it likes
  // before somebody takes them.
  static constexpr std::size_t kChangesLimit = 200'000;

  mutable std::shared_mutex mutex_;
  std::array<Registry, kChannelKinds> registries_;
  std::array<std::atomic<std::uint64_t>, kChannelKinds> totals_{};
  std::vector<Mailbox*> mailboxes_;
  bool noting_ = false, too_many_changes_ = false;
  std::array<StringMap<std::uint32_t>, kChannelKinds> changes_;
  RemoteSubscribers others_;
};

}  // namespace isthmus
