// The feed of a PostgreSQL log: the stream of all that is committed to it, by logical decoding.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "backend/shared_log.hpp"

namespace isthmus::backend {

/// A feed of the log of site `site` in the database that `conninfo` names (whatever libpq takes). Connects to
/// nothing before Feed::begin.
std::unique_ptr<Feed> open_postgresql_feed(const std::string& conninfo, SiteId site,
                                           const std::atomic<bool>* give_up = nullptr);

}  // namespace isthmus::backend
