// A session with the PostgreSQL database of another site: what it has, and the slot through which we receive.
#pragma once

#include <memory>
#include <string>

#include "backend/links.hpp"

namespace isthmus::backend {

/// The beginning of the names of the slots through which `receiver` receives; the rest is random.
std::string link_slot_prefix(SiteId receiver);

/// Connects to the database that `conninfo` names and checks that it is an Isthmus that `own` can link with.
/// Throws LinkError.
std::unique_ptr<Peer> connect_postgresql_peer(const std::string& conninfo, SiteId own);

}  // namespace isthmus::backend
