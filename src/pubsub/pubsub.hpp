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

#include <boost/unordered/unordered_flat_map.hpp>

#include "src/pubsub/message.hpp"

namespace isthmus {

/// Lets maps of strings be asked with a view.
struct StringHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const;
};
struct StringEqual {
  using is_transparent = void;
  bool operator()(std::string_view a, std::string_view b) const { return a == b; }
};
template <class Value>
using StringMap = boost::unordered_flat_map<std::string, Value, StringHash, StringEqual>;

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

  mutable std::shared_mutex mutex_;
  std::array<Registry, kChannelKinds> registries_;
  std::array<std::atomic<std::uint64_t>, kChannelKinds> totals_{};
  std::vector<Mailbox*> mailboxes_;
};

}  // namespace isthmus
