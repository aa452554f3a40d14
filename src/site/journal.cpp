#include "src/site/journal.hpp"

#include <random>

#include "src/observe/logging.hpp"
#include "src/site/checkpointer.hpp"

namespace isthmus {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// How long the committing thread sleeps when nothing wakes it: the checkpoint's own clock.
constexpr milliseconds kIdlePeriod{50};
constexpr milliseconds kRetryPeriod{100};

backend::OriginId random_origin() {
  std::random_device device;
  const std::uint64_t bits = (std::uint64_t{device()} << 32) | device();
  return static_cast<backend::OriginId>((bits >> 1) | 1);
}

}  // namespace

Journal::Journal(backend::Log& log, HybridClock& clock)
    : log_(log), clock_(clock), durable_(log.durable()), site_(log.site()), origin_(random_origin()) {}

Journal::~Journal() { stop(milliseconds{0}); }

void Journal::start(Checkpointer* checkpointer, std::function<void()> after_commit) {
  checkpointer_ = checkpointer;
  after_commit_ = std::move(after_commit);
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
  available_.store(available);
}

void Journal::Group::hold() {
  if (!lock_.owns_lock()) lock_ = std::unique_lock(journal_->mutex_);
}

void Journal::Group::add(backend::Row& row, std::int64_t now_ms, backend::Version floor) {
  Journal& j = *journal_;
  row.site = j.site_;
  row.origin = j.origin_;
  if (!j.durable_) {
    row.version = j.clock_.next(now_ms, floor);
    return;
  }
  hold();
  row.seq = j.appended_.load(std::memory_order_relaxed) + 1;
  row.version = j.clock_.next(now_ms, floor);
  row.group_end = false;
  const std::size_t before = j.open_.bytes();
  j.open_.append(row);
  j.appended_.store(row.seq, std::memory_order_relaxed);
  j.backlog_bytes_.fetch_add(j.open_.bytes() - before, std::memory_order_relaxed);
  has_rows_ = true;
}

void Journal::Group::after_commit(std::function<void()> deliver) {
  Journal& j = *journal_;
  if (!j.durable_ || (!has_rows_ && j.committed() >= j.appended())) {
    deliver();
    return;
  }
  hold();
  j.open_deferred_.push_back({j.appended_.load(std::memory_order_relaxed), std::move(deliver)});
}

void Journal::Group::close() {
  if (!lock_.owns_lock()) return;
  if (has_rows_) journal_->open_.end_group();
  has_rows_ = false;
  lock_.unlock();
}

void Journal::commit_soon() { work_.notify_one(); }

void Journal::wait_for_work() {
  std::unique_lock lock(mutex_);
  const auto gathered = [this] { return !open_.empty() || !open_deferred_.empty() || stopping_; };
  if (checkpointer_ != nullptr && checkpointer_->busy()) return;
  work_.wait_for(lock, kIdlePeriod, gathered);
}

void Journal::run() {
  for (;;) {
    wait_for_work();
    if (!commit_with_retries()) return;
    if (checkpointer_ != nullptr) checkpointer_->step(*this);
    const std::lock_guard lock(mutex_);
    if (stopping_ && open_.empty() && open_deferred_.empty()) return;
  }
}

// False if the process must stop with the batch still uncommitted.
bool Journal::commit_with_retries() {
  while (!commit_gathered()) {
    std::unique_lock lock(mutex_);
    if (stopping_ && steady_clock::now() >= stop_deadline_) return false;
    work_.wait_for(lock, kRetryPeriod, [this] { return stopping_; });
    if (stopping_) {
      lock.unlock();
      std::this_thread::sleep_for(milliseconds{10});
    }
  }
  return true;
}

bool Journal::commit_gathered() {
  if (committing_.empty()) {
    const std::lock_guard lock(mutex_);
    std::swap(open_, committing_);
    std::swap(open_deferred_, committing_deferred_);
  }
  if (!committing_.empty()) {
    try {
      log_.append(committing_);
    } catch (const backend::AppendError& error) {
      // A rejected batch cannot come from here: groups are limited far below what SQL can hold
      // (kGroupLimitBytes).
      stats_.failures.fetch_add(1, std::memory_order_relaxed);
      set_available(false, error.what());
      return false;
    }
    set_available(true, {});
  }
  for (const Deferred& deferred : committing_deferred_) deferred.deliver();
  committing_deferred_.clear();
  if (committing_.empty()) return true;
  stats_.commits.fetch_add(1, std::memory_order_relaxed);
  stats_.rows.fetch_add(committing_.size(), std::memory_order_relaxed);
  backlog_bytes_.fetch_sub(committing_.bytes(), std::memory_order_relaxed);
  committed_.store(committing_[committing_.size() - 1].seq);
  after_commit_();
  if (checkpointer_ != nullptr) checkpointer_->note(committing_);
  committing_.clear();
  return true;
}

}  // namespace isthmus
