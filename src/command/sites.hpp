// ISTHMUS SITES and ISTHMUS PEER, and what INFO says of the linked sites.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "src/command/call.hpp"

namespace isthmus {

/// What is told of a peer, by name: the same in INFO and in ISTHMUS SITES. No secrets.
std::vector<std::pair<std::string, std::string>> peer_facts(const backend::PeerRow& peer);
/// What is told of this site as one of several.
std::vector<std::pair<std::string, std::string>> sites_facts(const Services& services, std::int64_t now_ms);

void isthmus_help(Call& call);
void isthmus_sites(Call& call);
void isthmus_peer(Call& call);

}  // namespace isthmus
