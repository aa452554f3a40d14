// The right to evaluate state-changing commands in a site: how a server gets it, keeps it, loses it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <set>
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
    /// What the memory holds and the log lacks (FeedReader::compare).
    std::function<std::optional<backend::RowBatch>(bool old_only, const std::function<void()>& meanwhile)>
        compare;
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
  /// The feed found that the log lacks what this server has seen, and whether another server has taken the
  /// lease since then. The feed thread.
  void log_went_back(bool another_writes);

 private:
  using Clock = std::chrono::steady_clock;
  bool reach_database(Clock::time_point now);
  void session_lost(const std::string& why);
  void recover();
  bool log_lacks_commits();
  void renew();
  void try_take();
  void settle_debt();
  void seize();
  void take_with_lock();
  void seed_log();
  void repair_log();
  void demote(const std::string& why);
  void become_follower();
  bool knows(backend::OriginId lease) const;
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
  // What this server holds may not be all in the log: what the log lacks is appended when this server has the
  // lock. If another server writes meanwhile, that may have done it; if not, this one takes the lock from it.
  std::atomic<bool> log_went_back_{false}, another_writes_{false};
  int times_owing_ = 0;         // so often what this server holds was missed in the log
  bool holds_dropped_ = false;  // the memory has effects of which clients were told that nobody knows
  mutable std::mutex known_mutex_;
  std::set<backend::OriginId> known_;  // leases that this server has seen in the log
  Clock::time_point next_connect_, next_beat_, next_try_, taking_since_, connected_since_;
};

}  // namespace isthmus
