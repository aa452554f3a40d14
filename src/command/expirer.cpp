#include "src/command/expirer.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "src/command/call.hpp"

namespace isthmus {
namespace {

// An `expired` event may be late by this much and what the deletions before it take.
constexpr std::chrono::milliseconds kPeriod{10};
// Keys deleted under one hold of a shard's lock: some tens of microseconds.
constexpr std::size_t kAtOnce = 64;
// What can be forgotten may wait by this much.
constexpr std::chrono::milliseconds kSweepPeriod{100};

}  // namespace

void Expirer::start() {
  looked_ms_ = wall_clock_ms();
  thread_ = std::thread([this] { run(); });
}

void Expirer::stop() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_asked_.notify_one();
  thread_.join();
}

void Expirer::run() {
  std::unique_lock lock(mutex_);
  while (!stop_asked_.wait_for(lock, kPeriod, [this] { return stopping_; })) {
    lock.unlock();
    expire();
    sweep();
    lock.lock();
  }
}

// While the log refuses writes, or CLIENT PAUSE holds them, the keys stay hidden and are deleted later.
// Linked sites delete nothing, and every server tells for itself: what has been expired for long was told by
// the process before this one, or by nobody, unless this process has stood still since.
void Expirer::expire() {
  if (services_.pause.active(wall_clock_ms())) return;
  const Keyspace& keyspace = services_.keyspace;
  bool more = keyspace.linked() ||
              (services_.journal.available() && (services_.site == nullptr || services_.site->is_writer()));
  const std::int64_t looked_before_ms = std::exchange(looked_ms_, wall_clock_ms());
  while (more) {
    more = false;
    const std::int64_t now = wall_clock_ms();
    const std::int64_t news_since = std::min(looked_before_ms, now - services_.config.message_max_age_ms);
    for (std::size_t i = 0; i < kShards; ++i) {
      if (services_.keyspace.shards()[i].next_deadline.load(std::memory_order_relaxed) > now) continue;
      more |= Evaluation(services_, now).expire_due(i, kAtOnce, news_since);
    }
    more &= services_.journal.backlog_bytes() < Journal::kBacklogLimitBytes;
  }
  services_.journal.commit_soon();
}

// Only linked sites have anything to forget later, or those that were linked.
void Expirer::sweep() {
  const auto now = std::chrono::steady_clock::now();
  if (now < next_sweep_) return;
  next_sweep_ = now + kSweepPeriod;
  Checkpointer* const checkpointer = services_.checkpointer;
  const auto changed = [&](const Key& key) {
    const bool writer = services_.site == nullptr || services_.site->is_writer();
    if (checkpointer != nullptr && writer) checkpointer->note_key(key.db, key.name);
  };
  for (std::size_t i = 0; i < kShards; ++i) {
    bool more = true;
    while (more) {
      const std::lock_guard lock(services_.keyspace.shards()[i].mutex);
      more = services_.keyspace.collect(i, kAtOnce, changed);
    }
  }
}

}  // namespace isthmus
