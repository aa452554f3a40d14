#include "src/site/link_keeper.hpp"

#include <algorithm>
#include <utility>

#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

using backend::LinkError;
using backend::PeerRow;
using std::chrono::microseconds;
using std::chrono::milliseconds;

// Tombstones live a few of these longer than the slowest link, and a lost end of a stream shows after one.
constexpr milliseconds kRound{1000};
// A peer that has not applied so much WAL is falling behind, if we make so many commits in a round.
constexpr std::uint64_t kBehindBytes = 1U << 20U;
constexpr std::uint64_t kManyCommits = 200;
// Between the beginnings of two commits then.
constexpr microseconds kShortInterval{1000}, kLongInterval{4000};

}  // namespace

LinkKeeper::LinkKeeper(Site& site, Journal& journal, Keyspace& keyspace, HybridClock& clock, FeedReader& feed,
                       std::vector<PeerOption> peers, std::int64_t tombstone_retention_ms)
    : options_(std::move(peers)),
      freeze_(site, feed),
      parts_{site, journal, keyspace, clock, feed, freeze_, tombstone_retention_ms} {}

void LinkKeeper::start() {
  thread_ = std::thread([this] { run(); });
}

void LinkKeeper::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_asked_.notify_all();
  if (thread_.joinable()) thread_.join();
  end_links();
}

void LinkKeeper::end_links() {
  for (const auto& [name, link] : links_) link.second->ask_stop();
  links_.clear();
}

bool LinkKeeper::pause(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stop_asked_.wait_for(lock, time, [this] { return stopping_; });
}

void LinkKeeper::run() {
  while (pause(kRound)) {
    try {
      round();
      trouble_.clear();
    } catch (const LinkError& error) {
      session_.reset();
      if (trouble_ != error.what() && !parts_.site.ending())
        log_warning("The links have to wait", {{"cause", error.what()}});
      trouble_ = error.what();
    }
  }
}

void LinkKeeper::round() {
  if (!parts_.site.is_writer()) {
    end_links();
    peers_.clear();
    expelled_.clear();
    joined_.clear();
    session_.reset();
    prepared_ = false;
    commit_interval_ = microseconds{0};
    parts_.journal.set_commit_interval(commit_interval_);
    parts_.site.set_own_rows_missing(false);
    return;
  }
  if (session_ == nullptr) session_ = parts_.site.log().open_links();
  if (!prepared_) add_options();
  prepared_ = true;
  follow_peers();
  compare_behind_joins();
  if (parts_.site.linked()) log_frontier();
  set_pace();
}

void LinkKeeper::add_options() {
  const std::vector<PeerRow> known = session_->peers();
  for (const PeerOption& option : options_) {
    const auto it = std::find_if(known.begin(), known.end(),
                                 [&](const PeerRow& peer) { return peer.name == option.name; });
    PeerRow row;
    if (it != known.end()) row = *it;
    if (it != known.end() && row.conninfo == option.conninfo) continue;
    row.name = option.name;
    row.conninfo = option.conninfo;
    if (row.state.empty()) row.state = "new";
    if (row.since_ms == 0) row.since_ms = wall_clock_ms();
    session_->put_peer(row);
  }
  if (options_.empty() && known.empty()) return;
  for (const std::string& line : session_->check()) log_warning("Links: " + line);
}

void LinkKeeper::follow_peers() {
  const std::vector<PeerRow> peers = session_->peers();
  parts_.site.set_peers(peers);
  // What that site gave one of us only nobody passes on: the others find it in that one's state.
  if (note_given_up(peers)) {
    for (const auto& [name, link] : links_) link.second->copy_again();
  }
  std::erase_if(links_, [&](const auto& link) {
    return link.second.second->is_forgotten() ||
           std::none_of(peers.begin(), peers.end(), [&](const PeerRow& peer) {
             return peer.name == link.first && peer.conninfo == link.second.first;
           });
  });
  for (const PeerRow& peer : peers) {
    auto& [conninfo, link] = links_[peer.name];
    if (link != nullptr) continue;
    conninfo = peer.conninfo;
    link = std::make_unique<Link>(parts_, peer);
    const auto named = [&](const PeerOption& option) { return option.name == peer.name; };
    if (std::none_of(options_.begin(), options_.end(), named)) {
      log_warning("A peer is in the database and not in the options; ISTHMUS PEER FORGET removes it",
                  {{"peer", peer.name}});
    }
  }
}

// Whether a site has been forgotten or expelled since the last round. One that was expelled, comes back and
// cannot be linked counts once, until its link is up.
bool LinkKeeper::note_given_up(const std::vector<PeerRow>& peers) {
  bool news = false;
  for (const PeerRow& before : peers_) {
    const bool stays = before.id == 0 || std::any_of(peers.begin(), peers.end(), [&](const PeerRow& peer) {
                         return peer.name == before.name && peer.id == before.id;
                       });
    news |= !stays;
  }
  for (const PeerRow& peer : peers) {
    if (peer.state == "up") expelled_.erase(peer.id);
    if (peer.id != 0 && peer.state == kExpelledPeer)
      news |= expelled_.insert(peer.id).second && !peers_.empty();
  }
  peers_ = peers;
  return news;
}

// What a site brings that nobody waited for may be older than deletions which some of us have forgotten and
// others have not. Once another peer has folded it as well, its state is compared with ours.
void LinkKeeper::compare_behind_joins() {
  for (const PeerRow& peer : peers_) {
    const auto link = links_.find(peer.name);
    if (link == links_.end()) continue;
    if (const backend::Version up_to = link->second.second->take_joined(); up_to != 0)
      joined_[peer.id] = {up_to, {peer.id}};
  }
  if (joined_.empty()) return;
  const std::vector<backend::StoredFrontier> said = parts_.feed.frontiers();
  for (auto it = joined_.begin(); it != joined_.end();) {
    it = compare_behind(it->first, it->second, said) ? joined_.erase(it) : std::next(it);
  }
}

// True if nobody is left to be compared with.
bool LinkKeeper::compare_behind(backend::SiteId site, Joined& joined,
                                const std::vector<backend::StoredFrontier>& said) {
  bool done = true;
  for (const PeerRow& peer : peers_) {
    if (peer.id == 0 || joined.compared.contains(peer.id)) continue;
    const auto link = links_.find(peer.name);
    const bool has_all = std::ranges::any_of(said, [&](const backend::StoredFrontier& frontier) {
      return frontier.site == peer.id && frontier.of == site && frontier.version >= joined.up_to;
    });
    done &= has_all;
    if (!has_all || link == links_.end()) continue;
    link->second.second->copy_again();
    joined.compared.insert(peer.id);
  }
  return done;
}

// A peer's PostgreSQL applies commit by commit, and each costs it as much as some twenty rows. While one that
// is connected falls behind, our commits become fewer and larger; nobody waits longer than the peer makes its
// own clients wait anyway.
void LinkKeeper::set_pace() {
  const std::uint64_t commits = parts_.journal.stats().commits.load(std::memory_order_relaxed);
  const std::uint64_t done = commits - std::exchange(commits_, commits);
  const bool behind =
      parts_.site.linked() && std::ranges::any_of(session_->kept_slots(), [](const auto& slot) {
        return slot.second.active && slot.second.behind > kBehindBytes;
      });
  if (behind && done > kManyCommits) {
    commit_interval_ = std::clamp(commit_interval_ * 2, kShortInterval, kLongInterval);
  } else if (!behind) {
    commit_interval_ = commit_interval_ > kShortInterval ? commit_interval_ / 2 : microseconds{0};
  }
  parts_.journal.set_commit_interval(commit_interval_);
}

// In this site's own stream, behind everything that it speaks of.
void LinkKeeper::log_frontier() {
  // Our database may have lost rows that a peer still has: until all have been asked, this site cannot say
  // that it has all of its own, and deletions must not be forgotten.
  const auto knows = [](const auto& link) { return link.second.second->knows_own_rows(); };
  const bool missing = !std::all_of(links_.begin(), links_.end(), knows);
  parts_.site.set_own_rows_missing(missing);
  if (missing || !parts_.journal.available()) return;
  say_in_stream(parts_, backend::RowKind::frontier, freeze_.sayable());
}

}  // namespace isthmus
