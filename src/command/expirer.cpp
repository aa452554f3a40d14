#include "src/command/expirer.hpp"

#include <chrono>

#include "src/command/call.hpp"

namespace isthmus {
namespace {

// An `expired` event may be late by this much and what the deletions before it take.
constexpr std::chrono::milliseconds kPeriod{10};
// Keys deleted under one hold of a shard's lock: some tens of microseconds.
constexpr std::size_t kAtOnce = 64;

}  // namespace

void Expirer::start() {
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
    // While the log refuses writes the keys stay hidden and are deleted later.
    bool more = services_.journal.available() && (services_.site == nullptr || services_.site->is_writer());
    while (more) {
      more = false;
      const std::int64_t now = wall_clock_ms();
      for (std::size_t i = 0; i < kShards; ++i) {
        if (services_.keyspace.shards()[i].next_deadline.load(std::memory_order_relaxed) > now) continue;
        more |= Evaluation(services_, now).expire_due(i, kAtOnce);
      }
      more &= services_.journal.backlog_bytes() < Journal::kBacklogLimitBytes;
    }
    services_.journal.commit_soon();
    lock.lock();
  }
}

}  // namespace isthmus
