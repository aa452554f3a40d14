// The servers whose commands this one evaluates as the writer, and which of their connections counts.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>

#include "backend/row.hpp"

namespace isthmus {

/// Another server of the site that forwards commands. A command of a connection is evaluated while `mutex` is
/// held and only if `epoch` is that of the connection; whoever raises `epoch` under the mutex therefore knows
/// that everything of older connections has been evaluated or never will be.
struct Requester {
  std::mutex mutex;  ///< before the shards' locks
  std::uint64_t epoch = 0;
};

/// Thread-safe.
class Requesters {
 public:
  /// The requester of that id, made if it is new. Lives as long as somebody holds it, and usually until the
  /// end: a connection that the network delays must not be taken for a new one.
  std::shared_ptr<Requester> find(backend::OriginId server);

 private:
  std::mutex mutex_;
  std::map<backend::OriginId, std::shared_ptr<Requester>> requesters_;
};

}  // namespace isthmus
