#include "src/site/feed_reader.hpp"

#include <algorithm>
#include <limits>
#include <utility>

#include "src/keyspace/difference.hpp"
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
// How often who waits for a task gets to do something else.
constexpr milliseconds kMeanwhile{300};
constexpr backend::Seq kEverySeq = std::numeric_limits<std::int64_t>::max();  // as SQL can hold it
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
  if (!net_change_.empty() && group_.empty() && (idle || latest_is_fresh_)) tell_net_change();
  if (inbox_due()) take_inbox();
}

// The writer needs to see only what others do.
bool FeedReader::fits_role() const { return (scope_ == backend::FeedScope::others) == site_.is_writer(); }

void FeedReader::restart() {
  feed_ = site_.log().open_feed();
  scope_ = site_.is_writer() ? backend::FeedScope::others : backend::FeedScope::everything;
  site_.set_feed_position(feed_->begin(scope_));
  forget_group();
}

// Continues where the last feed broke. What is not in the log any more is not missed: then the state is read
// as a whole.
void FeedReader::begin() {
  const LeaseStamp held{lease_, vector_[lease_]};
  restart();
  site_.stats().feed_restarts.fetch_add(1);
  if (feed_->read_missing(vector(), *this)) {
    check_direction(held);
  } else {
    rebuild_now();
  }
  tell_applied();
  if (!outage_.empty()) log_info("The change feed is up again", {{"position", site_.feed_position()}});
  outage_.clear();
  site_.set_feed_healthy(true);
}

backend::Vector FeedReader::vector() const {
  backend::Vector known;
  for (const auto& [origin, seq] : vector_) known[origin] = seq;
  // Nothing of this server's own is ever missing here.
  for (const backend::OriginId origin : own_) known[origin] = kEverySeq;
  return known;
}

// A database that was restored, or promoted with a lost tail, has less than it had. Origins of which it knows
// nothing may have been forgotten, being old; but its newest lease is never an older one than we have seen.
bool FeedReader::went_back(const backend::Vector& in_log) const {
  const auto lacks = [&](const auto& known) {
    const auto it = in_log.find(known.first);
    return it != in_log.end() && it->second < known.second;
  };
  if (std::any_of(vector_.begin(), vector_.end(), lacks)) return true;
  const backend::LeaseRow newest = feed_->newest_lease();
  return newest.lease != 0 && newest.lease != lease_ && !is_new(newest);
}

void FeedReader::check_direction(const LeaseStamp& held) {
  const backend::Vector in_log = feed_->last_seqs();
  if (!went_back(in_log)) return;
  log_warning("The database went back in time: it lacks rows that this server has seen");
  // Said once: the rows do not come back under these numbers.
  for (const auto& [origin, seq] : in_log) {
    const auto it = vector_.find(origin);
    if (it != vector_.end()) it->second = std::min(it->second, seq);
  }
  hooks_.log_went_back(held);
}

bool FeedReader::is_new(const backend::LeaseRow& lease) const {
  const auto it = vector_.find(lease.lease);
  return lease.lease != 0 && lease.lease != lease_ && (it == vector_.end() || it->second == 0);
}

// A lease whose row has been cut from the log was in no row that we have read.
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
  backend::Vector seen;
  read_all(fresh, seen);
  replace_state(fresh, complete ? backend::Vector() : seen);
  site_.set_feed_healthy(true);
}

void FeedReader::replace_state(Keyspace& fresh, const backend::Vector& seen) {
  const backend::LeaseRow newest = feed_->newest_lease();
  const bool new_lease = is_new(newest);
  {
    ShardSet all;
    all.set();
    ShardLocks locks;
    locks.lock(keyspace_.shards(), all);
    if (!seen.empty() && pubsub_.has_subscribers()) {
      // Its rows cannot be read any more, so what they made of each key is all there is to tell.
      tell_difference(
          keyspace_, fresh,
          [this](std::string_view event, std::uint8_t db, std::string_view key) { raise(event, db, key); });
    }
    keyspace_.swap_state(fresh);
  }
  if (new_lease) announce(newest);
  for (const auto& [origin, seq] : seen) vector_[origin] = std::max(vector_[origin], seq);
  site_.stats().rebuilds.fetch_add(1);
}

// The log is read first, so that the keyspace lacks nothing of it: what is in the log and not in the keyspace
// was deleted.
backend::RowBatch FeedReader::compare_now() {
  restart();
  Keyspace in_log;
  in_log.take_settings(keyspace_);
  backend::Vector seen;
  read_all(in_log, seen);
  backend::RowBatch rows;
  if (!feed_->read_missing(vector(), *this)) {
    // Away for longer than the log reaches back: nobody can tell what is beyond the log and what is old.
    replace_state(in_log, seen);
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
  saw_foreign_state_ |= row.origin != lease_ && backend::is_state(row.kind);
  if (backend::is_message(row.kind) && row.group_end && group_.empty()) {
    publish(row);
    if (row.requester == site_.server()) hooks_.answered(row.request, row.reply);
    return;
  }
  group_.append(row);
  if (row.group_end) apply_group();
}

// Of its own lease the writer's feed shows nothing: that the journal tells.
void FeedReader::tell_applied() {
  if (own_.contains(lease_)) return;
  const auto it = vector_.find(lease_);
  if (it != vector_.end()) hooks_.applied(lease_, it->second);
}

void FeedReader::reached(backend::Position position) {
  site_.set_feed_position(position);
  if (std::exchange(saw_foreign_state_, false)) site_.set_foreign_position(position);
  tell_applied();
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
    latest_is_fresh_ = is_fresh(HybridClock::milliseconds(row.version));
    if (row.kind == RowKind::flush) {
      keyspace_.touch_database(row.db);
    } else if (!latest_is_fresh_) {
      net_change_.before(keyspace_, {row.db, hash, row.key}, wall_clock_ms());
    }
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
  std::string_view events = row.event;
  while (!events.empty()) {
    const std::string_view event = events.substr(0, events.find(','));
    events.remove_prefix(std::min(events.size(), event.size() + 1));
    raise(event, row.db, row.key);
  }
}

void FeedReader::raise(std::string_view event, std::uint8_t db, std::string_view key) {
  const std::uint32_t wanted = settings_.notify_flags();
  if ((wanted & event_class(event)) == 0) return;
  for_each_event_channel(wanted, event, db, key, [this](std::string_view channel, std::string_view payload) {
    pubsub_.publish(channel, payload);
  });
}

// Once the rows are young again, or there are no more.
void FeedReader::tell_net_change() {
  net_change_.tell(
      keyspace_, wall_clock_ms(),
      [this](std::string_view event, std::uint8_t db, std::string_view key) { raise(event, db, key); });
}

}  // namespace isthmus
