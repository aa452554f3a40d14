// Writes what has changed into the checkpoint, a small piece between two commits, and lets the log be cut
// behind it.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>
#include <boost/unordered/unordered_flat_set.hpp>

#include "backend/log.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/pubsub/pubsub.hpp"

namespace isthmus {

class Journal;

/// A fuzzy, incremental checkpoint. Rows name what is dirty; when enough is, or it is old enough, the dirty
/// keys are read from the keyspace as they are then and upserted. With absolute effects it does no harm that
/// a key is newer in the checkpoint than the checkpoint's vector says: folding its rows again changes
/// nothing. `note` may be called by one thread while another one calls `step`.
class Checkpointer {
 public:
  struct Limits {
    std::size_t dirty_entries = 100'000;        ///< begin when so many keys and fields are dirty
    std::chrono::milliseconds max_age{10'000};  ///< or when the oldest has been dirty for so long
    std::size_t run_keys = 2048;         ///< keys that one step puts in order: about a millisecond, too
    std::size_t chunk_rows = 256;        ///< rows of one transaction: about a millisecond of SQLite
    std::chrono::milliseconds pause{5};  ///< between two pieces while commits go on
  };

  Checkpointer(Keyspace& keyspace, backend::Log& log, Limits limits);

  /// These rows are in the log now.
  void note(const backend::RowBatch& batch);
  void note(const backend::Row& row);
  /// So far rows are in the log that change nothing here, as others' messages.
  void note_seen(const backend::Vector& seen);
  /// The key has changed by no row: something of it has been forgotten.
  void note_key(std::uint8_t db, std::string_view name);
  /// Where the frontiers of all sites come from, for a log that has peers. Before the first `step`.
  void set_frontiers(std::function<std::vector<backend::StoredFrontier>()> frontiers) {
    frontiers_ = std::move(frontiers);
  }
  /// What has been noted so far is old: the next checkpoint begins at once.
  void hurry();
  /// Forgets everything: this server is not the one that writes the checkpoint any more.
  void reset();
  /// Whether `step` has something to do right now.
  bool busy() const;
  /// Does at most one piece of work. Effects that it reads are committed by `journal` before they enter the
  /// checkpoint. False if the backend refused it: it is tried again.
  bool step(Journal& journal);
  /// For INFO: keys and fields that are not in the checkpoint yet.
  std::size_t dirty() const {
    return dirty_count_.load(std::memory_order_relaxed) + writing_count_.load(std::memory_order_relaxed);
  }

 private:
  using Clock = std::chrono::steady_clock;
  struct Dirty {
    bool whole = false;
    bool together = false;  // all fields in one transaction: the log may not have them any more
    boost::unordered_flat_set<std::string> fields;
  };
  using DirtyKeys = StringMap<Dirty>;  // the database's number as one byte, then the key
  // A key to be written. A large one is read in pieces, and others change it between them.
  struct Writing {
    std::string name;          // as in DirtyKeys
    Dirty dirty;               // its fields are those that are left
    std::uint64_t cursor = 0;  // of all fields, how far they are read; 0: not begun
  };
  using Run = std::vector<Writing>;  // sorted
  // What one transaction writes.
  struct Piece {
    backend::CheckpointChunk chunk;
    bool together = false;
    std::size_t rows() const { return chunk.keys.size() + chunk.fields.size(); }
  };
  struct Flushed {
    std::uint8_t db;
    backend::Version version;
    backend::SiteId site;
  };
  enum class Phase { idle, flushing, gathering, writing, cutting };

  void note_locked(const backend::Row& row);
  bool due(Clock::time_point now) const;
  bool is_clean() const { return dirty_.empty() && flushed_.empty() && !saw_others_; }
  static bool settled(Journal& journal, backend::Seq place);
  Dirty& dirty_key(std::uint8_t db, std::string_view key);
  void add_dirty(std::size_t count) { dirty_count_.fetch_add(count, std::memory_order_relaxed); }
  void note_whole(Dirty& dirty);
  void begin(Journal& journal);
  void do_piece(Journal& journal);
  void forget_flushed();
  void gather_keys();
  void drop_key();
  void write_piece(Journal& journal);
  void finish(Journal& journal);
  void collect_piece();
  bool read_key(Writing& writing, std::size_t room, Piece& piece);
  bool read_fields(Writing& writing, const Key& key, const Node& node, std::size_t room, Piece& piece);
  bool read_whole(Writing& writing, const Key& key, const Node& node, std::size_t room, Piece& piece);
  void put_back(const std::string& cause);

  Keyspace& keyspace_;
  backend::Log& log_;
  const Limits limits_;
  mutable std::mutex noted_;  // guards what `note` changes: the next six
  DirtyKeys dirty_;
  std::vector<Flushed> flushed_;
  Clock::time_point oldest_;
  backend::Vector seen_;     // highest seq noted, for each origin
  bool saw_others_ = false;  // rows that change nothing here, of which only the mark is to tell

  Phase phase_ = Phase::idle;
  Clock::time_point next_step_;
  DirtyKeys gathering_;       // what was dirty when it began, on its way into the next
  std::vector<Run> writing_;  // a heap: the key that is next is the last of its front
  std::vector<Flushed> writing_flushed_;
  std::deque<backend::CheckpointChunk> chunks_;
  bool chunks_together_ = false;   // there is one chunk then
  backend::Seq chunks_place_ = 0;  // the commit that the chunks wait for
  backend::CheckpointMark mark_;
  backend::Seq mark_place_ = 0;  // the commit that it waits for
  std::function<std::vector<backend::StoredFrontier>()> frontiers_;
  std::atomic<std::size_t> dirty_count_{0}, writing_count_{0};
};

}  // namespace isthmus
