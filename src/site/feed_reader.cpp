#include "src/site/feed_reader.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "src/keyspace/difference.hpp"
#include "src/observe/logging.hpp"
#include "src/site/state_loader.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;
using std::chrono::milliseconds;

// How long one wait for the stream lasts; `interrupt` ends it early.
constexpr milliseconds kPatience{100};
constexpr milliseconds kRetry{200};
// How often who waits for a task gets to do something else.
constexpr milliseconds kMeanwhile{300};
constexpr backend::Seq kEverySeq = std::numeric_limits<std::int64_t>::max();  // as SQL can hold it
// The inbox is looked at when the stream announces a row, a few times until the table shows it; and so often
// anyway.
constexpr milliseconds kInboxPeriod{1000};
constexpr milliseconds kInboxPatience{2};
// How long until a look whether a piece of the inbox has been committed, if there are more pieces; then
// longer and longer.
constexpr milliseconds kInboxPieceWait{20};
constexpr int kInboxTries = 20;
// How often a look is taken at what all sites have said.
constexpr milliseconds kLinksPeriod{200};

}  // namespace

FeedReader::FeedReader(Site& site, Keyspace& keyspace, HybridClock& clock, PubSub& pubsub, Settings settings)
    : site_(site),
      keyspace_(keyspace),
      clock_(clock),
      pubsub_(pubsub),
      settings_(std::move(settings)),
      reach_(site.log().site()) {
  own_.insert(site.server());
}

void FeedReader::load() {
  feed_ = site_.log().open_feed();
  site_.set_feed_position(feed_->begin());
  {
    const std::lock_guard lock(reach_mutex_);
    read_all(keyspace_, reach_);
  }
  note_frontiers();
  follow_links();
  site_.set_feed_healthy(true);
}

void FeedReader::read_all(Keyspace& into, Reach& reach) {
  const auto begin = std::chrono::steady_clock::now();
  StateLoader loader(into, clock_, reach);
  feed_->read_state(loader);
  const auto took =
      std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - begin).count();
  log_info("State loaded", {{"keys", loader.keys()},
                            {"fields", loader.fields()},
                            {"log_rows", loader.rows()},
                            {"took_ms", took},
                            {"backend", site_.log().description()}});
}

void FeedReader::begin_with(const backend::LeaseRow& lease) {
  lease_ = lease.lease;
  site_.set_lease(lease);
  hooks_.applied(lease_, reach_.last(lease_));
}

void FeedReader::start() {
  thread_ = std::thread([this] { run(); });
}

void FeedReader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = no_tasks_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// The task may still be run when this has thrown: it owns what it needs.
bool FeedReader::do_task(const std::function<void()>& task, const std::function<void()>& meanwhile) {
  std::unique_lock lock(mutex_);
  task_ = task;
  const std::uint64_t wanted = ++tasks_wanted_;
  changed_.notify_all();
  while (!changed_.wait_for(lock, kMeanwhile, [&] { return no_tasks_ || tasks_done_ >= wanted; })) {
    if (!meanwhile) continue;
    lock.unlock();
    meanwhile();
    lock.lock();
  }
  return tasks_done_ >= wanted;
}

bool FeedReader::rebuild() {
  return do_task([this] { rebuild_now(); }, {});
}

std::optional<backend::RowBatch> FeedReader::compare(const std::function<void()>& meanwhile) {
  const auto rows = std::make_shared<backend::RowBatch>();
  if (!do_task([this, rows] { *rows = compare_now(); }, meanwhile)) return {};
  return std::move(*rows);
}

void FeedReader::give_up_tasks() {
  const std::lock_guard lock(mutex_);
  no_tasks_ = true;
  changed_.notify_all();
}

void FeedReader::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::uint64_t wanted = tasks_wanted_;
    const std::function<void()> task = wanted > tasks_done_ ? task_ : nullptr;
    lock.unlock();
    bool failed = false;
    try {
      if (feed_ == nullptr || !fits_role()) begin();
      if (task) task();
      go_on();
    } catch (const backend::FeedError& error) {
      failed = true;
      if (outage_ != error.what() && !site_.ending()) {
        log_error("The change feed is down; this server sees no changes of others until it is back",
                  {{"cause", error.what()}});
      }
      outage_ = error.what();
      site_.set_feed_healthy(false);
      feed_.reset();
      forget_group();
    }
    lock.lock();
    if (!failed && task) {
      tasks_done_ = wanted;
      changed_.notify_all();
    }
    if (failed) changed_.wait_for(lock, kRetry, [this] { return stopping_; });
  }
}

void FeedReader::go_on() {
  const std::uint64_t rows_before = site_.stats().feed_rows.load(std::memory_order_relaxed);
  feed_->stream(*this, inbox_announced_.empty() ? kPatience : kInboxPatience);
  const bool idle = site_.stats().feed_rows.load(std::memory_order_relaxed) == rows_before;
  if (!late_.empty() && group_.empty() && !site_.repairing() && gaps().empty()) {
    for (auto& [site, late] : late_) late.fresh |= idle;
    tell_net_change();
  }
  follow_links();
  if (inbox_due()) take_inbox();
}

// The writer needs to see only what others do.
bool FeedReader::fits_role() const { return (scope_ == backend::FeedScope::others) == site_.is_writer(); }

// Another server has taken the lease, of whose rows a writer's feed shows only some. None of them counts, and
// no later lease of this server does, until the feed has begun anew and has read them all.
bool FeedReader::misses_rows() const {
  return scope_ == backend::FeedScope::others && !own_.contains(lease_);
}

void FeedReader::restart() {
  feed_ = site_.log().open_feed();
  scope_ = site_.is_writer() ? backend::FeedScope::others : backend::FeedScope::everything;
  begun_at_ = feed_->begin(scope_);
  forget_group();
}

// Continues where the last feed broke. What is not in the log any more is not missed: then the state is read
// as a whole; not under a writer, whose clients' writes would go on meanwhile and be gone with the exchange.
void FeedReader::begin() {
  const LeaseStamp held{lease_, reach_.last(lease_)};
  restart();
  site_.stats().feed_restarts.fetch_add(1);
  if (feed_->read_missing(vector(), *this)) {
    check_direction(held);
  } else if (site_.is_writer()) {
    hooks_.missed_rows();
    throw backend::FeedError("rows that this writer has not read were cut from the log");
  } else {
    rebuild_now();
  }
  // Not before: what is below it has only now been read.
  site_.set_feed_position(begun_at_);
  tell_applied();
  if (!outage_.empty()) log_info("The change feed is up again", {{"position", site_.feed_position()}});
  outage_.clear();
  site_.set_feed_healthy(true);
}

backend::Vector FeedReader::vector() const {
  backend::Vector known = reach_.vector();
  // Nothing of this server's own is ever missing here.
  for (const backend::OriginId origin : own_) known[origin] = kEverySeq;
  return known;
}

// A database that was restored, or promoted with a lost tail, has less than it had. Origins of which it knows
// nothing may have been forgotten, being old; but its newest lease is never an older one than we have seen.
bool FeedReader::went_back(const backend::Vector& in_log) const {
  const auto lacks = [&](const auto& known) { return known.second < reach_.shown(known.first); };
  if (std::any_of(in_log.begin(), in_log.end(), lacks)) return true;
  const backend::LeaseRow newest = feed_->newest_lease();
  return newest.lease != 0 && newest.lease != lease_ && !is_new(newest);
}

void FeedReader::check_direction(const LeaseStamp& held) {
  const backend::Vector in_log = feed_->last_seqs();
  if (!went_back(in_log)) return;
  log_warning("The database went back in time: it lacks rows that this server has seen");
  // Said once. Messages may come back under these numbers: see publish_once.
  {
    const std::lock_guard lock(reach_mutex_);
    for (const auto& [origin, seq] : in_log) reach_.lower(origin, seq);
  }
  hooks_.log_went_back(held);
}

bool FeedReader::is_new(const backend::LeaseRow& lease) const {
  return lease.lease != 0 && lease.lease != lease_ && reach_.last(lease.lease) == 0;
}

// A lease whose row has been cut from the log was in no row that we have read, and no stream will show it.
void FeedReader::announce(const backend::LeaseRow& lease) {
  Row row;
  row.kind = RowKind::lease;
  row.site = site_.log().site();
  row.origin = lease.lease;
  row.seq = 1;
  row.requester = lease.server;
  row.key = lease.address;
  this->row(row);
}

// Reads the state into a keyspace of its own and exchanges the two. What was missed before is handed out
// first; what comes between the two reads comes again in the stream, and does no harm.
void FeedReader::rebuild_now() {
  restart();
  const bool complete = feed_->read_missing(vector(), *this);
  Keyspace fresh;
  fresh.take_settings(keyspace_);
  Reach reach(site_.log().site());
  read_all(fresh, reach);
  replace_state(fresh, complete ? nullptr : &reach);
  site_.set_feed_position(begun_at_);
  site_.set_feed_healthy(true);
}

void FeedReader::replace_state(Keyspace& fresh, const Reach* reach) {
  {
    ShardSet all;
    all.set();
    ShardLocks locks;
    locks.lock(keyspace_.shards(), all);
    // It may have become the writer since, or again, and what was read is older than its writes.
    if (site_.is_writer()) throw backend::FeedError("the state of a writer is not exchanged");
    if (reach != nullptr && pubsub_.has_subscribers()) {
      // Its rows cannot be read any more, so what they made of each key is all there is to tell.
      tell_difference(
          keyspace_, fresh,
          [this](std::string_view event, std::uint8_t db, std::string_view key) { raise(event, db, key); });
    }
    keyspace_.swap_state(fresh);
  }
  if (reach != nullptr) pass_over_cut_rows(*reach);
  site_.stats().rebuilds.fetch_add(1);
}

// Only here is a lease announced that no row has shown: where rows can be read, those of the lease before
// come first, with the answers that are among them.
void FeedReader::pass_over_cut_rows(const Reach& reach) {
  hooks_.missed_rows();
  const backend::LeaseRow newest = feed_->newest_lease();
  if (is_new(newest)) announce(newest);
  const std::lock_guard lock(reach_mutex_);
  reach_.merge(reach);
}

// The log is read first, so that the keyspace lacks nothing of it: what is in the log and not in the keyspace
// was deleted.
backend::RowBatch FeedReader::compare_now() {
  restart();
  Keyspace in_log;
  in_log.take_settings(keyspace_);
  Reach reach(site_.log().site());
  read_all(in_log, reach);
  backend::RowBatch rows;
  const bool complete = feed_->read_missing(vector(), *this);
  site_.set_feed_position(begun_at_);
  if (!complete) {
    // Away for longer than the log reaches back: nobody can tell what is beyond the log and what is old.
    replace_state(in_log, &reach);
    return rows;
  }
  for_each_difference(
      keyspace_, in_log, [this] { return clock_.next(wall_clock_ms()); },
      [&rows](const Row& row) { rows.append(row); });
  return rows;
}

// The stream may announce a row before the table shows it: a commit is written, and read by the walsender, a
// moment before other sessions can see it (with a synchronous standby, a round trip before). Only what the
// table shows can be deleted, so only that is evaluated.
bool FeedReader::inbox_due() {
  // What was taken stays noted until this server gets another lease: with the one that it has, it may go on.
  if (!site_.is_writer()) {
    inbox_announced_.clear();
    inbox_has_more_ = false;
    next_inbox_ = {};
    return false;
  }
  const bool announced = !inbox_announced_.empty() && !inbox_has_more_;
  return announced || std::chrono::steady_clock::now() >= next_inbox_;
}

void FeedReader::take_inbox() {
  next_inbox_ = std::chrono::steady_clock::now() + kInboxPeriod;
  boost::unordered_flat_set<std::int64_t> present;
  bool found = false;
  const backend::InboxWindow window = feed_->read_inbox();
  for (const backend::InboxRow& row : window.rows) {
    present.insert(row.id);
    inbox_announced_.erase(row.id);
    if (!inbox_taken_.insert(row.id).second) continue;
    found = true;
    site_.stats().inbox_rows.fetch_add(1, std::memory_order_relaxed);
    hooks_.inbox(row);
  }
  // What is behind them is shown when these are done.
  const std::int64_t last = window.more ? window.rows.back().id : std::numeric_limits<std::int64_t>::max();
  boost::unordered::erase_if(inbox_taken_,
                             [&](std::int64_t id) { return id <= last && !present.contains(id); });
  inbox_has_more_ = window.more;
  if (window.more) {
    inbox_piece_wait_ =
        found ? milliseconds{0} : std::clamp(inbox_piece_wait_ * 2, kInboxPieceWait, kInboxPeriod);
    next_inbox_ = std::chrono::steady_clock::now() + inbox_piece_wait_;
    inbox_tries_ = 0;
    return;
  }
  // What still is not there has been done already, or its commit takes long: then the next look finds it.
  if (inbox_announced_.empty() || ++inbox_tries_ >= kInboxTries) {
    inbox_announced_.clear();
    inbox_tries_ = 0;
  }
}

void FeedReader::inbox(const backend::InboxRow& row) {
  if (site_.is_writer() && !inbox_taken_.contains(row.id)) inbox_announced_.insert(row.id);
}

bool FeedReader::take(const Row& row) {
  const std::lock_guard lock(reach_mutex_);
  if (!reach_.take(row)) {
    site_.stats().repeated_rows.fetch_add(1, std::memory_order_relaxed);
    return false;
  }
  saw_frontier_ |= row.kind == RowKind::frontier || row.kind == RowKind::reach;
  return true;
}

// The stream broke inside a group: its rows come again, and are no repeats then.
void FeedReader::forget_group() {
  const std::lock_guard lock(reach_mutex_);
  reach_.forget_group();
  group_.clear();
}

bool FeedReader::is_of_other_site(const Row& row) const { return row.site != site_.log().site(); }

void FeedReader::row(const Row& row) {
  if (misses_rows() || !take(row)) return;
  take_effect(row);
  if (!row.group_end) return;
  const std::lock_guard lock(reach_mutex_);
  reach_.end_group();
}

void FeedReader::take_effect(const Row& row) {
  site_.stats().feed_rows.fetch_add(1, std::memory_order_relaxed);
  const bool foreign = is_of_other_site(row);
  if (foreign) {
    site_.stats().foreign_rows.fetch_add(1, std::memory_order_relaxed);
    if (!clock_.observe_foreign(row.version, wall_clock_ms()))
      site_.stats().wild_versions.fetch_add(1, std::memory_order_relaxed);
  } else if (keyspace_.linked() && backend::is_state(row.kind)) {
    // It may stand on top of a wild version of another site.
    clock_.observe_foreign(row.version, wall_clock_ms());
  } else {
    clock_.observe(row.version);
  }
  if (row.kind == RowKind::lease && !foreign) {
    // A copied one was lost with the database's last rows, and has come back from a peer: its time is over.
    if (!row.copied) show_lease(row);
    return;
  }
  if (own_.contains(row.origin)) {
    // Its effects are here already; what may be new is that it answers a request of the time before this
    // server became the writer, which it has forwarded to itself.
    if (row.requester == site_.server()) hooks_.answered(row.request, row.reply);
    return;
  }
  note_seen(row);
  if (!late_.empty()) note_age(row);
  if (!backend::is_state(row.kind) && !backend::is_message(row.kind)) return;
  saw_foreign_state_ |= row.origin != lease_ && backend::is_state(row.kind);
  if (backend::is_message(row.kind) && row.group_end && group_.empty()) {
    publish_once(row);
    if (row.requester == site_.server()) hooks_.answered(row.request, row.reply);
    return;
  }
  group_.append(row);
  if (row.group_end) apply_group();
}

// Whether the rows of a site are young again its messages and frontiers tell too. (A change of the state
// tells it when it is folded.)
void FeedReader::note_age(const Row& row) {
  const auto late = late_.find(row.site);
  if (late == late_.end() || row.copied || backend::is_state(row.kind)) return;
  const bool message = backend::is_message(row.kind);
  late->second.fresh |= is_fresh(message ? row.sent_at : HybridClock::milliseconds(row.version), row.site);
}

// A message that the database had lost comes back from a peer under the number that it had. Who has read it
// before it was lost does not hand it out again.
void FeedReader::publish_once(const Row& row) {
  if (row.seq > reach_.lost(row.origin)) {
    publish(row);
  } else {
    site_.stats().repeated_rows.fetch_add(1, std::memory_order_relaxed);
  }
}

void FeedReader::show_lease(const Row& row) {
  lease_ = row.origin;
  if (row.requester == site_.server()) own_.insert(row.origin);
  const bool was_writer = site_.is_writer();
  hooks_.lease(row);
  // What a former lease evaluated and did not commit is to be done again.
  if (!was_writer && site_.is_writer()) inbox_taken_.clear();
}

// A checkpoint that covered a gap would make it last.
void FeedReader::note_seen(const Row& row) {
  const bool foreign = is_of_other_site(row);
  // Nor one that covered the row which tells of a gap of another origin, before that is closed: then all
  // origins are noted.
  if (foreign && reach_.has_gap(row.site)) return;
  seen_[row.origin] = foreign ? reach_.whole(row.origin) : row.seq;
  // The origins that a copy stands for have no rows here that would say so.
  if (row.kind == RowKind::reach && row.copied && foreign) note_all_seen();
}

void FeedReader::note_all_seen() {
  for (const auto& [origin, seq] : reach_.foreign_vector()) seen_[origin] = seq;
}

// Of its own lease the writer's feed shows nothing: that the journal tells.
void FeedReader::tell_applied() {
  if (own_.contains(lease_)) return;
  if (const backend::Seq last = reach_.last(lease_); last != 0) hooks_.applied(lease_, last);
}

void FeedReader::reached(backend::Position position) {
  if (misses_rows()) return;
  site_.set_feed_position(position);
  if (std::exchange(saw_foreign_state_, false)) site_.set_foreign_position(position);
  tell_applied();
  if (!seen_.empty()) hooks_.seen(seen_);
  seen_.clear();
  if (std::exchange(saw_frontier_, false)) note_frontiers();
}

void FeedReader::note_frontiers() {
  const std::lock_guard lock(reach_mutex_);
  noted_frontiers_ = reach_.frontiers();
}

// Under all locks of the group together, so that nobody sees half of it; and its events with it: what happens
// to a key next, by a command or by its deadline, is told after them.
void FeedReader::apply_group() {
  {
    ShardLocks locks;
    lock_group(locks);
    results_.assign(group_.size(), {});
    for (std::size_t i = 0; i < group_.size(); ++i) {
      const Row row = group_[i];
      if (backend::is_state(row.kind)) results_[i] = fold_row(row);
    }
    for (std::size_t i = 0; i < group_.size(); ++i) {
      backend::is_message(group_[i].kind) ? publish_once(group_[i]) : raise_events(i);
    }
  }
  const Row last = group_[group_.size() - 1];
  if (last.requester == site_.server()) hooks_.answered(last.request, last.reply);
  group_.clear();
}

void FeedReader::lock_group(ShardLocks& locks) {
  ShardSet set;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const Row row = group_[i];
    if (row.kind == RowKind::flush) set.set();
    if (backend::is_state(row.kind)) set.set(shard_of(hash_name(row.key)));
  }
  locks.lock(keyspace_.shards(), set);
}

FeedReader::Result FeedReader::fold_row(const Row& row) {
  const Key key(row.db, row.key);
  const bool fresh = !row.copied && is_fresh(HybridClock::milliseconds(row.version), row.site);
  if (row.kind == RowKind::flush) {
    keyspace_.touch_database(row.db);
  }
  Result result{keyspace_.fold(row, key.hash, keyspace_.site_index(row.site))};
  result.fresh = fresh;
  if (is_of_other_site(row) && result.exists && row.kind != RowKind::flush) {
    result.dead_on_arrival = keyspace_.find(key, wall_clock_ms()) == nullptr;
  }
  if (!fresh && result.won && row.kind != RowKind::flush) late_[row.site].keys.changed(key, result.existed);
  if (const auto late = late_.find(row.site); late != late_.end()) late->second.fresh = fresh;
  if (result.lost_version != 0) count_conflict(row, result.lost_version);
  if (row.kind != RowKind::flush) keyspace_.touch(key);
  if (site_.is_writer() && (row.copied || is_of_other_site(row))) hooks_.foreign(row);
  return result;
}

// A value of this site that was superseded by one that was written in ignorance of it.
void FeedReader::count_conflict(const Row& row, backend::Version lost) {
  const std::lock_guard lock(reach_mutex_);
  if (reach_.said(row.site, site_.log().site()) >= lost) return;
  site_.stats().conflicts_lost.fetch_add(1, std::memory_order_relaxed);
}

// ---- other sites ----

// What the keyspace may forget depends on what all sites have said, as far as the checkpoint's mark knows it:
// what is replayed behind the mark after a crash may be older than a tombstone that it must meet.
void FeedReader::follow_links() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_links_) return;
  next_links_ = now + kLinksPeriod;
  const bool linked = site_.linked(), was_linked = keyspace_.linked();
  if (linked != was_linked) keyspace_.set_linked(linked);
  backend::Version stable = std::numeric_limits<backend::Version>::max();
  if (linked) {
    // Until a peer is known there is nobody to say what may be forgotten; and one that has not been reached
    // yet may have what other peers have deleted.
    const std::vector<backend::SiteId> peers = site_.peer_ids();
    const std::vector<backend::PeerRow> rows = site_.peers();
    const bool all_reached = std::none_of(
        rows.begin(), rows.end(), [](const auto& row) { return row.id == 0 && row.state != kExpelledPeer; });
    Reach marked(site_.log().site());
    for (const backend::StoredFrontier& frontier : site_.marked_frontiers()) marked.restore(frontier);
    const bool known = all_reached && (!peers.empty() || site_.has_expelled());
    stable = known ? marked.stable(peers, settings_.tombstone_retention_ms) : 0;
    give_up_gaps(peers);
    // What has been forgotten stays forgotten, even if a site comes that has said nothing yet.
    if (was_linked) stable = std::max(stable, keyspace_.stable());
  }
  keyspace_.set_stable(stable);
  site_.set_stable(stable);
  const std::lock_guard lock(reach_mutex_);
  site_.stats().gaps_found.store(reach_.gaps_found(), std::memory_order_relaxed);
}

// Of a site that has been forgotten or given up nobody has what is missing; what it still has itself it
// brings as a whole, if it comes back.
void FeedReader::give_up_gaps(const std::vector<backend::SiteId>& peers) {
  const std::lock_guard lock(reach_mutex_);
  const std::vector<backend::OriginId> origins = reach_.give_up_gaps(peers);
  if (origins.empty()) return;
  log_warning("Rows of a site that is no peer any more are missing for good", {{"origins", origins.size()}});
  note_all_seen();
}

backend::Vector FeedReader::foreign_vector() const {
  const std::lock_guard lock(reach_mutex_);
  return reach_.folded_vector();
}

Frontier FeedReader::folded() const {
  const std::lock_guard lock(reach_mutex_);
  return reach_.folded();
}

std::vector<Gap> FeedReader::gaps() const {
  const std::lock_guard lock(reach_mutex_);
  return reach_.gaps();
}

std::vector<backend::StoredFrontier> FeedReader::frontiers() const {
  const std::lock_guard lock(reach_mutex_);
  return noted_frontiers_;
}

backend::Seq FeedReader::last(backend::OriginId origin) const {
  const std::lock_guard lock(reach_mutex_);
  return reach_.last(origin);
}

bool FeedReader::has_seen(backend::OriginId origin, backend::Seq seq) const {
  const std::lock_guard lock(reach_mutex_);
  return reach_.last(origin) >= seq;
}

}  // namespace isthmus
