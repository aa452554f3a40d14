// The backend `postgresql://…`: a log that several servers share.
#pragma once

#include <memory>
#include <string>

#include "backend/shared_log.hpp"

namespace isthmus::backend {

/// Connects, checks the server, and makes the schema if it is not there. Throws OpenError with one line that
/// holds no password.
std::unique_ptr<SharedLog> open_postgresql_log(const std::string& conninfo, const BackendOptions& options);

}  // namespace isthmus::backend
