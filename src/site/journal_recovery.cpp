// What becomes of uncommitted rows when a session, a lease or a row is lost (shared logs only). All of it
// runs on the committing thread.
#include <iterator>

#include "src/observe/logging.hpp"
#include "src/site/journal.hpp"
#include "src/site/lease.hpp"
#include "src/site/site.hpp"

namespace isthmus {

using backend::Row;
using backend::RowBatch;
using backend::Seq;

bool has_rows_of_lease(const RowBatch& rows, backend::OriginId server) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i].origin != server) return true;
  }
  return false;
}

bool Journal::has_uncommitted_state() {
  const std::lock_guard lock(mutex_);
  const backend::OriginId server = site_member_->server();
  return has_rows_of_lease(committing_.rows, server) || has_rows_of_lease(open_.rows, server) ||
         !committing_.inbox.empty() || !open_.inbox.empty();
}

/// Ends the old lease and begins a new one behind everything appended so far: the lease row is the first of
/// its origin, and what comes after it is numbered under it.
void Journal::begin_lease(Row lease_row) {
  const std::lock_guard lock(mutex_);
  lease_row.value = {};
  const std::string value = std::to_string(lease_) + ":" + std::to_string(lease_seq_);
  lease_row.site = site_;
  lease_row.seq = 1;
  lease_row.version = clock_.next(wall_clock_ms());
  lease_row.value = value;
  const std::size_t before = open_.rows.held_bytes();
  open_.rows.append(lease_row);
  backlog_bytes_.fetch_add(open_.rows.held_bytes() - before, std::memory_order_relaxed);
  appended_.store(appended_.load(std::memory_order_relaxed) + 1);
  lease_ = lease_row.origin;
  lease_seq_ = 1;
}

/// From now on rows are numbered under this lease, of which `seq` rows are in the log already.
void Journal::adopt_lease(backend::OriginId lease, Seq seq) {
  const std::lock_guard lock(mutex_);
  lease_ = lease;
  lease_seq_ = seq;
}

/// Forgets the rows of the batch in hand that are in the log, with everything in front of them, which was in
/// the same transaction or an earlier one; and the requests of the inbox that these rows are of.
/// `last_in_log` says how far the log has the rows of a lease.
void Journal::settle(const std::function<Seq(backend::OriginId)>& last_in_log) {
  std::size_t settled = 0;
  LeaseStamp asked{};
  for (std::size_t i = 0; i < committing_.rows.size(); ++i) {
    const Row row = committing_.rows[i];
    if (row.origin == site_member_->server()) continue;
    if (row.origin != asked.lease) asked = {row.origin, last_in_log(row.origin)};
    if (row.seq <= asked.seq) settled = i + 1;
  }
  if (settled == 0) return;
  std::erase_if(committing_.inbox, [&](const Stamp& stamp) { return stamp.end <= settled; });
  std::size_t index = 0;
  keep_rows(committing_, [&](const Row&) { return index++ >= settled; });
  if (has_rows_of_lease(committing_.rows, site_member_->server())) return;
  // The whole batch is in the log: what waited for it need not wait for what becomes of the lease.
  for (const Deferred& deferred : committing_.deferred) deferred.deliver();
  committing_.deferred.clear();
  if (committing_.last_place <= committed()) return;
  committed_.store(committing_.last_place);
  hooks_.after_commit();
}

/// Keeps some rows of a batch. What the inbox asked for stands behind the same ones as before.
void Journal::keep_rows(Batch& batch, const std::function<bool(const Row&)>& keep) {
  const std::size_t bytes = batch.rows.held_bytes();
  std::vector<std::size_t> kept{0};  // how many of the first 0, 1, 2 … rows
  batch.rows.keep_if([&](const Row& row) {
    const bool stays = keep(row);
    kept.push_back(kept.back() + (stays ? 1 : 0));
    return stays;
  });
  for (Stamp& stamp : batch.inbox) stamp.end = kept[stamp.end];
  backlog_bytes_.fetch_sub(bytes - batch.rows.held_bytes(), std::memory_order_relaxed);
}

/// A request that made no rows goes with those in front of it.
std::vector<std::int64_t> Journal::Batch::inbox_ids(std::size_t begin, std::size_t end) const {
  std::vector<std::int64_t> ids;
  for (const Stamp& stamp : inbox) {
    if (stamp.end <= end && (stamp.end > begin || begin == 0)) ids.push_back(stamp.inbox_id);
  }
  return ids;
}

/// Forgets all uncommitted rows of the lease, with their events. This server's messages stay: they are
/// appended again.
void Journal::drop_state() {
  const std::lock_guard lock(mutex_);
  for (Batch* batch : {&committing_, &open_}) {
    keep_rows(*batch, [this](const Row& row) { return row.origin == site_member_->server(); });
    batch->inbox.clear();
    std::erase_if(batch->deferred,
                  [](const Deferred& deferred) { return deferred.what == Deferral::effect; });
  }
  if (!committing_.empty()) return;
  // The batch in hand is done with, and what is left of it stays in front.
  open_.deferred.insert(open_.deferred.begin(), std::make_move_iterator(committing_.deferred.begin()),
                        std::make_move_iterator(committing_.deferred.end()));
  committing_.deferred.clear();
}

/// This server is not the writer any more, and its messages have been numbered as a writer's: without a
/// version the feed of the next writer shows them.
void Journal::disown_messages() {
  const std::lock_guard lock(mutex_);
  for (Batch* batch : {&committing_, &open_}) batch->rows.clear_message_versions(site_member_->server());
}

/// Everything that waits gets the error; what is appended from now on can wait for its own commit again.
void Journal::finish_drop(const std::string& error) {
  const Seq from = committed(), to = appended();
  hooks_.fail_waiting(from, to, error);
  committed_.store(to);
  hooks_.after_commit();
}

/// Messages that were sent before `before_ms` (by the database's clock) are worth nothing any more. Those of
/// the batch in hand may be in the log already and stay.
void Journal::drop_old_messages(std::int64_t before_ms) {
  const std::lock_guard lock(mutex_);
  if (open_.rows.empty()) return;
  const std::size_t rows = open_.rows.size();
  const backend::OriginId server = site_member_->server();
  keep_rows(open_, [&](const Row& row) { return row.origin != server || row.sent_at >= before_ms; });
  site_member_->stats().dropped_messages.fetch_add(rows - open_.rows.size(), std::memory_order_relaxed);
}

bool Journal::append_group(std::size_t begin, std::size_t end) {
  RowBatch group;
  for (std::size_t i = begin; i < end; ++i) group.append(committing_.rows[i]);
  try {
    lease_keeper_->append(group, committing_.inbox_ids(begin, end));
    return true;
  } catch (const backend::AppendError& error) {
    if (error.kind != backend::AppendError::Kind::rejected) throw;
    log_error("SQL refuses the effects of a command; it is undone", {{"cause", error.what()}});
    refuse_group(begin, end, error.what());
    return false;
  }
}

/// The places of a batch from which rows were dropped say no more whose they are: then nobody of it is told
/// that his command is done.
void Journal::refuse_group(std::size_t begin, std::size_t end, const std::string& cause) {
  const Seq before_batch = committing_.last_place - committing_.rows.size();
  const bool exact = before_batch == committed();
  const Seq from = exact ? before_batch + begin : committed();
  const Seq to = exact ? before_batch + end : committing_.last_place;
  hooks_.fail_waiting(from, to,
                      exact ? "ERR The log refused the effects of this command: " + cause
                            : "CLUSTERDOWN The log refused a command; this one may or may not be done");
  std::erase_if(committing_.deferred, [&](const Deferred& deferred) {
    return deferred.what == Deferral::effect && deferred.gate > from && deferred.gate <= to;
  });
}

/// SQL refuses the batch: commits its groups one by one, tells the guilty ones, and gives the lease back, as
/// the memory holds what the log does not. True when the batch is done with.
bool Journal::drop_rejected() {
  bool all = true;
  const auto step_down = [&] {
    if (!all && site_member_->is_writer()) lease_keeper_->step_down("SQL refused a row");
  };
  try {
    std::size_t begin = 0;
    for (std::size_t i = 0; i < committing_.rows.size(); ++i) {
      if (!committing_.rows[i].group_end) continue;
      all &= append_group(begin, i + 1);
      begin = i + 1;
    }
    // What the inbox asked for is done, and gone with its group, or never will be.
    if (!committing_.inbox.empty()) lease_keeper_->append({}, committing_.inbox_ids());
    committing_.inbox.clear();
    if (!all) {
      backlog_bytes_.fetch_sub(committing_.rows.held_bytes(), std::memory_order_relaxed);
      committing_.rows.clear();
    }
    finish_commit();
    step_down();
    return true;
  } catch (const backend::AppendError& error) {
    set_available(false, error.what());
    step_down();
    return false;
  }
}

}  // namespace isthmus
