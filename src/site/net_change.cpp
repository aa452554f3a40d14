#include "src/site/net_change.hpp"

#include <vector>

namespace isthmus {

void NetChange::changed(const Key& key, bool existed) {
  std::string name(1, static_cast<char>(key.db));
  name.append(key.name);
  existed_.try_emplace(std::move(name), existed);
}

void NetChange::tell(Keyspace& keyspace, std::int64_t now_ms, const Raise& raise) {
  for (const auto& [name, existed] : existed_) {
    const Key key(static_cast<std::uint8_t>(name[0]), std::string_view(name).substr(1));
    const std::lock_guard lock(keyspace.shard(key).mutex);
    const Node* node = keyspace.find(key, now_ms);
    if (node != nullptr) {
      raise(node->is_hash() ? "hset" : "set", key.db, key.name);
    } else if (existed) {
      raise("del", key.db, key.name);
    }
  }
  existed_.clear();
}

namespace {

// What has become of a hash that was one before as well.
std::string_view hash_event(const Node& before, const Node& after) {
  bool written = false;
  std::uint32_t kept = 0;
  hash_for_each(after, false, [&](const FieldView& field) {
    const auto known = hash_find(before, field.name);
    if (known) ++kept;
    written |= !known || known->value != field.value || known->version != field.version;
  });
  if (written) return "hset";
  return kept < hash_size(before) ? "hdel" : "";
}

std::string_view event_of(const Node* before, const Node* after) {
  if (before != nullptr && !holds_value(*before)) before = nullptr;
  if (after == nullptr || !holds_value(*after)) return before == nullptr ? "" : "del";
  std::string_view event = after->is_hash() ? "hset" : "set";
  if (before == nullptr || before->is_hash() != after->is_hash()) return event;
  if (after->is_hash()) {
    event = hash_event(*before, *after);
  } else if (before->value() == after->value() && before->version == after->version) {
    event = {};
  }
  return event.empty() && before->deadline() != after->deadline() ? "expire" : event;
}

}  // namespace

void tell_difference(Keyspace& before, Keyspace& after, const NetChange::Raise& raise) {
  for (std::size_t i = 0; i < kShards; ++i) {
    for (std::uint8_t db = 0; db < kDatabaseCount; ++db) {
      const auto tell = [&](std::string_view name) {
        const Key key(db, name);
        const std::string_view event = event_of(before.find_any(key), after.find_any(key));
        if (!event.empty()) raise(event, db, name);
      };
      after.shards()[i].tables[db].for_each([&](const Node& node) { tell(node.name()); });
      before.shards()[i].tables[db].for_each([&](const Node& node) {
        if (after.find_any({db, node.name()}) == nullptr) tell(node.name());
      });
    }
  }
}

}  // namespace isthmus
