#include "src/site/link.hpp"

#include <algorithm>
#include <set>

#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

using backend::LinkError;
using backend::OriginId;
using backend::Row;
using backend::RowBatch;
using backend::Seq;
using backend::Subscription;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr milliseconds kGiveUpPeriod{100};
constexpr milliseconds kRound{500};
constexpr milliseconds kRetry{1000};
// How often the peer's log is compared with ours; it is read from the checkpoint on.
constexpr seconds kCompare{5};
constexpr seconds kOwnRows{30};
constexpr milliseconds kSave{1000};
// A subscription without a worker for so long is down: PostgreSQL starts one again and again.
constexpr seconds kWorkerPatience{3};
// So long a copied row may take from our log to our feed.
constexpr seconds kFeedPatience{60};
// From so far behind on a peer's rows are applied without a flush for each of its transactions, until they
// are nearly caught up with. Not sooner: who waits for a young message would feel it; and until the next
// flush a row can be seen and be lost with the database, and a server that has seen it takes that for one
// that went back.
constexpr seconds kFarBehind{10}, kNearlyThere{2};
// With fewer rows to come the link is not behind: the peer has only said no frontier for long.
constexpr std::uint64_t kFarBehindRows = 1000;
constexpr std::size_t kRowsATransaction = 10'000;
constexpr std::size_t kBytesATransaction = 16U << 20U;

}  // namespace

void say_in_stream(const LinkParts& parts, backend::RowKind kind,
                   const std::map<std::int64_t, std::uint64_t>& pairs) {
  const std::string text = pairs_text(pairs);
  {
    ShardLocks lock;  // whoever appends holds one, and looks at the role under it
    lock.lock_one(parts.keyspace.shards()[0]);
    if (!parts.site.is_writer()) return;
    Journal::Group group(parts.journal);
    Row row;
    row.kind = kind;
    row.value = text;
    group.add(row, wall_clock_ms(), 0);
  }
  parts.journal.commit_soon();
}

Frontier Freeze::begin(const std::atomic<bool>& give_up) {
  std::unique_lock lock(mutex_);
  while (!ended_.wait_for(lock, kGiveUpPeriod, [this] { return !frozen_; })) {
    if (give_up.load()) throw LinkError("the server stops");
  }
  frozen_ = true;
  site_.count_copy(1);
  frontier_ = feed_.folded();
  return frontier_;
}

void Freeze::end() {
  {
    const std::lock_guard lock(mutex_);
    frozen_ = false;
    site_.count_copy(-1);
  }
  ended_.notify_all();
}

Frontier Freeze::sayable() const {
  const std::lock_guard lock(mutex_);
  return frozen_ ? frontier_ : feed_.folded();
}

Link::Link(const LinkParts& parts, backend::PeerRow row)
    : parts_(parts), row_(std::move(row)), own_rows_known_(row_.id == 0 || row_.state == kExpelledPeer) {
  thread_ = std::thread([this] { run(); });
}

void Link::ask_stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_.store(true);
  }
  stop_asked_.notify_all();
}

void Link::stop() {
  ask_stop();
  if (thread_.joinable()) thread_.join();
}

bool Link::pause(milliseconds time) {
  std::unique_lock lock(mutex_);
  return !stop_asked_.wait_for(lock, time, [this] { return stopping_.load(); });
}

void Link::run() {
  milliseconds wait{0};
  while (pause(wait)) {
    wait = kRound;
    if (is_forgotten() || !parts_.site.is_writer()) continue;
    try {
      round();
    } catch (const LinkError& error) {
      abandon(error.what());
      wait = kRetry;
    }
  }
}

// Who knows in which state the sessions are.
void Link::abandon(const std::string& why) {
  peer_.reset();
  try {
    if (!is_expelled() && !is_forgotten() && !parts_.site.ending()) say("down", why);
    expel_if_silent();
    save();
  } catch (const LinkError&) {
    // Our own database is out of reach as well: that others say. Or the peer is not ours any more.
  }
  links_.reset();
}

// Since it was heard of last; of one that never was, since it has been tried.
std::int64_t Link::silent_ms() const {
  const Frontier folded = parts_.feed.folded();
  const auto last = folded.find(row_.id);
  // A copy stands for a frontier, however low, also where the peer has said none.
  const std::int64_t heard_ms = last == folded.end() ? 0 : HybridClock::milliseconds(last->second);
  return wall_clock_ms() - (row_.id != 0 && heard_ms > 0 ? heard_ms : row_.since_ms);
}

// It has been away for longer than deletions are remembered. Whatever it has when it comes back is compared
// as a whole, so nothing needs to be kept for it.
void Link::expel_if_silent() {
  if (links_ == nullptr || is_expelled() || is_forgotten()) return;
  const std::int64_t silent_ms = this->silent_ms();
  if (silent_ms <= parts_.tombstone_retention_ms) return;
  save();  // not one that was forgotten, and may have been added anew
  log_warning("A peer has been away for too long; it loses its slot and its claim on deletions",
              {{"peer", row_.name}, {"silent_s", silent_ms / 1000}});
  links_->expel_peer(row_);
  row_.slot.clear();
  row_.slot_bytes = 0;
  row_.slot_state.clear();
  own_rows_known_.store(true);
  say(std::string(kExpelledPeer), "away for longer than --tombstone-retention");
}

void Link::round() {
  open_sessions();
  const auto subscriptions = links_->subscriptions();
  const auto found = subscriptions.find(row_.id);
  const Subscription* subscription = found == subscriptions.end() ? nullptr : &found->second;
  if (const std::string why = broken(subscription); !why.empty()) {
    if (Clock::now() >= next_copy_) copy_and_link(why);
    return;
  }
  if (must_copy_again()) {
    copy_beside_stream(row_.slot.empty() ? "another peer was given up, and may have reached only one of us"
                                         : "rows that this site had lost have come back since the last copy",
                       false);
    return;
  }
  watch(*subscription);
  repair_gaps();
  if (Clock::now() >= next_compare_) compare();
  if (Clock::now() >= next_save_) save();
}

bool Link::must_copy_again() const {
  const bool outdated = copied_at_ >= 0 && copied_at_ < parts_.freeze.returns();
  if ((!outdated && !row_.slot.empty()) || !own_rows_known_.load()) return false;
  // All that is still to come comes first; of a site that was given up nothing does.
  const std::vector<backend::SiteId> peers = parts_.site.peer_ids();
  const std::vector<Gap> gaps = parts_.feed.gaps();
  return std::none_of(gaps.begin(), gaps.end(), [&](const Gap& gap) {
    return std::find(peers.begin(), peers.end(), gap.site) != peers.end();
  });
}

void Link::count_return() {
  const int returns = parts_.freeze.count_return();
  if (copied_at_ == returns - 1) copied_at_ = returns;
}

void Link::open_sessions() {
  if (links_ == nullptr) links_ = parts_.site.log().open_links();
  if (peer_ != nullptr) return;
  peer_ = links_->connect(row_.conninfo);
  peer_->give_up_when(stopping_);
  check_identity();
  next_compare_ = next_own_ = {};
  idle_since_ = Clock::now();
}

void Link::check_identity() {
  const backend::SiteId own = parts_.site.log().site();
  const auto refuse = [this](const std::string& why) {
    peer_.reset();
    throw LinkError("refused: " + why);
  };
  if (peer_->site() == own) {
    refuse("its database is this site's own or a copy of it; each site needs a database of its own");
  }
  if (peer_->name() != row_.name) {
    refuse("it calls itself '" + peer_->name() + "'; name it so in --peer, or give it --site " + row_.name);
  }
  if (row_.id != 0 && row_.id != peer_->site()) {
    refuse("this is another database than before; if that is meant, say ISTHMUS PEER FORGET " + row_.name);
  }
  for (const backend::PeerRow& other : links_->peers()) {
    if (other.name != row_.name && other.id == peer_->site())
      refuse("the peer " + other.name + " is the same");
  }
  if (row_.id == peer_->site()) return;
  row_.id = peer_->site();
  save();
}

std::string Link::broken(const Subscription* subscription) {
  if (subscription == nullptr) return row_.slot.empty() ? "a new link" : "the subscription is gone";
  const backend::PeerSlot slot = peer_->slot(subscription->slot);
  if (!slot.exists) return "the peer has no slot for us any more";
  if (slot.lost) return "the slot at the peer has lost its WAL (max_slot_wal_keep_size)";
  return {};
}

void Link::watch(const Subscription& subscription) {
  const milliseconds lag{row_.lag_ms};
  far_behind_ = row_.lag_rows > kFarBehindRows && lag >= (far_behind_ ? kNearlyThere : kFarBehind);
  links_->update_subscription(row_, far_behind_);
  if (subscription.applying) {
    idle_since_ = Clock::now();
    say("up", {});
  } else if (Clock::now() - idle_since_ > kWorkerPatience) {
    expel_if_silent();
    if (is_expelled()) return;
    say("down", subscription.enabled ? "the subscription has no worker that receives; see PostgreSQL's log"
                                     : "the subscription was disabled");
  }
  const Frontier folded = parts_.feed.folded();
  const auto mine = folded.find(row_.id);
  if (mine != folded.end()) {
    const std::int64_t now = parts_.site.database_now_ms() + row_.clock_offset_ms;
    row_.lag_ms = std::max<std::int64_t>(now - HybridClock::milliseconds(mine->second), 0);
  }
  // A peer says no frontier while it has not asked one of its own peers for what it may have lost. All that
  // it had at the last look is here all the same.
  if (row_.lag_rows == 0) {
    const auto since_look = std::chrono::duration_cast<milliseconds>(Clock::now() - compared_);
    row_.lag_ms = std::min<std::int64_t>(row_.lag_ms, since_look.count());
  }
}

void Link::compare() {
  next_compare_ = Clock::now() + kCompare;
  // Ours first: then what the peer has more is what it has had since, and what is missing here.
  backend::Position end = 0;
  const auto subscriptions = links_->subscriptions();
  const auto subscription = subscriptions.find(row_.id);
  const Clock::time_point now = Clock::now();
  const backend::Reaches theirs = peer_->reaches(end);
  if (subscription != subscriptions.end() && subscription->second.received > end) {
    copy_and_link("the peer's database went back in time");
    return;
  }
  row_.clock_offset_ms = peer_->clock_offset_ms() - parts_.site.clock_offset_ms();
  compared_ = now;
  row_.lag_rows = 0;
  for (const auto& [origin, reach] : theirs) {
    const Seq mine = parts_.feed.last(origin);
    if (reach.site == row_.id && reach.last > mine) row_.lag_rows += reach.last - mine;
  }
  const auto kept = links_->kept_slots();
  const auto slot = kept.find(row_.id);
  row_.slot_bytes = slot == kept.end() ? 0 : slot->second.bytes;
  row_.slot_state = slot == kept.end() ? "" : slot->second.state;
  if (Clock::now() < next_own_) return;
  next_own_ = Clock::now() + kOwnRows;
  fetch_own_rows(theirs);
}

// Rows that were ours and that our database has lost. Ours are read last, so that the peer cannot be ahead by
// what we have just committed.
void Link::fetch_own_rows(const backend::Reaches& theirs) {
  const backend::SiteId own = parts_.site.log().site();
  const auto turn = parts_.freeze.fetch_own();
  const backend::Reaches ours = links_->reaches();
  std::vector<Gap> lost;
  std::map<std::int64_t, std::uint64_t> returned;
  Seq rows = 0;
  for (const auto& [origin, reach] : theirs) {
    if (reach.site != own) continue;
    const auto known = ours.find(origin);
    const Seq last = known == ours.end() ? 0 : known->second.last;
    // A writer before this one may have fetched them, and ended before it told that.
    if (!own_rows_known_.load() && known != ours.end() && known->second.returned != 0)
      returned[origin] = known->second.returned;
    if (reach.last <= last || reach.last <= fetched_[origin]) continue;
    lost.push_back({own, origin, last + 1, reach.last});
    returned[origin] = reach.last;
    rows += reach.last - last;
  }
  if (!lost.empty()) {
    log_warning("This site's database lacks rows that it once had; a peer still has them",
                {{"peer", row_.name}, {"origins", lost.size()}, {"rows", rows}});
    parts_.freeze.count_return();
    if (!fetch(own, lost)) copy_beside_stream("the peer has rows of ours that we have lost", true);
  }
  if (!returned.empty()) tell_returned(returned);
  for (const auto& [origin, last] : returned) fetched_[origin] = last;
  own_rows_known_.store(true);
}

// What has come back is not in our stream, and a third site may lack it too: it asks us for it before it
// takes a frontier of ours. Where it came back as a state, our log does not have the rows, and that site
// copies our state.
void Link::tell_returned(const std::map<std::int64_t, std::uint64_t>& last) {
  say_in_stream(parts_, backend::RowKind::reach, last);
}

void Link::repair_gaps() {
  std::vector<Gap> gaps = parts_.feed.gaps();
  std::erase_if(gaps, [this](const Gap& gap) { return gap.site != row_.id; });
  if (gaps.empty()) return;
  for (const Gap& gap : gaps) {
    log_warning("Rows of a peer are missing",
                {{"peer", row_.name}, {"origin", gap.origin}, {"from", gap.from}, {"to", gap.to}});
  }
  if (!fetch(row_.id, gaps))
    copy_and_link("rows are missing, and the peer's log does not reach back to them");
}

// What the peer does not have in between does not exist. False if some of it has been cut from the peer's
// log.
bool Link::fetch(backend::SiteId site, const std::vector<Gap>& gaps) {
  class Sink final : public backend::LoadSink {
   public:
    Sink(backend::Links& to, OriginId lease, backend::Version covered)
        : to_(to), lease_(lease), covered_(covered) {}
    void key(const backend::StoredKey&) override {}
    void field(const backend::StoredField&) override {}
    void row(const Row& row) override {
      if (row.kind == backend::RowKind::reach) return;  // speaks of the peer's log, not of ours
      // As in a copy: what our frontier covers is here, or was deleted and may be forgotten.
      if (backend::is_state(row.kind) && row.version <= covered_) return;
      Row copy = row;
      copy.copied = true;
      batch_.append(copy);
      if (row.kind == backend::RowKind::del) deadlines_.append(deadline_of_copied(row));
      if (row.group_end && (batch_.size() >= kRowsATransaction || batch_.bytes() >= kBytesATransaction))
        flush();
    }
    void flush() {
      if (!batch_.empty()) to_.append(batch_, lease_);
      rows_ += batch_.size();
      batch_.clear();
    }
    std::size_t rows() const { return rows_; }
    const RowBatch& deadlines() const { return deadlines_; }

   private:
    backend::Links& to_;
    const OriginId lease_;
    const backend::Version covered_;
    RowBatch batch_, deadlines_;
    std::size_t rows_ = 0;
  };
  const OriginId lease = parts_.journal.lease_stamp().lease;
  const Frontier folded = parts_.feed.folded();
  const auto frontier = folded.find(site);
  Sink sink(*links_, lease, frontier == folded.end() ? 0 : frontier->second);
  std::map<std::int64_t, std::uint64_t> whole;
  std::set<OriginId> cut;
  for (const Gap& gap : gaps) {
    if (!peer_->read_rows(gap.origin, gap.from, gap.to, sink)) cut.insert(gap.origin);
    whole[gap.origin] = std::max(whole[gap.origin], gap.to);
  }
  sink.flush();
  std::erase_if(whole, [&](const auto& of) { return cut.contains(of.first); });
  if (whole.empty()) return false;
  CopiedRows end(*links_, lease);
  for (std::size_t i = 0; i < sink.deadlines().size(); ++i) end.add(sink.deadlines()[i]);
  end.finish(site, whole, 0);
  parts_.site.stats().gaps_repaired.fetch_add(whole.size());
  log_info("Missing rows have been fetched", {{"peer", row_.name}, {"rows", sink.rows()}});
  wait_for(end.origin(), end.rows());
  if (site == row_.id) count_return();
  return cut.empty();
}

void Link::wait_for(OriginId origin, Seq seq) {
  const auto deadline = Clock::now() + kFeedPatience;
  while (!parts_.feed.has_seen(origin, seq)) {
    if (Clock::now() >= deadline) throw LinkError("our own feed does not show what was copied");
    if (!pause(milliseconds{10})) throw LinkError("the server stops");
  }
}

void Link::say(const std::string& state, const std::string& detail) {
  const std::string shown = detail.starts_with("refused: ") ? "refused" : state;
  if (shown == said_state_ && shown != "refused") return;
  if (shown == said_state_ && detail == said_detail_) return;
  said_state_ = shown;
  said_detail_ = detail;
  if (shown == "up") {
    log_info("The link to a peer is up", {{"peer", row_.name}});
  } else if (shown == "seeding") {
    log_info("The state of a peer is being copied", {{"peer", row_.name}, {"cause", detail}});
  } else {
    log_warning("The link to a peer is down", {{"peer", row_.name}, {"cause", detail}});
  }
  // A new writer finds things as the last one has left them.
  if (row_.state != shown) row_.since_ms = wall_clock_ms();
  row_.state = shown;
  row_.detail = detail;
  next_save_ = {};
}

void Link::save() {
  next_save_ = Clock::now() + kSave;
  if (links_ == nullptr || is_forgotten()) return;
  // So the next writer knows of it too.
  if (copy_asked_.load()) row_.slot.clear();
  if (links_->update_peer(row_)) return;
  forgotten_.store(true);
  throw LinkError("the peer has been forgotten, or has another URL now");
}

Row deadline_of_copied(const Row& deletion) {
  Row none;
  none.kind = backend::RowKind::expire;
  none.site = deletion.site;
  none.version = deletion.version;
  none.db = deletion.db;
  none.key = deletion.key;
  return none;
}

CopiedRows::CopiedRows(backend::Links& links, OriginId lease)
    : links_(links), lease_(lease), origin_(random_origin()) {}

void CopiedRows::add(Row row) {
  row.origin = origin_;
  row.seq = ++last_;
  append(row);
}

void CopiedRows::add_message(Row row) {
  row.group_end = true;
  append(row);
}

void CopiedRows::append(const Row& row) {
  Row copy = row;
  copy.copied = true;
  batch_.append(copy);
  if (row.group_end && (batch_.size() >= kRowsATransaction || batch_.bytes() >= kBytesATransaction)) flush();
}

void CopiedRows::flush() {
  if (batch_.empty()) return;
  links_.append(batch_, lease_);
  batch_.clear();
}

void CopiedRows::finish(backend::SiteId site, const std::map<std::int64_t, std::uint64_t>& reach,
                        backend::Version frontier) {
  const std::string text = pairs_text(reach);
  Row row;
  row.kind = backend::RowKind::reach;
  row.site = site;
  row.version = frontier;
  row.value = text;
  add(row);
  flush();
}

}  // namespace isthmus
