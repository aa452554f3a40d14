// The thread that follows the site's log: folds what others wrote, delivers their messages and events.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/pubsub/pubsub.hpp"
#include "src/site/journal.hpp"
#include "src/site/lease_history.hpp"
#include "src/site/net_change.hpp"
#include "src/site/reach.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// Follows the log of a site, from the state in the tables on, without a gap and without a repeat. Rows of
/// this server's own leases and its own messages are known already and only counted.
class FeedReader final : private backend::FeedSink {
 public:
  /// Whom the feed tells. All are called by the feed's thread (the first time by `load`'s caller).
  struct Hooks {
    std::function<void(const backend::Row&)> lease;                 ///< a lease row
    std::function<void(std::uint64_t, std::string_view)> answered;  ///< a request of this server, its reply
    std::function<void(backend::OriginId, backend::Seq)> applied;   ///< the current lease, up to here
    /// Rows of this site were cut from the log before they were read: the state has been read anew, or will
    /// be when this server is not the writer any more.
    std::function<void()> missed_rows;
    std::function<void(const backend::InboxRow&)> inbox;   ///< only while this is the writer
    std::function<void(const backend::Row&)> subscribers;  ///< what another server has just announced
    std::function<void(const backend::Vector&)> seen;      ///< highest seqs of others' rows
    /// A row of the state that no server of this site made; only while this is the writer.
    std::function<void(const backend::Row&)> foreign;
    /// Calls its argument behind the events that wait for a commit.
    std::function<void(std::function<void()>, Journal::Deferral)> in_order;
    /// Whether there are none of those, so that nothing needs to stand behind them.
    std::function<bool()> may_leave;
    /// The log lacks what this server has seen, which was so much of the last lease.
    std::function<void(const LeaseStamp&)> log_went_back;
  };
  struct Settings {
    std::int64_t message_max_age_ms;
    std::function<std::uint32_t()> notify_flags;  ///< which keyspace events are wanted now
    std::int64_t tombstone_retention_ms;          ///< after so much silence a site is given up by its peers
  };
  FeedReader(Site& site, Keyspace& keyspace, HybridClock& clock, PubSub& pubsub, Settings settings);
  ~FeedReader() { stop(); }
  void set_hooks(Hooks hooks) { hooks_ = std::move(hooks); }

  /// Begins the feed and reads the state, on the caller's thread. Throws backend::FeedError.
  void load();
  /// The lease at the time of `load`, which the feed itself may not show any more. Before `start`.
  void begin_with(const backend::LeaseRow& lease);
  void start();
  void stop();
  // Of one other thread. Both wait until the feed's thread has done it, and for that until there is a feed;
  // they call `meanwhile`, if there is any, a few times a second, and let its exceptions through.
  /// Has the whole state read again and put into the keyspace. False if the process ends first.
  bool rebuild();
  /// Brings the keyspace up to the log and compares it with what the log holds: gives the rows that the log
  /// lacks (no site, origin or seq). The caller holds the site's lock, and nobody changes the keyspace.
  /// Nothing if the process ends first.
  std::optional<backend::RowBatch> compare(const std::function<void()>& meanwhile);
  /// Both give up at once from now on: the process ends.
  void give_up_tasks();

  // Of any thread: what this server knows of the other sites.
  Frontier folded() const;
  std::vector<Gap> gaps() const;
  /// How far nothing is missing of other sites' origins, and all has been folded.
  backend::Vector foreign_vector() const;
  /// What each site has said, as far as the hook `seen` has been told of everything before.
  std::vector<backend::StoredFrontier> frontiers() const;
  backend::Seq last(backend::OriginId origin) const;
  /// Messages of the site that were sent before are stale: milliseconds since the Unix epoch, by the clock of
  /// that site's database.
  std::int64_t fresh_since_ms(backend::SiteId site) const;
  /// Whether the rows of this origin have been folded up to there.
  bool has_seen(backend::OriginId origin, backend::Seq seq) const;

 private:
  /// What folding a row did.
  struct Result : FoldResult {
    bool dead_on_arrival = false;  ///< the key is there, and its deadline has passed
    bool fresh = false;            ///< young enough for an event of its own
  };
  void row(const backend::Row& row) override;
  void inbox(const backend::InboxRow& row) override;
  void reached(backend::Position position) override;

  void run();
  void go_on();
  void begin();
  bool fits_role() const;
  bool misses_rows() const;
  void read_all(Keyspace& into, Reach& reach);
  bool do_task(const std::function<void()>& task, const std::function<void()>& meanwhile);
  void restart();
  void rebuild_now();
  void replace_state(Keyspace& fresh, const Reach* reach);
  void pass_over_cut_rows(const Reach& reach);
  backend::RowBatch compare_now();
  bool went_back(const backend::Vector& in_log) const;
  void check_direction(const LeaseStamp& held);
  bool is_new(const backend::LeaseRow& lease) const;
  void announce(const backend::LeaseRow& lease);
  bool inbox_due();
  void take_inbox();
  bool take(const backend::Row& row);
  void take_effect(const backend::Row& row);
  bool is_of_other_site(const backend::Row& row) const;
  void show_lease(const backend::Row& row);
  void note_seen(const backend::Row& row);
  void note_all_seen();
  void note_frontiers();
  void give_up_gaps(const std::vector<backend::SiteId>& peers);
  void count_conflict(const backend::Row& row, backend::Version lost);
  void follow_links();
  Result fold_row(const backend::Row& row);
  std::int64_t clock_offset_of(backend::SiteId site) const;
  void tell_applied();
  void apply_group();
  void forget_group();
  void lock_group(ShardLocks& locks);
  void note_age(const backend::Row& row);
  void publish_once(const backend::Row& row);
  void publish(const backend::Row& row);
  void deliver_message(const backend::Row& row);
  bool may_leave() const { return behind_.load() == 0 && hooks_.may_leave(); }
  void put_behind(std::function<void()> send, Journal::Deferral what);
  void raise_events(std::size_t index);
  bool took_away(std::size_t index) const;
  bool fits_own(std::string_view event, const Result& result) const;
  bool deserves(std::string_view event, std::size_t index) const;
  void raise(std::string_view event, std::uint8_t db, std::string_view key);
  void tell_net_change();
  bool is_fresh(std::int64_t then_ms, backend::SiteId site) const;
  backend::Vector vector() const;

  Site& site_;
  Keyspace& keyspace_;
  HybridClock& clock_;
  PubSub& pubsub_;
  const Settings settings_;
  Hooks hooks_;

  std::unique_ptr<backend::Feed> feed_;
  backend::FeedScope scope_ = backend::FeedScope::everything;
  bool saw_foreign_state_ = false;  // since the last `reached`
  mutable std::mutex reach_mutex_;  // other threads read what this one writes
  Reach reach_;
  std::vector<backend::StoredFrontier> noted_frontiers_;
  bool saw_frontier_ = false;                         // since the last `reached`
  boost::unordered_flat_set<backend::OriginId> own_;  // this server as a source of messages, and its leases
  backend::RowBatch group_;                           // rows of a group that has not ended
  std::vector<Result> results_;                       // of the group's rows
  /// Keys of rows that came too late for events of their own, by the site of the rows.
  struct Late {
    NetChange keys;
    bool fresh = true;  // the site's rows are young again
  };
  std::map<backend::SiteId, Late> late_;
  std::chrono::steady_clock::time_point next_links_;
  backend::Vector seen_;  // of others, since the last `reached`
  backend::OriginId lease_ = 0;
  boost::unordered_flat_set<std::int64_t> inbox_announced_;  // by the stream, and not seen in the table yet
  boost::unordered_flat_set<std::int64_t> inbox_taken_;      // evaluated, and not seen to be gone yet
  std::chrono::steady_clock::time_point next_inbox_;
  std::chrono::milliseconds inbox_piece_wait_{0};
  bool inbox_has_more_ = false;     // than a look shows
  backend::Position begun_at_ = 0;  // where the stream begins
  int inbox_tries_ = 0;
  std::string outage_;  // why the feed is down; empty if it is not

  std::atomic<int> behind_{0};  // what stands behind events that wait, and nothing may overtake

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false, no_tasks_ = false;
  std::function<void()> task_;
  std::uint64_t tasks_wanted_ = 0, tasks_done_ = 0;
  std::thread thread_;
};

}  // namespace isthmus
