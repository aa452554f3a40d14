// The link to one peer, kept up by this site's writer: made, watched, repaired, and made anew with a copy of
// the peer's state when it has lost rows. See ARCHITECTURE.md, "Data centers".
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/feed_reader.hpp"
#include "src/site/journal.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// What this site says it has folded stays as it is while the state of a peer is being copied: a tombstone
/// that the copy still needs must not be forgotten meanwhile. One copy at a time. Thread-safe.
class Freeze {
 public:
  Freeze(Site& site, FeedReader& feed) : site_(site), feed_(feed) {}
  /// Begins; gives what has been folded now. Waits for another copy to end, or throws LinkError when
  /// `give_up` is true.
  Frontier begin(const std::atomic<bool>& give_up);
  void end();
  /// Rows that this site's database had lost come back from the log of a peer; gives how often they have.
  /// What another peer, of which only the state was copied, had deleted of them and forgotten since is found
  /// by copying its state once more.
  int count_return() { return returns_.fetch_add(1) + 1; }
  int returns() const { return returns_.load(); }
  /// Held while rows of this site are fetched: what one peer has given another need not.
  std::unique_lock<std::mutex> fetch_own() { return std::unique_lock(own_rows_); }
  /// What may be said to the other sites.
  Frontier sayable() const;

 private:
  Site& site_;
  FeedReader& feed_;
  mutable std::mutex mutex_;
  std::mutex own_rows_;
  std::condition_variable ended_;
  bool frozen_ = false;
  std::atomic<int> returns_{0};
  Frontier frontier_;
};

/// What all links of a server share.
struct LinkParts {
  Site& site;
  Journal& journal;
  Keyspace& keyspace;
  HybridClock& clock;
  FeedReader& feed;
  Freeze& freeze;
  std::int64_t tombstone_retention_ms;
};

/// Logs a row of bookkeeping (`frontier`, `reach`) in this site's own stream, if this server is its writer.
void say_in_stream(const LinkParts& parts, backend::RowKind kind,
                   const std::map<std::int64_t, std::uint64_t>& pairs);

/// One peer, on a thread of its own while this server is the writer.
class Link {
 public:
  Link(const LinkParts& parts, backend::PeerRow row);
  ~Link() { stop(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;
  void stop();
  /// The first half of `stop`: so that several can end at the same time.
  void ask_stop();
  /// Whether nothing of this site's own that its database has lost is left to be fetched from this peer; and
  /// a peer that has never been reached has nothing. Any thread.
  bool knows_own_rows() const { return own_rows_known_.load(); }
  /// Whether it has found its peer forgotten, or reached by another URL: it does nothing any more. Any
  /// thread.
  bool is_forgotten() const { return forgotten_.load(); }
  /// The state of the peer is to be copied once more. Any thread.
  void copy_again() { copy_asked_.store(true); }
  /// A peer that was not linked, or had been given up, has brought writes of its own: up to this version.
  /// Told once; 0 if there is nothing to tell. Any thread.
  backend::Version take_joined() { return joined_.exchange(0); }

 private:
  using Clock = std::chrono::steady_clock;
  void run();
  bool pause(std::chrono::milliseconds time);
  void round();
  void open_sessions();
  void check_identity();
  /// Whether the link must be made anew, and why; empty if it is fine.
  std::string broken(const backend::Subscription* subscription);
  void watch(const backend::Subscription& subscription);
  void compare();
  void repair_gaps();
  /// Rows of this peer's own origins have come back: of its own deletions among them none is missing.
  void count_return();
  bool must_copy_again() const;
  void fetch_own_rows(const backend::Reaches& theirs);
  void tell_returned(const std::map<std::int64_t, std::uint64_t>& last);
  /// Fetches all these rows of a site from the peer's log.
  bool fetch(backend::SiteId site, const std::vector<Gap>& gaps);
  void say(const std::string& state, const std::string& detail);
  /// Writes down what has been found out. Throws if the peer is none of this site's any more.
  void save();
  void wait_for(backend::OriginId origin, backend::Seq seq);
  void abandon(const std::string& why);
  bool is_expelled() const { return row_.state == kExpelledPeer; }
  std::int64_t silent_ms() const;
  void expel_if_silent();
  // link_copy.cpp
  /// Copies the state of the peer and makes the link anew: for one that is new or has lost rows.
  void copy_and_link(const std::string& why);
  /// Copies the state beside a stream that goes on, so that no message waits for it. With `own_rows` also
  /// rows of this site that its own database may have lost.
  void copy_beside_stream(const std::string& why, bool own_rows);
  void begin_copy(const std::string& why);
  void start_stream(const std::string& slot);
  /// Gives the version up to which the peer has brought writes of its own; 0 if it has brought none.
  backend::Version copy_state(bool own_rows, const std::function<void()>& start_stream);

  LinkParts parts_;
  backend::PeerRow row_;
  std::unique_ptr<backend::Links> links_;
  std::unique_ptr<backend::Peer> peer_;
  Clock::time_point next_compare_, next_save_, next_own_, idle_since_;
  Clock::time_point compared_;   // row_.lag_rows is of then
  Clock::time_point next_copy_;  // for a new link, not before
  std::chrono::milliseconds copy_wait_{0};
  std::string said_state_, said_detail_;
  std::map<backend::OriginId, backend::Seq> fetched_;  // of this site's own rows: what the peer could give
  std::atomic<bool> own_rows_known_, forgotten_{false}, copy_asked_{false};
  std::atomic<backend::Version> joined_{0};
  bool far_behind_ = false;
  int copied_at_ = -1;  // Freeze::returns when the peer's state was copied; -1: it was not
  std::mutex mutex_;
  std::condition_variable stop_asked_;
  std::atomic<bool> stopping_{false};
  std::thread thread_;
};

/// What is copied of a deletion says nothing of the deadline: this row of its own does, that there is none.
/// Its views are those of the argument.
backend::Row deadline_of_copied(const backend::Row& deletion);

/// Copies rows into the log of this site under an origin of their own. Each group stays in one transaction.
class CopiedRows {
 public:
  CopiedRows(backend::Links& links, backend::OriginId lease);
  /// Appends a row whose site, version and kind are set; the last row of a group says so.
  void add(backend::Row row);
  /// Appends a message under its own origin and seq.
  void add_message(backend::Row row);
  /// The end: says how far the copied site's origins have come. `frontier` 0: only what was missing.
  void finish(backend::SiteId site, const std::map<std::int64_t, std::uint64_t>& reach,
              backend::Version frontier);
  backend::OriginId origin() const { return origin_; }
  backend::Seq rows() const { return last_; }

 private:
  void append(const backend::Row& row);
  void flush();
  backend::Links& links_;
  const backend::OriginId lease_, origin_;
  backend::Seq last_ = 0;
  backend::RowBatch batch_;
};

}  // namespace isthmus
