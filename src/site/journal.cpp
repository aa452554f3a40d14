#include "src/site/journal.hpp"

#include <random>

#include "src/observe/logging.hpp"
#include "src/site/checkpointer.hpp"
#include "src/site/lease.hpp"
#include "src/site/site.hpp"

namespace isthmus {
namespace {

using backend::RowKind;
using backend::Seq;
using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How long the committing thread sleeps when nothing wakes it: the checkpoint's own clock.
constexpr milliseconds kIdlePeriod{50};
constexpr milliseconds kRetryPeriod{100};

}  // namespace

backend::OriginId random_origin() {
  std::random_device device;
  const std::uint64_t bits = (std::uint64_t{device()} << 32) | device();
  return static_cast<backend::OriginId>((bits >> 1) | 1);
}

Journal::Journal(backend::Log& log, HybridClock& clock, Site* site)
    : log_(log), clock_(clock), site_member_(site), durable_(log.durable()), site_(log.site()) {
  if (site == nullptr) lease_ = random_origin();
}

Journal::~Journal() { stop(milliseconds{0}); }

void Journal::start(Checkpointer* checkpointer, Lease* lease, Hooks hooks) {
  checkpointer_ = checkpointer;
  lease_keeper_ = lease;
  hooks_ = std::move(hooks);
  if (durable_) thread_ = std::thread([this] { run(); });
}

bool Journal::stop(milliseconds patience) {
  if (!thread_.joinable()) return true;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    stop_deadline_ = steady_clock::now() + patience;
  }
  work_.notify_one();
  thread_.join();
  return committed() == appended();
}

std::string Journal::unavailable_reason() const {
  const std::lock_guard lock(reason_mutex_);
  return reason_;
}

std::string Journal::waiting_reason() const {
  std::string reason = unavailable_reason();
  return reason.empty() ? "the backend has not answered yet" : reason;
}

void Journal::set_available(bool available, const std::string& reason) {
  {
    const std::lock_guard lock(reason_mutex_);
    if (available_.load() == available && reason_ == reason) return;
    reason_ = reason;
  }
  if (available) {
    log_info("The backend takes writes again", {{"backend", log_.description()}});
  } else {
    log_error("The backend refuses writes; reads and pub/sub go on",
              {{"backend", log_.description()}, {"cause", reason}});
  }
  if (available) {
    available_.store(true);
    return;
  }
  // Messages go on without a log, and those that come now must not overtake those that wait for a commit:
  // they wait for this lock until the others are out.
  const std::lock_guard lock(mutex_);
  for (Batch* batch : {&committing_, &open_}) {
    for (const Deferred& deferred : batch->deferred) {
      if (deferred.what == Deferral::message) deferred.deliver();
    }
    std::erase_if(batch->deferred,
                  [](const Deferred& deferred) { return deferred.what == Deferral::message; });
  }
  available_.store(false);
}

bool Journal::event_may_leave() const {
  if (shared() && !site_member_->is_writer()) return events_waiting_.load() == 0;
  return quiet();
}

Journal::LeaseStamp Journal::lease_stamp() const {
  const std::lock_guard lock(mutex_);
  return {lease_, lease_seq_};
}

void Journal::count_checkpoint() {
  stats_.checkpoints.fetch_add(1, std::memory_order_relaxed);
  stats_.last_checkpoint_ms.store(wall_clock_ms());
}

void Journal::Group::hold() {
  if (lock_.owns_lock()) return;
  lock_ = std::unique_lock(journal_->mutex_);
  first_ = journal_->open_.rows.size();
}

Seq Journal::Group::append(const backend::Row& row) {
  Journal& j = *journal_;
  const Seq place = j.appended_.load(std::memory_order_relaxed) + 1;
  const std::size_t before = j.open_.rows.held_bytes();
  j.open_.rows.append(row);
  j.appended_.store(place, std::memory_order_relaxed);
  j.backlog_bytes_.fetch_add(j.open_.rows.held_bytes() - before, std::memory_order_relaxed);
  has_rows_ = true;
  return place;
}

backend::OriginId Journal::Group::lease() {
  if (journal_->durable_) hold();
  return journal_->lease_;
}

Seq Journal::Group::add(backend::Row& row, std::int64_t now_ms, backend::Version floor) {
  Journal& j = *journal_;
  row.site = j.site_;
  if (!j.durable_) {
    row.version = j.clock_.next(now_ms, floor);
    return 0;
  }
  hold();
  row.origin = j.lease_;
  row.seq = ++j.lease_seq_;
  row.version = j.clock_.next(now_ms, floor);
  row.group_end = false;
  return append(row);
}

Seq Journal::Group::add_message(backend::Row& row) {
  Journal& j = *journal_;
  hold();
  row.site = j.site_;
  row.origin = j.site_member_->server();
  row.seq = 0;
  row.version = 0;
  row.group_end = false;
  return append(row);
}

void Journal::Group::add_event(std::uint8_t db, std::string_view key, std::string_view event) {
  if (!has_rows_ || !journal_->shared()) return;
  backend::RowBatch& rows = journal_->open_.rows;
  for (std::size_t i = rows.size(); i > first_; --i) {
    const backend::Row row = rows[i - 1];
    if (!backend::is_of_key(row.kind) || row.db != db || row.key != key) continue;
    rows.add_event(i - 1, event);
    return;
  }
}

void Journal::Group::stamp_inbox(std::int64_t id) {
  hold();
  journal_->open_.inbox.push_back({id, journal_->open_.rows.size()});
}

void Journal::Group::answer(backend::OriginId requester, std::uint64_t request, std::string_view reply) {
  if (!has_rows_) return;
  if (reply.size() > kAnswerLimitBytes) reply = {};
  journal_->open_.rows.answer(requester, request, reply);
}

void Journal::Group::after_commit(std::function<void()> deliver, Deferral what) {
  Journal& j = *journal_;
  if (!j.durable_ || (!has_rows_ && j.quiet())) {
    deliver();
    return;
  }
  hold();
  const bool message = what == Deferral::message;
  if (message && !j.available()) {
    deliver();
    return;
  }
  j.open_.deferred.push_back({j.appended_.load(std::memory_order_relaxed), std::move(deliver), what,
                              Waiting(message ? j.messages_waiting_ : j.events_waiting_)});
}

void Journal::Group::close() {
  if (!lock_.owns_lock()) return;
  if (has_rows_) journal_->open_.rows.end_group();
  has_rows_ = false;
  lock_.unlock();
}

void Journal::commit_soon() { work_.notify_one(); }

void Journal::wait_for_work() {
  std::unique_lock lock(mutex_);
  const auto gathered = [this] { return !open_.empty() || !open_.deferred.empty() || stopping_; };
  if (checkpointer_ != nullptr && lease_keeper_ == nullptr && checkpointer_->busy()) return;
  work_.wait_for(lock, kIdlePeriod, gathered);
}

void Journal::run() {
  for (;;) {
    wait_for_work();
    keep_pace();
    if (lease_keeper_ != nullptr) lease_keeper_->tick();
    if (!commit_with_retries()) break;
    // On a shared log the checkpoint has a thread and a session of its own.
    if (checkpointer_ != nullptr && lease_keeper_ == nullptr) checkpointer_->step(*this);
    const std::lock_guard lock(mutex_);
    if (stopping_ && open_.empty() && open_.deferred.empty()) break;
  }
  if (lease_keeper_ != nullptr) lease_keeper_->give_back();
}

void Journal::keep_pace() {
  const std::chrono::microseconds interval(commit_interval_us_.load(std::memory_order_relaxed));
  if (interval.count() > 0) std::this_thread::sleep_until(last_commit_ + interval);
}

// False if the process must stop with the batch still uncommitted.
bool Journal::commit_with_retries() {
  while (!commit_gathered()) {
    {
      std::unique_lock lock(mutex_);
      if (stopping_ && steady_clock::now() >= stop_deadline_) return false;
      work_.wait_for(lock, kRetryPeriod, [this] { return stopping_; });
      if (stopping_) {
        lock.unlock();
        std::this_thread::sleep_for(milliseconds{10});
      }
    }
    if (lease_keeper_ != nullptr) lease_keeper_->tick();
  }
  return true;
}

void Journal::take_open() {
  const std::lock_guard lock(mutex_);
  std::swap(open_, committing_);
  committing_.last_place = appended_.load(std::memory_order_relaxed);
  if (!shared()) return;
  // A message of the writer has a version, which keeps it out of the writer's own feed.
  const backend::Version version = site_member_->is_writer() ? clock_.next(wall_clock_ms()) : 0;
  message_seq_ = committing_.rows.number_messages(site_member_->server(), message_seq_, version);
}

bool Journal::commit_gathered() {
  if (committing_.empty()) take_open();
  if (!committing_.empty() && !append_committing()) return false;
  finish_commit();
  return true;
}

bool Journal::append_committing() {
  const auto begin = steady_clock::now();
  last_commit_ = begin;
  try {
    if (lease_keeper_ != nullptr) {
      lease_keeper_->append(committing_.rows, committing_.inbox_ids());
    } else {
      log_.append(committing_.rows);
    }
  } catch (const backend::AppendError& error) {
    stats_.failures.fetch_add(1, std::memory_order_relaxed);
    if (error.kind == backend::AppendError::Kind::rejected && lease_keeper_ != nullptr)
      return drop_rejected();
    set_available(false, error.what());
    return false;
  }
  const auto took = steady_clock::now() - begin;
  stats_.commit_time.add(static_cast<std::uint64_t>(std::chrono::nanoseconds(took).count()));
  set_available(true, {});
  return true;
}

void Journal::finish_commit() {
  for (const Deferred& deferred : committing_.deferred) deferred.deliver();
  committing_.deferred.clear();
  if (committing_.last_place > committed()) {
    committed_.store(committing_.last_place);
    hooks_.after_commit();
  }
  if (committing_.empty()) {
    tell_own_rows();
    return;
  }
  stats_.commits.fetch_add(1, std::memory_order_relaxed);
  stats_.rows.fetch_add(committing_.rows.size(), std::memory_order_relaxed);
  backlog_bytes_.fetch_sub(committing_.rows.held_bytes(), std::memory_order_relaxed);
  note_committed();
  committing_.rows.clear();
  committing_.inbox.clear();
}

// Beyond the reach of replies: what the checkpoint and a later recovery want to know.
void Journal::note_committed() {
  for (std::size_t i = committing_.rows.size(); shared() && i > 0; --i) {
    const backend::Row row = committing_.rows[i - 1];
    if (row.origin == site_member_->server()) continue;
    committed_stamp_ = {row.origin, row.seq};
    break;
  }
  tell_own_rows();
  if (checkpointer_ != nullptr) checkpointer_->note(committing_.rows);
}

// Also when nothing is committed: a new writer whose only command is one that it had forwarded waits for it.
void Journal::tell_own_rows() {
  if (!shared() || !site_member_->is_writer() || !hooks_.wants_own_answers()) return;
  hooks_.own_rows(committing_.rows, committed_stamp_);
}

}  // namespace isthmus
