#include "src/site/net_change.hpp"

#include <vector>

namespace isthmus {

namespace {

// The event of a key that has come to be, or been written.
std::string_view written(const Node& node) {
  return node.is_hash() ? "hset" : node.is_set() ? "sadd" : "set";
}

}  // namespace

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
      raise(written(*node), key.db, key.name);
    } else if (existed) {
      raise("del", key.db, key.name);
    }
  }
  existed_.clear();
}

namespace {

// What has become of a hash or a set that was one before as well.
std::string_view field_event(const Node& before, const Node& after) {
  bool is_written = false;
  std::uint32_t kept = 0;
  hash_for_each(after, false, [&](const FieldView& field) {
    const auto known = hash_find(before, field.name);
    if (known) ++kept;
    is_written |= !known || known->value != field.value || known->version != field.version;
  });
  if (is_written) return written(after);
  return kept == hash_size(before) ? "" : after.is_set() ? "srem" : "hdel";
}

std::string_view event_of(const Node* before, const Node* after) {
  if (before != nullptr && !holds_value(*before)) before = nullptr;
  if (after == nullptr || !holds_value(*after)) return before == nullptr ? "" : "del";
  std::string_view event = written(*after);
  if (before == nullptr || before->is_hash() != after->is_hash() || before->is_set() != after->is_set())
    return event;
  if (after->has_fields()) {
    event = field_event(*before, *after);
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
