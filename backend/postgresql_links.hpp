// This site's side of its links in PostgreSQL: the table of peers, subscriptions, and the slots that peers
// have here.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "backend/links.hpp"
#include "backend/postgresql_connection.hpp"

namespace isthmus::backend {

/// The links of the site `site`, whose database `conninfo` names. Connects when it is used first.
std::unique_ptr<Links> open_postgresql_links(const std::string& conninfo, SiteId site,
                                             const std::atomic<bool>* give_up = nullptr);

/// The connection string of a subscription to a peer: what `conninfo` says, and what notices a dead link
/// within seconds unless it says so itself. Throws LinkError, whose text repeats nothing of the string.
std::string link_conninfo(const std::string& conninfo);

/// The table `peer`, by name. Throws PgError.
std::vector<PeerRow> read_peers(PgConnection& connection);

}  // namespace isthmus::backend
