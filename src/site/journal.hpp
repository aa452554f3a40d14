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
#include <utility>
#include <vector>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/observe/histogram.hpp"
#include "src/site/lease_history.hpp"

namespace isthmus {

class Checkpointer;
class Lease;
class Site;

/// Numbers effects (seq and version in one step), gathers them in the open batch and commits what has
/// gathered on a thread of its own. On a log that is not durable nothing is gathered and everything counts as
/// committed. Thread-safe.
///
/// What waits for a commit names it by its *place*: 1, 2, 3 … over all rows that this process ever appended,
/// of whatever origin. (On an embedded log, which has one origin a process, places are seqs.)
class Journal {
 public:
  /// `log`, `clock` and `site` outlive the journal. `site` is null on an embedded log.
  Journal(backend::Log& log, HybridClock& clock, Site* site = nullptr);
  ~Journal();

  using LeaseStamp = isthmus::LeaseStamp;

  /// What waits for a commit, and what becomes of it if there is none.
  enum class Deferral : std::uint8_t {
    effect,   ///< of rows of this server: dropped with them
    message,  ///< does not wait while the backend refuses commits, and is never dropped
    news,  ///< of what is in the log already, or of the time: waits for its turn only, and is never dropped
  };

  /// What the committing thread calls.
  struct Hooks {
    std::function<void()> after_commit;
    /// Replies that wait for a place in (from, to] get this error; returns when all of them have it.
    std::function<void(backend::Seq from, backend::Seq to, const std::string& error)> fail_waiting;
    /// Shared logs: whether this server waits for answers that its own rows may hold (it became the writer
    /// while it was forwarding), and what has been committed then.
    std::function<bool()> wants_own_answers;
    std::function<void(const backend::RowBatch&, const LeaseStamp&)> own_rows;
  };
  /// Begins the committing thread. `checkpointer` may be null; `lease` is null on an embedded log, where the
  /// journal itself begins a new lease (origin).
  void start(Checkpointer* checkpointer, Lease* lease, Hooks hooks);
  /// Commits what has gathered, if the backend can, and ends the thread. True if nothing was left behind.
  bool stop(std::chrono::milliseconds patience);

  /// Wakes the committing thread if it sleeps. Groups do not do so themselves: who evaluates several requests
  /// in a row calls this after the last one, and they are committed together.
  void commit_soon();

  bool durable() const { return durable_; }
  /// Whether other servers read the log: messages and the names of events are logged then.
  bool shared() const { return site_member_ != nullptr; }
  /// False while the backend refuses commits: new writes fail at once, reads go on.
  bool available() const { return available_.load(std::memory_order_relaxed); }
  /// Why, in one line; empty when available.
  std::string unavailable_reason() const;
  /// The same for somebody who has waited for a commit: that it has not come yet is a reason too.
  std::string waiting_reason() const;

  /// Nothing waits for a commit: what is delivered now overtakes nothing.
  bool quiet() const {
    return messages_waiting_.load() == 0 && events_waiting_.load() == 0 && committed() >= appended();
  }
  /// An event that is delivered now overtakes none. A server that is not the writer has no effects of its
  /// own, and its messages are not overtaken by anything that matters.
  bool event_may_leave() const;
  /// Everything up to this place is in the log and everything that waited for it has been handed out.
  backend::Seq committed() const { return committed_.load(); }
  /// The place of the last row that has been appended.
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
    /// The lease under which the group's rows are written.
    backend::OriginId lease();
    /// Sets seq, version, site and origin of the row and puts it into the batch. The version is at least
    /// `floor`.
    /// Returns the row's place, 0 on a log that is not durable.
    backend::Seq add(backend::Row& row, std::int64_t now_ms, backend::Version floor);
    /// Puts a message into the batch, for the other servers (shared log only). Returns its place.
    backend::Seq add_message(backend::Row& row);
    /// The last row of this key in the group raises the event, on every server. No effect on an embedded log,
    /// or if the group has no row of the key.
    void add_event(std::uint8_t db, std::string_view key, std::string_view event);
    /// The group does what this row of the inbox asks for: the row is deleted in the same transaction.
    void stamp_inbox(std::int64_t id);
    /// The last row of the group answers a forwarded request. No effect if the group has no rows. A reply
    /// over kAnswerLimitBytes is left out.
    void answer(backend::OriginId requester, std::uint64_t request, std::string_view reply);
    /// Calls `deliver` when all rows appended so far have been committed; at once if there is nothing to wait
    /// for.
    void after_commit(std::function<void()> deliver, Deferral what = Deferral::effect);
    /// Ends the group and lets others append.
    void close();

   private:
    void hold();
    backend::Seq append(const backend::Row& row);
    Journal* journal_;
    std::unique_lock<std::mutex> lock_;
    bool has_rows_ = false;
    std::size_t first_ = 0;  // index of the group's first row in the open batch
  };
  static constexpr std::size_t kAnswerLimitBytes = 64 << 10;

  /// The current lease and the seq of its last row so far.
  LeaseStamp lease_stamp() const;

  struct Stats {
    std::atomic<std::uint64_t> commits{0};
    std::atomic<std::uint64_t> rows{0};
    std::atomic<std::uint64_t> failures{0};
    std::atomic<std::uint64_t> checkpoints{0};
    DurationHistogram commit_time;
    std::atomic<std::int64_t> last_checkpoint_ms{0};  ///< milliseconds since the Unix epoch
  };
  const Stats& stats() const { return stats_; }
  void count_checkpoint();
  /// Commits begin at least so far apart, and so are fewer and larger. Any thread.
  void set_commit_interval(std::chrono::microseconds interval) { commit_interval_us_ = interval.count(); }
  backend::OriginId origin() const { return lease_stamp().lease; }
  backend::SiteId site() const { return site_; }

 private:
  friend class Checkpointer;
  friend class Lease;
  // Counts, in one of two counters, what has been deferred and is not delivered, or dropped, yet.
  class Waiting {
   public:
    explicit Waiting(std::atomic<int>& count) : count_(&count) { count.fetch_add(1); }
    Waiting(Waiting&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Waiting& operator=(Waiting&& other) noexcept {
      std::swap(count_, other.count_);
      return *this;
    }
    ~Waiting() {
      if (count_ != nullptr) count_->fetch_sub(1);
    }

   private:
    std::atomic<int>* count_;
  };
  struct Deferred {
    backend::Seq gate;
    std::function<void()> deliver;
    Deferral what;
    Waiting waiting;
  };
  // A request of the inbox. The rows that it made, if any, are the last of the first `end` of its batch.
  struct Stamp {
    std::int64_t inbox_id;
    std::size_t end;
  };
  // Rows that commit together, and what goes with them.
  struct Batch {
    backend::RowBatch rows;
    std::vector<Deferred> deferred;
    std::vector<Stamp> inbox;
    backend::Seq last_place = 0;  // known once the batch is closed
    // The ids of the requests that are done when the rows from `begin` to `end` are committed.
    std::vector<std::int64_t> inbox_ids(std::size_t begin, std::size_t end) const;
    std::vector<std::int64_t> inbox_ids() const { return inbox_ids(0, rows.size()); }
    bool empty() const { return rows.empty() && inbox.empty(); }
  };
  void run();
  void keep_pace();
  bool commit_gathered();
  bool commit_with_retries();
  bool append_committing();
  void finish_commit();
  void note_committed();
  void tell_own_rows();
  void take_open();
  void set_available(bool available, const std::string& reason);
  void wait_for_work();

  // For Lease, on the committing thread. See journal_recovery.cpp.
  bool has_uncommitted_state();
  void begin_lease(backend::Row lease_row);
  void adopt_lease(backend::OriginId lease, backend::Seq seq);
  void settle(const std::function<backend::Seq(backend::OriginId)>& last_in_log);
  void keep_rows(Batch& batch, const std::function<bool(const backend::Row&)>& keep);
  void drop_state();
  void disown_messages();
  void finish_drop(const std::string& error);
  bool drop_rejected();
  bool append_group(std::size_t begin, std::size_t end);
  void refuse_group(std::size_t begin, std::size_t end, const std::string& cause);
  void drop_old_messages(std::int64_t before_ms);

  backend::Log& log_;
  HybridClock& clock_;
  Site* const site_member_;
  const bool durable_;
  backend::SiteId site_;
  Checkpointer* checkpointer_ = nullptr;
  Lease* lease_keeper_ = nullptr;
  Hooks hooks_;

  mutable std::mutex mutex_;  // the open batch and everything numbered under it
  std::condition_variable work_;
  // Before the batches, which count down when they go.
  std::atomic<int> messages_waiting_{0}, events_waiting_{0};
  Batch open_;
  backend::OriginId lease_ = 0;
  backend::Seq lease_seq_ = 0;
  bool stopping_ = false;
  std::chrono::steady_clock::time_point stop_deadline_;
  std::atomic<std::int64_t> commit_interval_us_{0};
  std::chrono::steady_clock::time_point last_commit_;  // when it began

  Batch committing_;
  LeaseStamp committed_stamp_{};  // the last state row that was committed
  backend::Seq message_seq_ = 0;  // messages get theirs when their batch is closed
  std::atomic<backend::Seq> appended_{0};
  std::atomic<backend::Seq> committed_{0};
  std::atomic<std::size_t> backlog_bytes_{0};
  std::atomic<bool> available_{true};
  mutable std::mutex reason_mutex_;
  std::string reason_;
  Stats stats_;
  std::thread thread_;
};

/// A random positive number: the id of a lease, a server, …
backend::OriginId random_origin();

}  // namespace isthmus
