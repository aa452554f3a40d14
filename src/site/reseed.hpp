// Appends to a log that went back in time what a server's memory still holds.
#pragma once

#include "backend/shared_log.hpp"

namespace isthmus {

/// Appends `rows`, which have no origin and seq yet, as copied ones of `origin` behind its seq `last`. A row
/// without a site becomes one of the own site. In transactions of about 10,000 rows (every feed decodes a
/// transaction as a whole). The committing thread. Throws backend::AppendError; what has been appended by
/// then does no harm when it is appended again.
void append_seeds(backend::SharedLog& log, const backend::RowBatch& rows, backend::OriginId origin,
                  backend::Seq last);

}  // namespace isthmus
