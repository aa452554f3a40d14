// The right to evaluate state-changing commands in a site: how a server gets it, keeps it, loses it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "backend/shared_log.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/journal.hpp"
#include "src/site/lease_history.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// The keeper of the lease. The lock is held by the very session that commits, so losing the session is
/// losing the lease. Functions are the committing thread's unless they say otherwise.
class Lease {
 public:
  struct Hooks {
    /// The memory holds rows that will never be in the log: reads the state from the log again. Returns when
    /// that is done, or false if the server stops before.
    std::function<bool()> rebuild;
    /// What the memory holds and the log lacks (FeedReader::compare).
    std::function<std::optional<backend::RowBatch>(const std::function<void()>& meanwhile)> compare;
    /// Whether the server that was the writer last still serves this one.
    std::function<bool()> writer_reachable;
  };
  Lease(Site& site, Journal& journal, Keyspace& keyspace, HybridClock& clock,
        std::int64_t message_max_age_ms);
  void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  /// Connects, beats, takes the lock, recovers from lost sessions; whatever is due. Never throws.
  void tick();
  /// Commits rows in the session. Throws AppendError.
  void append(const backend::RowBatch& rows, const std::vector<std::int64_t>& inbox);
  /// Ends the session, and with it the lease, at once.
  void give_back();
  /// As `give_back`, and drops what has been evaluated and not committed; may take the lease again later.
  void step_down(const std::string& why);

  /// Whether this server wants to be the writer. Any thread.
  void set_willing(bool willing) { willing_.store(willing); }
  /// The feed has shown this lease row. The feed thread.
  void feed_shows(const backend::Row& row);
  /// The feed found that the log lacks what this server has seen, which was so much of the last lease. The
  /// feed thread.
  void log_went_back(const LeaseStamp& held);
  /// Rows were cut from the log before the feed had read them: a writer gives the lease back, so that its
  /// state can be read anew. The feed thread.
  void missed_rows() { out_of_touch_.store(true); }
  /// The newest lease when the state was loaded. Before the threads start.
  void begin_after(const backend::LeaseRow& lease) { history_.add(lease.lease, {}); }

 private:
  using Clock = std::chrono::steady_clock;
  // How often a server that is not the writer asks for the lock: a writer's death is a pause of about this.
  static constexpr std::chrono::milliseconds kTryPeriod{100};
  bool reach_database(Clock::time_point now);
  void session_lost(const std::string& why);
  void beat_at_once();
  void drop_old_messages();
  void recover();
  bool log_lacks_commits();
  void renew();
  void try_take();
  bool takes_too_long(Clock::time_point now);
  void settle_debt();
  void seize();
  void take_with_lock();
  void seed_log(const LeaseStamp& held);
  bool repair_log();
  void demote(const std::string& why);
  void drop_uncommitted(bool keeps_memory);
  bool may_append(const backend::RowBatch& rows, const std::vector<std::int64_t>& inbox) const;
  void become_follower();
  LeaseStamp held() const;
  backend::Row lease_row(backend::OriginId lease) const;

  Site& site_;
  backend::SharedLog& log_;
  Journal& journal_;
  Keyspace& keyspace_;
  HybridClock& clock_;
  const std::int64_t message_max_age_ms_;
  Hooks hooks_;
  bool locked_ = false;                      // this session holds the site's lock
  bool undropped_ = false;                   // as a writer it may have left rows that were not committed
  std::atomic<backend::OriginId> lease_{0};  // the lease that this server holds or is taking; 0: none
  std::atomic<bool> willing_{true};
  std::atomic<bool> superseded_{false};
  std::atomic<bool> out_of_touch_{false};  // rows have been missed since this server became the writer
  LeaseHistory history_;
  // The log lacks what this server has seen, which was so much of the last lease then.
  std::atomic<bool> log_went_back_{false};
  std::atomic<Clock::time_point> debt_since_;
  mutable std::mutex held_mutex_;
  LeaseStamp held_;
  Clock::time_point next_connect_, next_beat_, next_try_, connected_since_;
  Clock::time_point taking_since_, moved_at_;  // of a candidate; when its feed was seen to move last
  backend::Position taking_position_ = 0;
};

/// Whether there are rows of a lease, and not only of this server as a source of messages: those live and die
/// with the lease.
bool has_rows_of_lease(const backend::RowBatch& rows, backend::OriginId server);

}  // namespace isthmus
