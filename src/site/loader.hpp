// Fills the keyspace from the backend at start.
#pragma once

#include "backend/log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/checkpointer.hpp"

namespace isthmus {

/// Puts the checkpoint and the log behind it into the keyspace, moves the clock past every version in them
/// and tells the checkpointer what it does not cover. Logs what it did. Throws backend::OpenError.
void load(backend::Log& log, Keyspace& keyspace, HybridClock& clock, Checkpointer& checkpointer);

}  // namespace isthmus
