#include "src/pubsub/remote_subscribers.hpp"

#include <algorithm>
#include <mutex>

#include "src/pubsub/glob.hpp"

namespace isthmus {

void RemoteSubscribers::put(Entry& entry, std::int64_t server, std::uint32_t count) {
  const auto share = std::find_if(entry.shares.begin(), entry.shares.end(),
                                  [server](const Share& one) { return one.server == server; });
  if (share != entry.shares.end()) {
    entry.total -= share->count;
    if (count == 0) {
      entry.shares.erase(share);
    } else {
      share->count = count;
    }
  } else if (count != 0) {
    entry.shares.push_back({server, count});
  }
  entry.total += count;
}

void RemoteSubscribers::forget_name(std::size_t bytes) {
  names_.fetch_sub(1);
  bytes_ -= bytes;
}

bool RemoteSubscribers::set(std::int64_t server, const SubscriberCount& count) {
  const std::unique_lock lock(mutex_);
  Registry& names = registry(count.kind);
  auto it = names.find(count.name);
  if (it == names.end()) {
    if (count.count == 0) return true;
    if (names_.load() >= limits_.names || bytes_ + count.name.size() > limits_.bytes) return false;
    it = names.emplace(std::string(count.name), Entry{}).first;
    names_.fetch_add(1);
    bytes_ += count.name.size();
  }
  put(it->second, server, count.count);
  if (it->second.shares.empty()) {
    forget_name(it->first.size());
    names.erase(it);
  }
  return true;
}

void RemoteSubscribers::clear(std::int64_t server) {
  const std::unique_lock lock(mutex_);
  for (Registry& names : registries_) {
    boost::unordered::erase_if(names, [&](auto& item) {
      put(item.second, server, 0);
      if (!item.second.shares.empty()) return false;
      forget_name(item.first.size());
      return true;
    });
  }
}

std::size_t RemoteSubscribers::receivers(bool shard, std::string_view channel) const {
  if (empty()) return 0;
  const std::shared_lock lock(mutex_);
  const Registry& names = registry(shard ? ChannelKind::shard : ChannelKind::channel);
  const auto it = names.find(channel);
  std::size_t total = it == names.end() ? 0 : it->second.total;
  if (shard) return total;
  for (const auto& [pattern, entry] : registry(ChannelKind::pattern)) {
    if (glob_match(pattern, channel)) total += entry.total;
  }
  return total;
}

std::size_t RemoteSubscribers::subscribers(ChannelKind kind, std::string_view name) const {
  if (empty()) return 0;
  const std::shared_lock lock(mutex_);
  const auto it = registry(kind).find(name);
  return it == registry(kind).end() ? 0 : it->second.total;
}

void RemoteSubscribers::for_each_name(ChannelKind kind,
                                      const std::function<void(std::string_view)>& visit) const {
  if (empty()) return;
  const std::shared_lock lock(mutex_);
  for (const auto& [name, entry] : registry(kind)) visit(name);
}

}  // namespace isthmus
