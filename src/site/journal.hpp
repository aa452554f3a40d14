// The way of effects into the log: numbering, group commit, and what may leave only after it.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "backend/log.hpp"
#include "src/keyspace/clock.hpp"

namespace isthmus {

class Checkpointer;

/// Numbers effects (seq and version in one step), gathers them in the open batch and commits what has
/// gathered on a thread of its own. On a log that is not durable nothing is gathered and everything counts as
/// committed. Thread-safe.
class Journal {
 public:
  /// `log` and `clock` outlive the journal.
  Journal(backend::Log& log, HybridClock& clock);
  ~Journal();

  /// Begins a new lease (origin) and the committing thread. `checkpointer` may be null.
  void start(Checkpointer* checkpointer, std::function<void()> after_commit);
  /// Commits what has gathered, if the backend can, and ends the thread. True if nothing was left behind.
  bool stop(std::chrono::milliseconds patience);

  /// Wakes the committing thread if it sleeps. Groups do not do so themselves: who evaluates several requests
  /// in a row calls this after the last one, and they are committed together.
  void commit_soon();

  bool durable() const { return durable_; }
  /// False while the backend refuses commits: new writes fail at once, reads go on.
  bool available() const { return available_.load(std::memory_order_relaxed); }
  /// Why, in one line; empty when available.
  std::string unavailable_reason() const;

  /// Everything up to this seq is in the log and everything that waited for it has been handed out.
  backend::Seq committed() const { return committed_.load(); }
  /// The seq of the last effect that has been numbered.
  backend::Seq appended() const { return appended_.load(std::memory_order_relaxed); }
  /// Bytes of effects that wait for their commit.
  std::size_t backlog_bytes() const { return backlog_bytes_.load(std::memory_order_relaxed); }
  /// Above this a connection reads no further requests until the next commit.
  static constexpr std::size_t kBacklogLimitBytes = 64 << 20;
  /// The effects of one command or EXEC may not be larger: a larger row poisons its batch (design: effects
  /// over 256 MiB).
  static constexpr std::size_t kGroupLimitBytes = 256 << 20;

  /// The effects of one command or one EXEC. Opened under the shard locks of the command; holds the open
  /// batch from its first effect to its end, so that the group stays together and seq, version and stream
  /// order are the same.
  class Group {
   public:
    explicit Group(Journal& journal) : journal_(&journal) {}
    ~Group() { close(); }
    Group(const Group&) = delete;
    Group& operator=(const Group&) = delete;
    /// Sets seq, version, site and origin of the row and puts it into the batch. The version is at least
    /// `floor`.
    void add(backend::Row& row, std::int64_t now_ms, backend::Version floor);
    /// Calls `deliver` when all effects numbered so far have been committed; at once if there is nothing to
    /// wait for.
    void after_commit(std::function<void()> deliver);
    /// Ends the group and lets others append.
    void close();

   private:
    void hold();
    Journal* journal_;
    std::unique_lock<std::mutex> lock_;
    bool has_rows_ = false;
  };

  struct Stats {
    std::atomic<std::uint64_t> commits{0};
    std::atomic<std::uint64_t> rows{0};
    std::atomic<std::uint64_t> failures{0};
    std::atomic<std::uint64_t> checkpoints{0};
    std::atomic<std::int64_t> last_checkpoint_ms{0};  ///< milliseconds since the Unix epoch
  };
  const Stats& stats() const { return stats_; }
  backend::OriginId origin() const { return origin_; }
  backend::SiteId site() const { return site_; }

 private:
  friend class Checkpointer;
  struct Deferred {
    backend::Seq gate;
    std::function<void()> deliver;
  };
  void run();
  bool commit_gathered();
  bool commit_with_retries();
  void set_available(bool available, const std::string& reason);
  void wait_for_work();

  backend::Log& log_;
  HybridClock& clock_;
  const bool durable_;
  backend::SiteId site_;
  backend::OriginId origin_ = 0;
  Checkpointer* checkpointer_ = nullptr;
  std::function<void()> after_commit_;

  mutable std::mutex mutex_;  // the open batch and everything numbered under it
  std::condition_variable work_;
  backend::RowBatch open_;
  std::vector<Deferred> open_deferred_;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stop_deadline_;

  backend::RowBatch committing_;
  std::vector<Deferred> committing_deferred_;
  std::atomic<backend::Seq> appended_{0};
  std::atomic<backend::Seq> committed_{0};
  std::atomic<std::size_t> backlog_bytes_{0};
  std::atomic<bool> available_{true};
  mutable std::mutex reason_mutex_;
  std::string reason_;
  Stats stats_;
  std::thread thread_;
};

}  // namespace isthmus
