// Links between sites: native logical replication of one site's own log rows into another site's log, and
// what a server does when that is not enough. See ARCHITECTURE.md, "Data centers".
//
// The *links* thread of the site's writer uses all of this, with database sessions of its own.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "backend/log.hpp"

namespace isthmus::backend {

using Position = std::uint64_t;

/// Something about a link did not work. `what()` is one line with the cause and, where there is one, the
/// remedy; never a password.
struct LinkError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A peer as this site's database remembers it: one row of the table `peer`, which every server of the site
/// reads and the writer keeps.
struct PeerRow {
  std::string name;      ///< as --peer says; the key
  SiteId id = 0;         ///< 0: never reached yet
  std::string conninfo;  ///< as the site's PostgreSQL reaches it. Secret: never in a log line or INFO
  /// The slot at the peer through which we receive; empty: no link yet, or the peer's state is to be copied
  /// once more beside it.
  std::string slot;
  // What the writer has found out last, for INFO # Sites on every server.
  std::string state;                 ///< up, down, seeding, refused, new
  std::string detail;                ///< why it is not up; empty if it is
  std::int64_t since_ms = 0;         ///< of that state: milliseconds since the Unix epoch
  std::int64_t clock_offset_ms = 0;  ///< the peer's database clock minus ours
  std::int64_t lag_ms = 0;           ///< so long ago we had certainly all that the peer had
  std::uint64_t lag_rows = 0;        ///< rows in the peer's log that we lack
  std::uint64_t slot_bytes = 0;      ///< WAL that our PostgreSQL keeps for the peer
  std::string slot_state;            ///< of that slot: wal_status, or empty if the peer has none here
};

/// The receiving half of a link, as this database's catalog tells.
struct Subscription {
  std::string slot;  ///< at the peer
  bool enabled = false;
  bool applying = false;  ///< a worker is connected to the peer now
  Position received = 0;  ///< how far, in the peer's WAL
};

/// A slot at a peer.
struct PeerSlot {
  bool exists = false;
  bool lost = false;       ///< its WAL is gone: only a re-seed helps
  Position confirmed = 0;  ///< the receiver has everything that committed before
};

/// How far a database has the rows of an origin.
struct OriginReach {
  SiteId site = 0;   ///< 0: nobody knows, or an origin of copied rows, which may be of several sites
  Seq last = 0;      ///< the highest seq that it has or had
  Seq cut = 0;       ///< up to here rows may be gone from the log
  Seq returned = 0;  ///< the highest that a peer has given back lately, of those that this database had lost
};
using Reaches = std::map<OriginId, OriginReach>;

/// A session with the database of a peer. All functions throw LinkError; after that the session is useless.
class Peer {
 public:
  virtual ~Peer() = default;
  /// Every function throws within 100 ms once `flag` is true. It outlives this session.
  virtual void give_up_when(const std::atomic<bool>& flag) = 0;
  /// Asked when the session was opened.
  virtual SiteId site() const = 0;
  virtual const std::string& name() const = 0;
  /// The peer's database clock minus the clock of this process, in milliseconds.
  virtual std::int64_t clock_offset_ms() = 0;
  /// How far the peer's log has each origin, in one snapshot. `end` is the end of its WAL a moment later: who
  /// has received everything up to there has all that the snapshot saw.
  virtual Reaches reaches(Position& end) = 0;
  virtual PeerSlot slot(const std::string& name) = 0;
  /// Makes a permanent slot for this site, as a copy of the peer's own permanent slot, so that no open
  /// transaction delays it, and waits until every commit before it can be seen. Its name is new.
  virtual std::string create_slot() = 0;
  /// Drops the slots that the peer keeps for this site, except `keep` (empty: all). One that is in use stays,
  /// after its walsender has been ended, until the next call.
  virtual void drop_slots(const std::string& keep) = 0;
  /// The peer's whole state in one snapshot: mark, keys, fields, then the rows of its log behind its
  /// checkpoint (of all sites, no messages). Fills `reaches` in the same snapshot.
  virtual void read_state(LoadSink& sink, Reaches& reaches) = 0;
  /// The messages of the peer's own site that were sent at that time or later (milliseconds since the Unix
  /// epoch, by the clock of its database), with their values, origin by origin in the order of their seq.
  virtual void read_messages(std::int64_t sent_since, LoadSink& sink) = 0;
  /// The rows of one origin with from <= seq <= to, in their order, messages with their values. False, and
  /// nothing is handed out, if the peer's log lacks some of them.
  virtual bool read_rows(OriginId origin, Seq from, Seq to, LoadSink& sink) = 0;
};

/// This database's side of all links. All functions throw LinkError.
class Links {
 public:
  virtual ~Links() = default;
  /// What keeps PostgreSQL from taking part in links (rights to create subscriptions, worker processes,
  /// slots), with the remedy, a line each; and warnings (max_slot_wal_keep_size without bound).
  virtual std::vector<std::string> check() = 0;
  /// The first of these alone: why the role may not subscribe to anybody, with the remedy.
  virtual std::optional<std::string> missing_rights() = 0;
  /// Names this site; refused if it has another name already (then `what()` says both).
  virtual void name_site(const std::string& name) = 0;

  virtual std::vector<PeerRow> peers() = 0;
  /// Writes one row of the table `peer`, new or not.
  virtual void put_peer(const PeerRow& peer) = 0;
  /// Writes what has been found out about a peer into its row. False, and nothing is written, if there is no
  /// such row: it was forgotten, is reached by another conninfo now, or is another site.
  virtual bool update_peer(const PeerRow& peer) = 0;
  /// Drops the subscription to a peer, the slots that are kept here for it and its frontiers, and takes the
  /// slots out of the rows of the others, whose states are to be copied once more. Its row stays.
  virtual void expel_peer(const PeerRow& peer) = 0;
  /// The same, and drops its row.
  virtual void forget_peer(const PeerRow& peer) = 0;

  /// Opens a session with a peer's database and checks that it is an Isthmus of our schema version whose
  /// publication is there.
  virtual std::unique_ptr<Peer> connect(const std::string& conninfo) = 0;

  /// Our subscriptions by the site id of the peer.
  virtual std::map<SiteId, Subscription> subscriptions() = 0;
  /// The slots that peers have here by site id: state (wal_status) and the bytes of WAL they keep.
  struct KeptSlot {
    std::string state;
    std::uint64_t bytes = 0;
    std::uint64_t behind = 0;  ///< of WAL that the peer has not received, or not applied, yet
    bool active = false;
  };
  virtual std::map<SiteId, KeptSlot> kept_slots() = 0;
  /// Makes the subscription to a peer on a slot that is there, without copying data, with the connection
  /// settings that notice a dead link within seconds; enabled.
  virtual void create_subscription(const PeerRow& peer, const std::string& slot) = 0;
  /// Makes an existing subscription connect as `peer.conninfo` says, and enables it. No effect if it does.
  /// `far_behind`: its rows may be applied without a flush of the WAL for each transaction of the peer's,
  /// which loses nothing (the slot follows what has been flushed), but shows each to the feeds some 200 ms
  /// later.
  virtual void update_subscription(const PeerRow& peer, bool far_behind) = 0;
  /// Drops the subscription and leaves its slot alone; works with the peer down. No effect if there is none.
  virtual void drop_subscription(SiteId peer) = 0;

  /// How far our own log has each origin.
  virtual Reaches reaches() = 0;
  /// Appends rows that are complete as they are (site, origin, seq, version, copied), in one transaction, as
  /// the holder of this lease; LinkError if another one has it by now.
  virtual void append(const RowBatch& rows, OriginId lease) = 0;
};

}  // namespace isthmus::backend
