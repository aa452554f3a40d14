// What became of keys while a server was away, told as one event for each.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "src/keyspace/keyspace.hpp"
#include "src/pubsub/pubsub.hpp"

namespace isthmus {

/// Gathers the keys that rows too old for events of their own have changed, and tells afterwards the
/// difference that all of them made: `del` for a key that is gone, `set` or `hset` for one that is there. Not
/// thread-safe.
class NetChange {
 public:
  /// Raises an event: its name, the database, the key.
  using Raise = std::function<void(std::string_view event, std::uint8_t db, std::string_view key)>;

  /// A row has changed this key, which was there before it or not.
  void changed(const Key& key, bool existed);
  bool empty() const { return existed_.empty(); }
  /// Raises the events, each under its key's lock, and forgets the keys.
  void tell(Keyspace& keyspace, std::int64_t now_ms, const Raise& raise);

 private:
  StringMap<bool> existed_;  // the database's number as one byte, then the key
};

/// Raises an event for each key in which `after` differs from `before`. Needs all locks of `before`; nobody
/// else may know `after`.
void tell_difference(Keyspace& before, Keyspace& after, const NetChange::Raise& raise);

}  // namespace isthmus
