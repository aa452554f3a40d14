// What other commands need of transactions.
#pragma once

#include "src/command/call.hpp"

namespace isthmus {

/// Forgets MULTI with its queue, and every WATCH (RESET, DISCARD). The call must hold no shard lock.
void discard_transaction(Call& call);

}  // namespace isthmus
