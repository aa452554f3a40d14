#include "src/command/sites.hpp"

#include <algorithm>

#include "src/command/help.hpp"
#include "src/observe/logging.hpp"

namespace isthmus {

using Facts = std::vector<std::pair<std::string, std::string>>;

Facts peer_facts(const backend::PeerRow& peer) {
  return {{"state", peer.state},
          {"since", std::to_string(peer.since_ms)},
          {"lag_ms", std::to_string(peer.lag_ms)},
          {"lag_rows", std::to_string(peer.lag_rows)},
          {"slot_bytes", std::to_string(peer.slot_bytes)},
          {"slot_state", peer.slot_state},
          {"clock_offset_ms", std::to_string(peer.clock_offset_ms)},
          {"id", std::to_string(peer.id)},
          {"detail", peer.detail}};
}

Facts sites_facts(const Services& services, std::int64_t now_ms) {
  const Site& site = *services.site;
  const Site::Stats& stats = site.stats();
  // The age of what all sites have: tombstones are kept for so long.
  const std::int64_t stable_ms = site.linked() ? now_ms - HybridClock::milliseconds(site.stable()) : 0;
  return {{"site_name", services.config.site},
          {"site_id", std::to_string(services.log.site())},
          {"sites_linked", std::to_string(site.peers().size())},
          {"stable_ms", std::to_string(site.stable() == 0 ? -1 : std::max<std::int64_t>(stable_ms, 0))},
          {"foreign_rows", std::to_string(stats.foreign_rows.load())},
          {"stale_messages", std::to_string(stats.stale_messages.load())},
          {"repeated_rows", std::to_string(stats.repeated_rows.load())},
          {"conflicts_lost", std::to_string(stats.conflicts_lost.load())},
          {"wild_versions", std::to_string(stats.wild_versions.load())},
          {"gaps_found", std::to_string(stats.gaps_found.load())},
          {"gaps_repaired", std::to_string(stats.gaps_repaired.load())},
          {"reseeds", std::to_string(stats.reseeds.load())}};
}

namespace {

void reply_facts(Call& call, const Facts& facts) {
  call.reply.map(facts.size());
  for (const auto& [name, value] : facts) {
    call.reply.bulk(name);
    call.reply.bulk(value);
  }
}

}  // namespace

// ISTHMUS HELP. What servers say to each other is not for people.
void isthmus_help(Call& call) {
  reply_help(call, "ISTHMUS",
             {"PEER FORGET <name>", "    Give up a site that is not named by --peer any more.", "SITES",
              "    Show this site, and how the link to each other one is."});
}

// ISTHMUS SITES → a map of facts for this site and one for each peer.
void isthmus_sites(Call& call) {
  if (call.services.site == nullptr) {
    call.reply.array(0);
    return;
  }
  const std::vector<backend::PeerRow> peers = call.services.site->peers();
  call.reply.array(1 + peers.size());
  Facts own{{"name", call.services.config.site}};
  for (auto& fact : sites_facts(call.services, call.now_ms())) own.push_back(std::move(fact));
  reply_facts(call, own);
  for (const backend::PeerRow& peer : peers) {
    Facts facts{{"name", peer.name}};
    for (auto& fact : peer_facts(peer)) facts.push_back(std::move(fact));
    reply_facts(call, facts);
  }
}

// ISTHMUS PEER FORGET name → OK. The peer's slot, subscription and claim on tombstones are dropped at this
// site; what came from it stays, and what came from it to one of the other peers only is copied from there.
// It must not be named by --peer any more.
void isthmus_peer(Call& call) {
  if (!call.is(2, "forget")) {
    call.reply.error("ERR unknown subcommand. Try ISTHMUS PEER FORGET name");
    return;
  }
  const std::string_view name = call.args[3];
  const auto& options = call.services.config.peers;
  if (std::any_of(options.begin(), options.end(), [&](const auto& peer) { return peer.name == name; })) {
    call.reply.error("ERR this peer is still named by --peer; restart the servers without it first");
    return;
  }
  if (call.services.site == nullptr) {
    call.reply.error("ERR no such peer");
    return;
  }
  try {
    const auto links = call.services.site->log().open_links();
    for (const backend::PeerRow& peer : links->peers()) {
      if (peer.name != name) continue;
      links->forget_peer(peer);
      log_info("A peer has been forgotten", {{"peer", peer.name}});
      call.reply.ok();
      return;
    }
    call.reply.error("ERR no such peer");
  } catch (const backend::LinkError& error) {
    call.reply.error(std::string("ERR ") + error.what());
  }
}

}  // namespace isthmus
