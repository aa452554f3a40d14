#include "src/site/feed_reader.hpp"

#include <algorithm>

#include "src/observe/logging.hpp"
#include "src/pubsub/keyspace_events.hpp"
#include "src/site/state_loader.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;
using std::chrono::milliseconds;

// How long one wait for the stream lasts; `interrupt` ends it early.
constexpr milliseconds kPatience{100};
constexpr milliseconds kRetry{200};
// The inbox is looked at when the stream announces a row, a few times until the table shows it; and so often
// anyway.
constexpr milliseconds kInboxPeriod{1000};
constexpr milliseconds kInboxPatience{2};
constexpr int kInboxTries = 20;

}  // namespace

FeedReader::FeedReader(Site& site, Keyspace& keyspace, HybridClock& clock, PubSub& pubsub, Settings settings)
    : site_(site), keyspace_(keyspace), clock_(clock), pubsub_(pubsub), settings_(std::move(settings)) {
  own_.insert(site.server());
}

void FeedReader::load() {
  feed_ = site_.log().open_feed();
  site_.set_feed_position(feed_->begin());
  backend::Vector seen;
  read_all(keyspace_, seen);
  for (const auto& [origin, seq] : seen) vector_[origin] = seq;
  site_.set_feed_healthy(true);
}

void FeedReader::read_all(Keyspace& into, backend::Vector& seen) {
  const auto begin = std::chrono::steady_clock::now();
  StateLoader loader(into, clock_, seen);
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
  hooks_.applied(lease_, vector_[lease_]);
}

void FeedReader::start() {
  thread_ = std::thread([this] { run(); });
}

void FeedReader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = no_rebuilds_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

bool FeedReader::rebuild() {
  std::unique_lock lock(mutex_);
  const std::uint64_t wanted = ++rebuilds_wanted_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return no_rebuilds_ || rebuilds_done_ >= wanted; });
  return rebuilds_done_ >= wanted;
}

void FeedReader::give_up_rebuilds() {
  const std::lock_guard lock(mutex_);
  no_rebuilds_ = true;
  changed_.notify_all();
}

void FeedReader::run() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const std::uint64_t wanted = rebuilds_wanted_;
    const bool must_rebuild = wanted > rebuilds_done_;
    lock.unlock();
    bool failed = false;
    try {
      if (feed_ == nullptr) begin();
      if (must_rebuild) rebuild_now();
      feed_->stream(*this, inbox_announced_.empty() ? kPatience : kInboxPatience);
      if (inbox_due()) take_inbox();
    } catch (const backend::FeedError& error) {
      failed = true;
      if (outage_ != error.what()) {
        log_error("The change feed is down; this server sees no changes of others until it is back",
                  {{"cause", error.what()}});
      }
      outage_ = error.what();
      site_.set_feed_healthy(false);
      feed_.reset();
      forget_group();
    }
    lock.lock();
    if (!failed && must_rebuild) {
      rebuilds_done_ = wanted;
      changed_.notify_all();
    }
    if (failed) changed_.wait_for(lock, kRetry, [this] { return stopping_; });
  }
}

// Continues where the last feed broke. What is not in the log any more is not missed: then the state is read
// as a whole.
bool FeedReader::begin() {
  feed_ = site_.log().open_feed();
  site_.set_feed_position(feed_->begin());
  site_.stats().feed_restarts.fetch_add(1);
  const bool complete = feed_->read_missing(vector(), *this);
  check_direction(feed_->last_seqs());
  if (!complete) rebuild_now();
  hooks_.applied(lease_, vector_[lease_]);
  outage_.clear();
  site_.set_feed_healthy(true);
  log_info("The change feed is up again", {{"position", site_.feed_position()}});
  return complete;
}

backend::Vector FeedReader::vector() const {
  backend::Vector known;
  for (const auto& [origin, seq] : vector_) known[origin] = seq;
  return known;
}

// A database that was restored, or promoted with a lost tail, has less than it had.
void FeedReader::check_direction(const backend::Vector& in_log) {
  for (const auto& [origin, seq] : vector_) {
    const auto it = in_log.find(origin);
    if (own_.contains(origin) || it == in_log.end() || it->second >= seq) continue;
    log_warning("The database went back in time: it lacks rows that this server has seen",
                {{"origin", origin}, {"seen", seq}, {"in_log", it->second}});
    hooks_.log_went_back();
    return;
  }
}

// Reads the state into a keyspace of its own and exchanges the two. What was missed before is handed out
// first; what comes between the two reads comes again in the stream, and does no harm.
void FeedReader::rebuild_now() {
  feed_ = site_.log().open_feed();
  site_.set_feed_position(feed_->begin());
  forget_group();
  const bool complete = feed_->read_missing(vector(), *this);
  Keyspace fresh;
  fresh.take_settings(keyspace_);
  backend::Vector seen;
  read_all(fresh, seen);
  {
    ShardSet all;
    all.set();
    ShardLocks locks;
    locks.lock(keyspace_.shards(), all);
    keyspace_.swap_state(fresh);
  }
  if (!complete) {
    for (const auto& [origin, seq] : seen) vector_[origin] = std::max(vector_[origin], seq);
  }
  site_.stats().rebuilds.fetch_add(1);
  site_.set_feed_healthy(true);
}

// The stream may announce a row before the table shows it: a commit is written, and read by the walsender, a
// moment before other sessions can see it (with a synchronous standby, a round trip before). Only what the
// table shows can be deleted, so only that is evaluated.
bool FeedReader::inbox_due() {
  if (!site_.is_writer()) {
    inbox_taken_.clear();
    inbox_announced_.clear();
    next_inbox_ = {};
    return false;
  }
  return !inbox_announced_.empty() || std::chrono::steady_clock::now() >= next_inbox_;
}

void FeedReader::take_inbox() {
  next_inbox_ = std::chrono::steady_clock::now() + kInboxPeriod;
  boost::unordered_flat_set<std::int64_t> present;
  for (const backend::InboxRow& row : feed_->read_inbox()) {
    present.insert(row.id);
    inbox_announced_.erase(row.id);
    if (!inbox_taken_.insert(row.id).second) continue;
    site_.stats().inbox_rows.fetch_add(1, std::memory_order_relaxed);
    hooks_.inbox(row);
  }
  boost::unordered::erase_if(inbox_taken_, [&](std::int64_t id) { return !present.contains(id); });
  // What still is not there has been done already, or its commit takes long: then the next look finds it.
  if (inbox_announced_.empty() || ++inbox_tries_ >= kInboxTries) {
    inbox_announced_.clear();
    inbox_tries_ = 0;
  }
}

void FeedReader::inbox(const backend::InboxRow& row) {
  if (site_.is_writer() && !inbox_taken_.contains(row.id)) inbox_announced_.insert(row.id);
}

bool FeedReader::is_repeat(const Row& row) {
  backend::Seq& last = vector_[row.origin];
  if (row.seq <= last) {
    site_.stats().repeated_rows.fetch_add(1, std::memory_order_relaxed);
    return true;
  }
  before_group_.emplace_back(row.origin, last);
  last = row.seq;
  if (row.group_end) before_group_.clear();
  return false;
}

// The stream broke inside a group: its rows come again, and are no repeats then.
void FeedReader::forget_group() {
  for (auto it = before_group_.rbegin(); it != before_group_.rend(); ++it) vector_[it->first] = it->second;
  before_group_.clear();
  group_.clear();
}

void FeedReader::row(const Row& row) {
  if (is_repeat(row)) return;
  site_.stats().feed_rows.fetch_add(1, std::memory_order_relaxed);
  clock_.observe(row.version);
  if (row.kind == RowKind::lease) {
    lease_ = row.origin;
    if (row.requester == site_.server()) own_.insert(row.origin);
    const bool was_writer = site_.is_writer();
    hooks_.lease(row);
    // What a former lease evaluated and did not commit is to be done again.
    if (!was_writer && site_.is_writer()) inbox_taken_.clear();
    return;
  }
  if (own_.contains(row.origin)) {
    // Its effects are here already; what may be new is that it answers a request of the time before this
    // server became the writer, which it has forwarded to itself.
    if (row.requester == site_.server()) hooks_.answered(row.request, row.reply);
    return;
  }
  seen_[row.origin] = row.seq;
  if (backend::is_message(row.kind) && row.group_end && group_.empty()) {
    publish(row);
    if (row.requester == site_.server()) hooks_.answered(row.request, row.reply);
    return;
  }
  group_.append(row);
  if (row.group_end) apply_group();
}

void FeedReader::reached(backend::Position position) {
  site_.set_feed_position(position);
  const auto it = vector_.find(lease_);
  if (it != vector_.end()) hooks_.applied(lease_, it->second);
  if (seen_.empty()) return;
  hooks_.seen(seen_);
  seen_.clear();
}

void FeedReader::apply_group() {
  fold_group();
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const Row row = group_[i];
    if (backend::is_message(row.kind)) {
      publish(row);
    } else if (!row.event.empty()) {
      raise_events(row);
    }
  }
  const Row last = group_[group_.size() - 1];
  if (last.requester == site_.server()) hooks_.answered(last.request, last.reply);
  group_.clear();
}

// Under all locks of the group together, so that nobody sees half of it.
void FeedReader::fold_group() {
  ShardSet set;
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const Row row = group_[i];
    if (row.kind == RowKind::flush) set.set();
    if (backend::is_state(row.kind)) set.set(shard_of(hash_name(row.key)));
  }
  ShardLocks locks;
  locks.lock(keyspace_.shards(), set);
  for (std::size_t i = 0; i < group_.size(); ++i) {
    const Row row = group_[i];
    if (!backend::is_state(row.kind)) continue;
    const std::uint64_t hash = hash_name(row.key);
    if (row.kind == RowKind::flush) keyspace_.touch_database(row.db);
    keyspace_.fold(row, hash, keyspace_.site_index(row.site));
    if (row.kind != RowKind::flush) keyspace_.touch({row.db, hash, row.key});
  }
}

bool FeedReader::is_fresh(std::int64_t then_ms) const {
  return wall_clock_ms() + site_.clock_offset_ms() - then_ms <= settings_.message_max_age_ms;
}

void FeedReader::publish(const Row& row) {
  if (!is_fresh(row.sent_at)) {
    site_.stats().stale_messages.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  if (row.kind == RowKind::spublish) {
    pubsub_.publish_to_shard(row.key, row.value);
  } else {
    pubsub_.publish(row.key, row.value);
  }
}

void FeedReader::raise_events(const Row& row) {
  if (!pubsub_.has_subscribers() || !is_fresh(HybridClock::milliseconds(row.version))) return;
  const std::uint32_t wanted = settings_.notify_flags();
  std::string_view events = row.event;
  while (!events.empty()) {
    const std::string_view event = events.substr(0, events.find(','));
    events.remove_prefix(std::min(events.size(), event.size() + 1));
    if ((wanted & event_class(event)) == 0) continue;
    for_each_event_channel(
        wanted, event, row.db, row.key,
        [this](std::string_view channel, std::string_view payload) { pubsub_.publish(channel, payload); });
  }
}

}  // namespace isthmus
