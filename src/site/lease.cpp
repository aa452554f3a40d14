#include "src/site/lease.hpp"

#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

using backend::AppendError;
using backend::Row;
using backend::RowBatch;
using std::chrono::milliseconds;

constexpr milliseconds kReconnectPeriod{200};
constexpr milliseconds kBeatPeriod{1000};
// A candidate whose feed has not moved for so long, or has not come to its lease row for so long, lets
// another one try. Behind a long outage a feed has much to read before that row.
constexpr milliseconds kTakingPatience{10'000}, kTakingLimit{60'000};
// After an outage of the database the last writer, if it lives, gets the lease before others: its memory is
// the one that surely holds all that was acknowledged.
constexpr milliseconds kPrecedence{1000};
constexpr const char* kDropped =
    "CLUSTERDOWN The write was not in the log when this server lost the right to write; it may or may not be "
    "done";

}  // namespace

Lease::Lease(Site& site, Journal& journal, Keyspace& keyspace, HybridClock& clock,
             std::int64_t message_max_age_ms)
    : site_(site),
      log_(site.log()),
      journal_(journal),
      keyspace_(keyspace),
      clock_(clock),
      message_max_age_ms_(message_max_age_ms) {}

void Lease::tick() {
  const auto now = Clock::now();
  if (!reach_database(now)) return;
  if (!journal_.available()) drop_old_messages();
  try {
    if (superseded_.exchange(false) && !locked_ && site_.role() != Role::follower) {
      demote("another server took the lease");
    }
    switch (site_.role()) {
      case Role::writer:
        if (!locked_) {
          recover();
        } else if (out_of_touch_.load()) {
          step_down("rows that it has not read were cut from the log");
        } else if (log_went_back_.load()) {
          if (repair_log()) renew();
        } else if (now >= next_beat_) {
          next_beat_ = now + kBeatPeriod;
          log_.beat(lease_.load());
        }
        break;
      case Role::candidate:
        if (!locked_ || takes_too_long(now)) {
          give_back();
        } else if (now >= next_beat_) {
          next_beat_ = now + kBeatPeriod;
          log_.beat(lease_.load());
        }
        break;
      case Role::follower:
        if (undropped_) drop_uncommitted(log_went_back_.load());
        journal_.set_available(true, {});
        if (now >= next_try_) log_went_back_.load() ? settle_debt() : try_take();
        break;
    }
  } catch (const AppendError& error) {
    session_lost(error.what());
  }
}

bool Lease::reach_database(Clock::time_point now) {
  if (log_.connected()) return true;
  locked_ = false;
  if (now < next_connect_) return false;
  next_connect_ = now + kReconnectPeriod;
  std::string why;
  if (log_.connect(why)) {
    connected_since_ = Clock::now();
    return true;
  }
  journal_.set_available(false, why);
  drop_old_messages();
  return false;
}

void Lease::drop_old_messages() { journal_.drop_old_messages(site_.database_now_ms() - message_max_age_ms_); }

void Lease::session_lost(const std::string& why) {
  log_.disconnect();
  locked_ = false;
  journal_.set_available(false, why);
}

void Lease::append(const RowBatch& rows, const std::vector<std::int64_t>& inbox) {
  if (!log_.connected()) {
    throw AppendError(AppendError::Kind::unavailable, journal_.available()
                                                          ? "the session with the database broke"
                                                          : journal_.unavailable_reason());
  }
  if (!may_append(rows, inbox)) {
    throw AppendError(AppendError::Kind::unavailable, "the session that held the lease broke");
  }
  try {
    log_.append(rows, inbox);
  } catch (const AppendError& error) {
    // One that only lacks space or waits for a lock goes on: a new one would be a new lease with each try.
    log_.connected() ? beat_at_once() : session_lost(error.what());
    throw;
  }
}

// Who waited long for a refusal has not beaten meanwhile, and must not be taken for silent now.
void Lease::beat_at_once() {
  if (!locked_ || site_.role() != Role::writer) return;
  try {
    log_.beat(lease_.load());
    next_beat_ = Clock::now() + kBeatPeriod;
  } catch (const AppendError& error) {
    session_lost(error.what());
  }
}

// What a lease has evaluated goes into the log only through the session that holds its lock. Whatever is left
// of it on a server that is not the writer any more is to be dropped, however that came about.
bool Lease::may_append(const RowBatch& rows, const std::vector<std::int64_t>& inbox) const {
  if (site_.role() == Role::writer) return locked_;
  return inbox.empty() && !has_rows_of_lease(rows, site_.server());
}

bool Lease::takes_too_long(Clock::time_point now) {
  const backend::Position position = site_.feed_position();
  if (position != taking_position_) {
    taking_position_ = position;
    moved_at_ = now;
  }
  return now - moved_at_ > kTakingPatience || now - taking_since_ > kTakingLimit;
}

void Lease::give_back() {
  // Also of a candidate: the feed may make it the writer just now.
  become_follower();
  lease_.store(0);
  locked_ = false;
  log_.disconnect();
}

void Lease::become_follower() {
  // Whoever evaluates holds a shard's lock, and looks at the role under it.
  ShardSet all;
  all.set();
  ShardLocks locks;
  locks.lock(keyspace_.shards(), all);
  site_.set_role(Role::follower);
  undropped_ = true;
  journal_.disown_messages();
}

void Lease::step_down(const std::string& why) {
  log_.disconnect();
  become_follower();
  log_warning("This server gives the lease back", {{"cause", why}});
  locked_ = false;
  lease_.store(0);
  journal_.drop_state();
  if (hooks_.rebuild()) journal_.finish_drop(kDropped);
}

// The session broke while this server was the writer. What is in the log is asked behind the lock: then no
// commit of the old session can be under way any more.
void Lease::recover() {
  const bool mine = log_.try_lock();
  const backend::LeaseRow newest = log_.newest_lease();
  const bool own = newest.server == site_.server();
  if (!mine) {
    if (!own) demote("another server took the lease");
    return;
  }
  locked_ = true;
  const bool lacks = log_went_back_.load() || log_lacks_commits();
  // A former lease is the newest one: nobody has written since the log went back.
  if (!own && !(lacks && history_.knows(newest.lease))) {
    demote("another server had the lease in between");
    return;
  }
  if (lacks && !repair_log()) return;
  renew();
}

// The same writer in a new session: a new lease, behind whatever of the old one is not in the log yet.
void Lease::renew() {
  journal_.settle([this](backend::OriginId lease) { return log_.last_seq(lease); });
  const backend::OriginId lease = random_origin();
  journal_.begin_lease(lease_row(lease));
  lease_.store(lease);
  next_beat_ = Clock::now() + kBeatPeriod;
  site_.stats().leases_taken.fetch_add(1);
  log_info("Writing goes on in a new session", {{"lease", lease}});
}

void Lease::demote(const std::string& why) {
  const bool lacks = log_lacks_commits();
  if (lacks) log_went_back(journal_.committed_stamp_);
  become_follower();
  site_.stats().leases_lost.fetch_add(1);
  log_warning("This server is not the writer any more", {{"cause", why}});
  lease_.store(0);
  drop_uncommitted(lacks);
}

// Begun again by the next tick if the session breaks in the middle. `keeps_memory`: acknowledged writes may
// be nowhere but in this memory. They go into the log again, and what was not acknowledged with them.
void Lease::drop_uncommitted(bool keeps_memory) {
  // The session that had the lock is gone: what the log has of the last batch is final.
  journal_.settle([this](backend::OriginId lease) { return log_.last_seq(lease); });
  undropped_ = false;
  if (!journal_.has_uncommitted_state()) return;
  journal_.drop_state();
  if (keeps_memory || hooks_.rebuild()) journal_.finish_drop(kDropped);
}

void Lease::try_take() {
  const auto now = Clock::now();
  next_try_ = now + kTryPeriod;
  if (!willing_.load() || !site_.feed_healthy()) return;
  if (!locked_ && now - connected_since_ < kPrecedence && hooks_.writer_reachable()) return;
  if (!locked_ && !log_.try_lock()) return;
  locked_ = true;
  take_with_lock();
}

void Lease::take_with_lock() {
  if (log_went_back_.load()) seed_log(held());
  const backend::LeaseRow before = log_.newest_lease();
  const backend::Seq last = before.lease == 0 ? 0 : log_.last_seq(before.lease);
  const backend::OriginId lease = random_origin();
  const std::string value = lease_value({before.lease, last});
  Row row = lease_row(lease);
  row.site = log_.site();
  row.seq = 1;
  row.version = clock_.next(wall_clock_ms());
  row.value = value;
  RowBatch batch;
  batch.append(row);
  // Before the commit: the feed may show the row before this thread goes on.
  lease_.store(lease);
  taking_since_ = moved_at_ = Clock::now();
  next_beat_ = taking_since_ + kBeatPeriod;
  site_.set_role(Role::candidate);
  log_.append(batch, {});
  journal_.committed_stamp_ = {lease, row.seq};
}

Row Lease::lease_row(backend::OriginId lease) const {
  Row row;
  row.origin = lease;
  row.kind = backend::RowKind::lease;
  row.key = site_.address();
  row.requester = site_.server();
  return row;
}

void Lease::feed_shows(const Row& row) {
  history_.add(row.origin, parse_lease_value(row.value));
  site_.set_lease({row.origin, row.requester, std::string(row.key)});
  if (row.requester != site_.server()) {
    if (site_.role() != Role::follower) superseded_.store(true);
    return;
  }
  if (row.origin != lease_.load() || site_.role() != Role::candidate) return;
  journal_.adopt_lease(row.origin, row.seq);
  out_of_touch_.store(false);
  site_.set_role(Role::writer);
  site_.stats().leases_taken.fetch_add(1);
  log_info("This server is the writer of its site", {{"lease", row.origin}, {"address", site_.address()}});
}

}  // namespace isthmus
