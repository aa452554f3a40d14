// The interface to a log that several servers of a site share: the lease, the feed, the inbox, and the upkeep
// of the tables. See ARCHITECTURE.md, "Several servers".
//
// Three threads of a server use it side by side, each with a database session of its own, so that none waits
// for another: the *committing* thread (append, lease), the *feed* thread (Feed) and the *upkeep* thread
// (checkpoint, housekeeping). Each function below says whose it is. Functions of Log: append is the
// committing thread's; write_checkpoint, forget_flushed, finish_checkpoint and cut are the upkeep thread's;
// load is the feed's business here and is not called.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/links.hpp"
#include "backend/log.hpp"

namespace isthmus::backend {

/// A place in the database's write-ahead log (PostgreSQL's LSN): grows with every commit.
using Position = std::uint64_t;

/// The newest row of kind `lease` in the log.
struct LeaseRow {
  OriginId lease = 0;   ///< 0: there is none
  OriginId server = 0;  ///< who took it
  std::string address;  ///< host:port where it takes forwarded commands; tls://host:port by TLS
};

/// What a client of SQL wants done: one row of the table `inbox`. The names of `op` are those of the SQL
/// functions: set, hset, del, hdel, expire, publish.
struct InboxRow {
  std::int64_t id = 0;
  std::string op;
  std::uint8_t db = 0;
  std::string key;                        ///< of publish: the channel
  std::string field;                      ///< of hset and hdel
  std::string value;                      ///< of set, hset and publish
  std::optional<std::int64_t> expire_at;  ///< set, expire: milliseconds since the Unix epoch; absent: none
  std::int64_t at = 0;  ///< when it was asked for, by the database's clock: milliseconds since the Unix epoch
};

/// Receives what a feed reads. Views live during the call only.
class FeedSink {
 public:
  virtual ~FeedSink() = default;
  /// A row that was committed to the log, in the order of commit; rows of a transaction in their order.
  virtual void row(const Row& row) = 0;
  virtual void inbox(const InboxRow& row) = 0;
  /// Everything up to `position` has been handed out: the end of a transaction, or nothing new up to there.
  virtual void reached(Position position) = 0;
};

/// The feed's session broke, or cannot begin. `what()` is one line with the cause.
struct FeedError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Rows of the inbox, and whether there may be more behind them.
struct InboxWindow {
  std::vector<InboxRow> rows;
  bool more = false;
};

/// What a feed shows of the log.
enum class FeedScope : std::uint8_t {
  everything,
  /// What the writer needs: bookkeeping (leases, frontiers), messages without a version, which are those of
  /// other servers, rows of other sites, and copied rows. Its own rows would cost PostgreSQL and it a system
  /// call each, for nothing.
  others,
};

/// The stream of everything that is committed to the site's log, by anybody. Used by one thread, except
/// `interrupt`. It sees each row that was committed after `begin` returned; rows from before are read from
/// the tables with one of the two reads below, after `begin`; the overlap is the caller's to drop, by its
/// vector. All functions throw FeedError.
class Feed {
 public:
  virtual ~Feed() = default;
  /// Connects, makes a temporary copy of the site's permanent slot (and that slot itself if it is missing).
  /// Takes milliseconds, however many transactions are open in the cluster, once the permanent slot is there.
  /// Returns the position from which the stream will speak.
  virtual Position begin(FeedScope scope = FeedScope::everything) = 0;
  /// Reads the checkpoint, its vector, and the log behind it, in one snapshot. Values of message rows are
  /// left out (empty): only their seq matters.
  virtual void read_state(LoadSink& sink) = 0;
  /// Reads the rows of the log that `known` lacks, per origin in the order of seq, in one snapshot, and gives
  /// true; or gives false and hands out nothing if some of them have been cut from the log already.
  virtual bool read_missing(const Vector& known, FeedSink& sink) = 0;
  /// The highest seq of each origin that the database knows of (log and checkpoint), in the snapshot of the
  /// last read. For finding out that a database went back in time.
  virtual Vector last_seqs() = 0;
  /// The newest lease row, in the snapshot of the last read: the row itself may have been cut from the log.
  virtual LeaseRow newest_lease() = 0;
  /// The first rows of the inbox, in the order of their ids: some thousand, or a few mebibytes.
  virtual InboxWindow read_inbox() = 0;
  /// Waits up to `patience` for something to come, and hands out all that is there. Answers keep-alives and
  /// reports what has been handed out as flushed.
  virtual void stream(FeedSink& sink, std::chrono::milliseconds patience) = 0;
  /// Makes a `stream` that waits, or the next one, return early. Any thread.
  virtual void interrupt() = 0;
};

/// A server of the site, as it registered itself.
struct ServerRow {
  OriginId id = 0;
  std::string address;           ///< host:port, as --advertise says
  std::string version;           ///< of Isthmus
  std::int64_t seen_ms_ago = 0;  ///< since its last sign of life, by the database's clock
  bool writer = false;
};

/// What the upkeep learned in one round.
struct UpkeepReport {
  std::int64_t clock_offset_ms = 0;          ///< the database's clock minus ours
  std::vector<ServerRow> servers;            ///< all that gave a sign of life in the last minute
  std::uint64_t disk_bytes = 0;              ///< of all tables and indexes of the schema
  std::uint64_t slot_bytes = 0;              ///< WAL that the permanent slot keeps
  std::uint64_t default_partition_rows = 0;  ///< rows for which no partition was there: alarming
  std::vector<PeerRow> peers;                ///< the table `peer`
  std::vector<StoredFrontier> frontiers;     ///< what the checkpoint's mark says
};

class SharedLog : public Log {
 public:
  /// Secret shared by the servers of the site: who shows it may forward commands.
  virtual std::string secret() const = 0;
  /// The site's name; empty if nobody has named it.
  virtual std::string site_name() const = 0;

  // ---- the committing thread ----

  /// Connects the committing session if it is not connected. False if the database cannot be reached now;
  /// then `why` says so in one line. Whatever lease the last session held is gone.
  virtual bool connect(std::string& why) = 0;
  virtual bool connected() const = 0;
  /// Ends the session, which gives the lease back at once; what the upkeep thread writes of the checkpoint
  /// just now fails within 100 ms, so that it holds up nobody who takes the lease.
  virtual void disconnect() = 0;
  /// Tries to take the site's lock for this session, without waiting; true if this session has it now. Throws
  /// AppendError.
  virtual bool try_lock() = 0;
  /// Ends the session of whoever holds the site's lock, if that is another one. Throws AppendError.
  virtual void end_holder() = 0;
  /// The newest lease row in the log, and the highest seq of an origin in the log or the checkpoint (0:
  /// none). Taken after `try_lock` gave true, the answers are final. Throw AppendError.
  virtual LeaseRow newest_lease() = 0;
  virtual Seq last_seq(OriginId origin) = 0;
  /// Tells candidates that the holder of the lock lives. Throws AppendError.
  virtual void beat(OriginId lease) = 0;
  /// As Log::append, and deletes these rows of the inbox in the same transaction. A lease row in the batch
  /// also makes its origin the current lease (which guards the checkpoint).
  virtual void append(const RowBatch& batch, const std::vector<std::int64_t>& stamped_inbox) = 0;
  using Log::append;

  // ---- the upkeep thread ----

  /// One round of housekeeping, about once a second: the registration of this server; the clock's offset;
  /// makes partitions ahead of time. As writer also: advances the permanent slot, drops partitions that are
  /// older than the retention and covered by the checkpoint, vacuums what the checkpoint leaves behind.
  /// Without the lock: ends the session of a holder that has not beaten for 3 s. Throws AppendError.
  virtual UpkeepReport upkeep(const ServerRow& self, OriginId lease) = 0;
  /// From now on the checkpoint is written under this lease: pieces of an older one are refused
  /// (AppendError::rejected).
  virtual void guard_checkpoint(OriginId lease) = 0;
  /// The rows of the log that the checkpoint does not cover, without their values: what a new writer has to
  /// put into the next checkpoint. Throws AppendError.
  virtual void read_uncovered(LoadSink& sink) = 0;
  /// The process ends: from now on whatever the threads of feed, links and upkeep wait for fails within 100
  /// ms. Any thread.
  virtual void end_waits() {}
  /// Removes this server from the registered ones. Throws AppendError.
  virtual void sign_off(OriginId server) = 0;

  // ---- the feed thread ----

  virtual std::unique_ptr<Feed> open_feed() = 0;

  // ---- the links thread ----

  virtual std::unique_ptr<Links> open_links() = 0;
};

}  // namespace isthmus::backend
