// Appends to a log that went back in time what the memory still holds.
#pragma once

#include <cstdint>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// Reads the state from the log, compares it with `memory`, and appends rows for what the log lacks, in
/// transactions of at most 10,000 rows (every feed decodes a transaction as a whole). `first` holds the lease
/// row whose origin the rows get, and goes first. The caller holds the site's lock, nobody changes the
/// memory. Returns how many rows were appended besides the lease row. The committing thread. Throws
/// backend::AppendError.
std::uint64_t append_difference(backend::SharedLog& log, Keyspace& memory, HybridClock& clock,
                                backend::RowBatch& first);

}  // namespace isthmus
