#include "src/site/net_change.hpp"

#include "src/keyspace/difference.hpp"

namespace isthmus {

void NetChange::before(Keyspace& keyspace, const Key& key, std::int64_t now_ms) {
  std::string name(1, static_cast<char>(key.db));
  name.append(key.name);
  if (existed_.contains(name)) return;
  existed_.emplace(std::move(name), keyspace.find(key, now_ms) != nullptr);
}

void NetChange::tell(Keyspace& keyspace, std::int64_t now_ms, const Raise& raise) {
  for (const auto& [name, existed] : existed_) {
    const Key key(static_cast<std::uint8_t>(name[0]), std::string_view(name).substr(1));
    std::string_view event;
    {
      const std::lock_guard lock(keyspace.shard(key).mutex);
      const Node* node = keyspace.find(key, now_ms);
      if (node != nullptr) {
        event = node->is_hash() ? "hset" : "set";
      } else if (existed) {
        event = "del";
      }
    }
    if (!event.empty()) raise(event, key.db, key.name);
  }
  existed_.clear();
}

namespace {

std::string_view event_of(backend::RowKind kind) {
  switch (kind) {
    case backend::RowKind::del:
      return "del";
    case backend::RowKind::hset:
    case backend::RowKind::hcreate:
      return "hset";
    case backend::RowKind::hdel:
      return "hdel";
    case backend::RowKind::expire:
      return "expire";
    default:
      return "set";
  }
}

}  // namespace

void tell_difference(Keyspace& before, Keyspace& after, const NetChange::Raise& raise) {
  std::string_view last;
  for_each_difference(
      after, before, [] { return backend::Version{1}; },
      [&](const backend::Row& row) {
        // The last row of a key says what it is now; a deletion in front of it only made room.
        last = event_of(row.kind);
        if (row.group_end) raise(last, row.db, row.key);
      });
}

}  // namespace isthmus
