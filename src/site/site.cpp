#include "src/site/site.hpp"

#include <algorithm>

#include "src/site/journal.hpp"

namespace isthmus {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::follower:
      return "follower";
    case Role::candidate:
      return "candidate";
    case Role::writer:
      return "writer";
  }
  return "unknown";
}

Site::Site(backend::SharedLog& log, std::string address, std::string version)
    : log_(log), server_(random_origin()), address_(std::move(address)), version_(std::move(version)) {}

backend::LeaseRow Site::lease() const {
  const std::lock_guard lock(mutex_);
  return lease_;
}

void Site::set_lease(const backend::LeaseRow& lease) {
  const std::lock_guard lock(mutex_);
  lease_ = lease;
}

backend::UpkeepReport Site::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

std::vector<backend::StoredFrontier> Site::marked_frontiers() const {
  const std::lock_guard lock(mutex_);
  return report_.frontiers;
}

std::vector<backend::PeerRow> Site::peers() const {
  const std::lock_guard lock(mutex_);
  return peers_;
}

void Site::set_peers(std::vector<backend::PeerRow> peers) {
  linked_.store(expects_peers_ || !peers.empty(), std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  peers_ = std::move(peers);
}

std::vector<backend::SiteId> Site::peer_ids() const {
  const std::lock_guard lock(mutex_);
  std::vector<backend::SiteId> ids;
  for (const backend::PeerRow& peer : peers_) {
    if (peer.id != 0 && peer.state != kExpelledPeer) ids.push_back(peer.id);
  }
  return ids;
}

bool Site::has_expelled() const {
  const std::lock_guard lock(mutex_);
  return std::any_of(peers_.begin(), peers_.end(),
                     [](const backend::PeerRow& peer) { return peer.state == kExpelledPeer; });
}

std::int64_t Site::clock_offset_of(backend::SiteId site) const {
  const std::lock_guard lock(mutex_);
  for (const backend::PeerRow& peer : peers_) {
    if (peer.id == site) return peer.clock_offset_ms;
  }
  return 0;
}

void Site::set_report(backend::UpkeepReport report) {
  clock_offset_ms_.store(report.clock_offset_ms, std::memory_order_relaxed);
  set_peers(report.peers);
  const std::lock_guard lock(mutex_);
  report_ = std::move(report);
}

}  // namespace isthmus
