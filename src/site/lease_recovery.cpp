// What becomes of the lease when the log went back in time: a standby was promoted that lacked its end, or a
// backup was restored. The memory of the servers holds what the log has lost. All of it, but for the feed's
// word, runs on the committing thread.
#include <algorithm>
#include <thread>

#include "src/observe/logging.hpp"
#include "src/site/lease.hpp"
#include "src/site/reseed.hpp"

namespace isthmus {
namespace {

using backend::AppendError;
using backend::Row;
using backend::RowBatch;
using std::chrono::milliseconds;

// How long a server that takes the lock from another one tries at a time, and how often.
constexpr milliseconds kSeizing{500}, kSeizePeriod{5};
// The last writer, which has seen the most, gets so long to append what it holds before others do.
constexpr milliseconds kAuthorFirst{3000};

}  // namespace

void Lease::log_went_back(const LeaseStamp& held) {
  const std::lock_guard lock(held_mutex_);
  // Of its own lease the feed shows a writer less than it has committed.
  const backend::Seq known = log_went_back_.load() && held_.lease == held.lease ? held_.seq : 0;
  held_ = {held.lease, std::max(held.seq, known)};
  debt_since_.store(Clock::now());
  log_went_back_.store(true);
}

LeaseStamp Lease::held() const {
  const std::lock_guard lock(held_mutex_);
  return held_;
}

// Whether the database lacks what it has told this server to be committed.
bool Lease::log_lacks_commits() {
  const LeaseStamp stamp = journal_.committed_stamp_;
  return stamp.lease != 0 && log_.last_seq(stamp.lease) < stamp.seq;
}

// This server is the writer: what its memory holds beyond the log is appended again. What waits for its
// commit follows as it is. False if the memory has been exchanged meanwhile, as rows had been missed, and
// knows nothing of what waits: then this server stays a follower, and drops that.
bool Lease::repair_log() {
  become_follower();
  try {
    seed_log(journal_.committed_stamp_);
  } catch (...) {
    site_.set_role(Role::writer);
    throw;
  }
  if (out_of_touch_.load()) return false;
  site_.set_role(Role::writer);
  return true;
}

// This session holds the lock. The rows come under an origin of their own, which is a lease, so that nobody
// takes the holder of the lock for somebody who is silent; its row tells others how much this server had
// seen.
void Lease::seed_log(const LeaseStamp& held) {
  RowBatch first;
  const std::string value = lease_value(held);
  Row row = lease_row(random_origin());
  row.site = log_.site();
  row.seq = 1;
  row.version = clock_.next(wall_clock_ms());
  row.value = value;
  first.append(row);
  log_.append(first, {});
  const std::optional<RowBatch> rows = hooks_.compare([&] { log_.beat(row.origin); });
  if (!rows) throw AppendError(AppendError::Kind::unavailable, "the server stops");
  append_seeds(log_, *rows, row.origin, row.seq);
  log_went_back_.store(false);
  journal_.committed_stamp_ = {row.origin, row.seq};
  site_.stats().seed_rows.fetch_add(rows->size());
  log_warning("What this server holds beyond the log has been appended to it again",
              {{"rows", rows->size()}, {"lease", row.origin}});
}

// This server is not the writer, and has seen what the log lacks. Who went on with the lease may have seen
// more, and has appended it: then our memory is to be what the log says. Or less: then the lease is taken
// from it.
void Lease::settle_debt() {
  const LeaseStamp ours = held();
  switch (history_.judge(ours)) {
    case LeaseHistory::Verdict::alone:
      try_take();
      return;
    case LeaseHistory::Verdict::covered:
      if (hooks_.rebuild()) log_went_back_.store(false);
      return;
    case LeaseHistory::Verdict::ahead: {
      const bool author = ours.lease == journal_.committed_stamp_.lease;
      if (author || Clock::now() - debt_since_.load() >= kAuthorFirst) seize();
      return;
    }
  }
}

// Ends the session of the server that has the lock, which frees it.
void Lease::seize() {
  next_try_ = Clock::now() + kTryPeriod;
  if (!willing_.load() || !site_.feed_healthy()) return;
  const auto deadline = Clock::now() + kSeizing;
  log_warning("This server has seen what the log has lost, and takes the lease from one that has not");
  log_.end_holder();
  while (!log_.try_lock()) {
    if (Clock::now() >= deadline) return;
    std::this_thread::sleep_for(kSeizePeriod);
  }
  locked_ = true;
  take_with_lock();
}

}  // namespace isthmus
