#include "src/pubsub/pubsub.hpp"

#include <mutex>
#include <utility>

#include "src/keyspace/table.hpp"
#include "src/pubsub/glob.hpp"

namespace isthmus {

std::size_t StringHash::operator()(std::string_view text) const { return hash_name(text); }

void PubSub::subscribe(ChannelKind kind, std::string_view name, std::size_t thread) {
  const std::unique_lock lock(mutex_);
  auto& names = registry(kind);
  auto it = names.find(name);
  if (it == names.end()) it = names.emplace(std::string(name), Counts{}).first;
  note(kind, name, it->second.total);
  it->second.by_thread.resize(mailboxes_.size());
  ++it->second.by_thread[thread];
  ++it->second.total;
  totals_[static_cast<std::size_t>(kind)].fetch_add(1);
}

void PubSub::unsubscribe(ChannelKind kind, std::string_view name, std::size_t thread) {
  const std::unique_lock lock(mutex_);
  auto& names = registry(kind);
  const auto it = names.find(name);
  if (it == names.end()) return;
  note(kind, name, it->second.total);
  --it->second.by_thread[thread];
  if (--it->second.total == 0) names.erase(it);
  totals_[static_cast<std::size_t>(kind)].fetch_sub(1);
}

void PubSub::move(const std::vector<Name>& names, std::size_t from, std::size_t to,
                  const std::function<void()>& hand_over) {
  const std::unique_lock lock(mutex_);
  for (const Name& name : names) {
    Counts& counts = registry(name.kind).find(name.text)->second;
    --counts.by_thread[from];
    ++counts.by_thread[to];
  }
  hand_over();
}

std::size_t PubSub::send(const Counts& counts, const MessageRef& message) const {
  for (std::size_t i = 0; i < counts.by_thread.size(); ++i) {
    if (counts.by_thread[i] != 0) mailboxes_[i]->push(message);
  }
  return counts.total;
}

std::size_t PubSub::publish(std::string_view channel, std::string_view payload) {
  if (!has_subscribers()) return 0;
  const std::shared_lock lock(mutex_);
  std::size_t receivers = 0;
  const auto& channels = registry(ChannelKind::channel);
  if (const auto it = channels.find(channel); it != channels.end()) {
    receivers += send(it->second, Message::to_channel(channel, payload));
  }
  for (const auto& [pattern, counts] : registry(ChannelKind::pattern)) {
    if (glob_match(pattern, channel))
      receivers += send(counts, Message::to_pattern(pattern, channel, payload));
  }
  return receivers;
}

std::size_t PubSub::publish_to_shard(std::string_view channel, std::string_view payload) {
  const std::shared_lock lock(mutex_);
  const auto& channels = registry(ChannelKind::shard);
  const auto it = channels.find(channel);
  return it == channels.end() ? 0 : send(it->second, Message::to_shard(channel, payload));
}

std::size_t PubSub::receivers(bool shard, std::string_view channel) const {
  std::size_t total = subscribers(shard ? ChannelKind::shard : ChannelKind::channel, channel);
  if (shard) return total;
  const std::shared_lock lock(mutex_);
  for (const auto& [pattern, counts] : registry(ChannelKind::pattern)) {
    if (glob_match(pattern, channel)) total += counts.total;
  }
  return total;
}

void PubSub::publish_to_monitors(std::string_view line) {
  const std::shared_lock lock(mutex_);
  const auto& monitors = registry(ChannelKind::monitor);
  const auto it = monitors.find(std::string_view{});
  if (it != monitors.end()) send(it->second, Message::to_monitors(line));
}

std::size_t PubSub::subscribers(ChannelKind kind, std::string_view name) const {
  const std::shared_lock lock(mutex_);
  const auto it = registry(kind).find(name);
  return it == registry(kind).end() ? 0 : it->second.total;
}

std::size_t PubSub::patterns() const { return names(ChannelKind::pattern); }

std::size_t PubSub::names(ChannelKind kind) const {
  const std::shared_lock lock(mutex_);
  return registry(kind).size();
}

bool PubSub::has_names() const {
  const std::shared_lock lock(mutex_);
  return !(registry(ChannelKind::channel).empty() && registry(ChannelKind::pattern).empty() &&
           registry(ChannelKind::shard).empty());
}

void PubSub::note_changes() {
  const std::unique_lock lock(mutex_);
  noting_ = true;
}

// Under the lock. Only the first change since the last look says what others were told.
void PubSub::note(ChannelKind kind, std::string_view name, std::uint32_t before) {
  if (!noting_ || too_many_changes_ || kind == ChannelKind::monitor) return;
  auto& changes = changes_[static_cast<std::size_t>(kind)];
  if (changes.contains(name)) return;
  if (changes.size() < kChangesLimit) {
    changes.emplace(std::string(name), before);
    return;
  }
  too_many_changes_ = true;
  for (auto& all : changes_) all = {};
}

std::optional<std::vector<PubSub::NamedCount>> PubSub::take_changes(std::size_t bytes) {
  const std::unique_lock lock(mutex_);
  if (std::exchange(too_many_changes_, false)) return std::nullopt;
  std::vector<NamedCount> taken;
  std::size_t size = 0;
  for (const ChannelKind kind : {ChannelKind::channel, ChannelKind::pattern, ChannelKind::shard}) {
    const Registry& names = registry(kind);
    auto& changes = changes_[static_cast<std::size_t>(kind)];
    for (auto it = changes.begin(); it != changes.end() && size < bytes;) {
      const auto now = names.find(it->first);
      const std::uint32_t count = now == names.end() ? 0 : now->second.total;
      if (count != it->second) {
        size += it->first.size();
        taken.push_back({kind, it->first, count});
      }
      changes.erase(it++);
    }
    // A table that was large once is looked through by everybody who comes after.
    if (changes.empty()) changes = {};
  }
  return taken;
}

std::vector<PubSub::NamedCount> PubSub::all_counts(std::size_t bytes) const {
  const std::shared_lock lock(mutex_);
  std::vector<NamedCount> all;
  std::size_t size = 0;
  for (const ChannelKind kind : {ChannelKind::channel, ChannelKind::pattern, ChannelKind::shard}) {
    for (const auto& [name, counts] : registry(kind)) {
      if (size >= bytes) return all;
      size += name.size();
      all.push_back({kind, name, counts.total});
    }
  }
  return all;
}

std::vector<std::string> PubSub::channels(ChannelKind kind, std::optional<std::string_view> pattern) const {
  const std::shared_lock lock(mutex_);
  std::vector<std::string> names;
  for (const auto& [name, counts] : registry(kind)) {
    if (!pattern || glob_match(*pattern, name)) names.push_back(name);
  }
  return names;
}

}  // namespace isthmus
