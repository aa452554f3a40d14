// The backend `memory:`: a log that keeps nothing.
#pragma once

#include <memory>

#include "backend/log.hpp"

namespace isthmus::backend {

/// A log whose functions succeed and do nothing; durable() is false, so callers need not call them at all.
std::unique_ptr<Log> make_memory_log();

}  // namespace isthmus::backend
