// The right to evaluate state-changing commands in a site: how a server gets it, keeps it, loses it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "backend/shared_log.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/journal.hpp"
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
  /// The feed found that the log is behind what this server has seen. The feed thread.
  void log_went_back() { log_went_back_.store(true); }

 private:
  using Clock = std::chrono::steady_clock;
  bool reach_database(Clock::time_point now);
  void session_lost(const std::string& why);
  void recover();
  void renew(backend::Seq in_log);
  void try_take();
  void take_with_lock();
  void seed_log();
  void demote(const std::string& why);
  void recover_memory();
  void become_follower();
  backend::Row lease_row(backend::OriginId lease) const;

  Site& site_;
  backend::SharedLog& log_;
  Journal& journal_;
  Keyspace& keyspace_;
  HybridClock& clock_;
  const std::int64_t message_max_age_ms_;
  Hooks hooks_;
  bool locked_ = false;                      // this session holds the site's lock
  std::atomic<backend::OriginId> lease_{0};  // the lease that this server holds or is taking; 0: none
  std::atomic<bool> willing_{true};
  std::atomic<bool> superseded_{false};
  std::atomic<bool> log_went_back_{false};
  Clock::time_point next_connect_, next_beat_, next_try_, taking_since_;
};

}  // namespace isthmus
