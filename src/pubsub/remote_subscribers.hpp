// Who subscribes at other servers, of this site and of others: counts only, as those servers tell them.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <shared_mutex>
#include <string_view>
#include <vector>

#include "src/pubsub/message.hpp"
#include "src/pubsub/string_map.hpp"

namespace isthmus {

/// How many subscribe to a name.
struct SubscriberCount {
  ChannelKind kind = ChannelKind::channel;
  std::string_view name;
  std::uint32_t count = 0;
};

/// The counts of all other servers, by name and server. Thread-safe. Asking costs no lock while nobody
/// subscribes anywhere else.
class RemoteSubscribers {
 public:
  /// What others may make this server remember, all of them together. A name beyond that is not counted.
  struct Limits {
    std::size_t names = 1'000'000;
    std::size_t bytes = 64 << 20;  ///< of the names themselves
  };
  RemoteSubscribers() = default;
  explicit RemoteSubscribers(Limits limits) : limits_(limits) {}

  /// So many subscribe at `server` now, 0 for none. False if the name is beyond the limits.
  bool set(std::int64_t server, const SubscriberCount& count);
  /// That server counts no more.
  void clear(std::int64_t server);

  bool empty() const { return names_.load(std::memory_order_relaxed) == 0; }
  /// How many a message to this channel reaches there.
  std::size_t receivers(bool shard, std::string_view channel) const;
  std::size_t subscribers(ChannelKind kind, std::string_view name) const;
  /// Calls `visit` for each name of that kind that somebody subscribes to there, under the table's lock.
  void for_each_name(ChannelKind kind, const std::function<void(std::string_view)>& visit) const;
  /// Names of all kinds.
  std::size_t names() const { return names_.load(std::memory_order_relaxed); }

 private:
  struct Share {
    std::int64_t server;
    std::uint32_t count;
  };
  struct Entry {
    std::uint64_t total = 0;
    std::vector<Share> shares;
  };
  using Registry = StringMap<Entry>;
  Registry& registry(ChannelKind kind) { return registries_[static_cast<std::size_t>(kind)]; }
  const Registry& registry(ChannelKind kind) const { return registries_[static_cast<std::size_t>(kind)]; }
  void forget_name(std::size_t bytes);
  static void put(Entry& entry, std::int64_t server, std::uint32_t count);

  const Limits limits_{};
  mutable std::shared_mutex mutex_;
  std::array<Registry, kChannelKinds> registries_;
  std::atomic<std::size_t> names_{0};
  std::size_t bytes_ = 0;
};

}  // namespace isthmus
