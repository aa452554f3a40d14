// This server as a member of its site: who may write, what the others have done, and how to reach them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"

namespace isthmus {

class Forwarder;

/// The state of a peer (PeerRow::state) that was away for too long: nobody waits for it.
inline constexpr std::string_view kExpelledPeer = "expelled";

/// Who evaluates state-changing commands.
enum class Role : std::uint8_t {
  follower,   ///< another server, if any: commands are forwarded to it
  candidate,  ///< this one soon: it holds the lock and waits until its feed has shown its own lease row
  writer,     ///< this one
};

std::string_view role_name(Role role);

/// Before the address of a server that takes forwarded commands by TLS.
inline constexpr std::string_view kTlsScheme = "tls://";

/// What the parts of a server with a shared log tell each other. Made before them and outlives them.
/// Thread-safe.
class Site {
 public:
  Site(backend::SharedLog& log, std::string address, std::string version);

  /// Random, new for each process: the origin of its messages, and its name as a requester.
  backend::OriginId server() const { return server_; }
  const std::string& address() const { return address_; }
  const std::string& version() const { return version_; }
  backend::SharedLog& log() { return log_; }

  /// Changes only while every shard is locked, or from anything but writer: whoever holds a shard's lock and
  /// sees that this is the writer may append rows until the lock is gone.
  Role role() const { return role_.load(); }
  bool is_writer() const { return role() == Role::writer; }
  void set_role(Role role) { role_.store(role); }

  /// How far this server's feed is.
  backend::Position feed_position() const { return feed_position_.load(); }
  void set_feed_position(backend::Position position) { feed_position_.store(position); }
  /// How far the feed was when it last brought a change of the state that was not the current writer's: who
  /// has seen that may ask the writer to have seen it as well.
  backend::Position foreign_position() const { return foreign_position_.load(std::memory_order_relaxed); }
  void set_foreign_position(backend::Position position) { foreign_position_.store(position); }
  bool feed_healthy() const { return feed_healthy_.load(); }
  void set_feed_healthy(bool healthy) { feed_healthy_.store(healthy); }

  /// The database's clock minus ours, in milliseconds.
  std::int64_t clock_offset_ms() const { return clock_offset_ms_.load(std::memory_order_relaxed); }
  /// What the database's clock shows now, in milliseconds since the Unix epoch.
  std::int64_t database_now_ms() const { return wall_clock_ms() + clock_offset_ms(); }
  /// The newest lease that the feed has shown.
  backend::LeaseRow lease() const;
  void set_lease(const backend::LeaseRow& lease);
  /// What the upkeep learned last.
  backend::UpkeepReport report() const;
  /// What each site had said of the others when the last checkpoint began.
  std::vector<backend::StoredFrontier> marked_frontiers() const;
  void set_report(backend::UpkeepReport report);

  // The sites to which this one is linked, as the upkeep has read them.
  // A site that is told of peers is linked before it has met any: nothing is forgotten that they may need.
  bool linked() const { return linked_.load(std::memory_order_relaxed); }
  void expect_peers() { expects_peers_ = true; }
  std::vector<backend::PeerRow> peers() const;
  void set_peers(std::vector<backend::PeerRow> peers);
  /// Those that have been reached once and have not been away for too long.
  std::vector<backend::SiteId> peer_ids() const;
  bool has_expelled() const;
  /// A peer's database clock minus ours, in milliseconds; 0 if unknown.
  std::int64_t clock_offset_of(backend::SiteId site) const;
  /// Whether rows are being fetched or copied: what they make of keys is told when all of them are here.
  bool repairing() const { return own_rows_missing_.load() || copies_.load() > 0; }
  void set_own_rows_missing(bool missing) { own_rows_missing_.store(missing); }
  /// The process ends: whatever waits for the database is given up now, and that is no news.
  bool ending() const { return ending_.load(); }
  void end_waits() {
    ending_.store(true);
    log_.end_waits();
  }
  void count_copy(int change) { copies_.fetch_add(change); }
  /// Below this version nothing new can arrive from any site.
  backend::Version stable() const { return stable_.load(std::memory_order_relaxed); }
  void set_stable(backend::Version version) { stable_.store(version, std::memory_order_relaxed); }

  struct Stats {
    std::atomic<std::uint64_t> feed_rows{0}, feed_restarts{0}, rebuilds{0};
    std::atomic<std::uint64_t> leases_taken{0}, leases_lost{0}, seed_rows{0};
    std::atomic<std::uint64_t> repeated_rows{0}, stale_messages{0}, dropped_messages{0};
    std::atomic<std::uint64_t> inbox_rows{0};
    std::atomic<std::uint64_t> foreign_rows{0}, wild_versions{0}, conflicts_lost{0};
    std::atomic<std::uint64_t> gaps_found{0}, gaps_repaired{0}, reseeds{0};
    std::atomic<std::uint64_t> forwarded_commands{0}, served_commands{0}, forward_retries{0};
  };
  Stats& stats() { return stats_; }
  const Stats& stats() const { return stats_; }

 private:
  backend::SharedLog& log_;
  const backend::OriginId server_;
  const std::string address_, version_;
  std::atomic<Role> role_{Role::follower};
  std::atomic<backend::Position> feed_position_{0}, foreign_position_{0};
  std::atomic<bool> feed_healthy_{false};
  std::atomic<std::int64_t> clock_offset_ms_{0};
  mutable std::mutex mutex_;
  backend::LeaseRow lease_;
  backend::UpkeepReport report_;
  std::vector<backend::PeerRow> peers_;
  std::atomic<bool> linked_{false};
  std::atomic<bool> own_rows_missing_{false}, ending_{false};
  std::atomic<int> copies_{0};
  bool expects_peers_ = false;  // before the threads start
  std::atomic<backend::Version> stable_{0};
  Stats stats_;
};

}  // namespace isthmus
