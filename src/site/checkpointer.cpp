#include "src/site/checkpointer.hpp"

#include <algorithm>

#include "src/observe/logging.hpp"
#include "src/site/journal.hpp"

namespace isthmus {

using backend::CheckpointChunk;
using backend::Row;
using backend::RowKind;
using backend::StoredField;
using backend::StoredKey;

namespace {

// Waits so long after the backend has refused a piece.
constexpr std::chrono::milliseconds kRetry{1000};

// The last of a run goes first, and the run with the first of these is the front of a heap: together they
// come in the order of the table's own key. Upserts next to each other cost a fraction of scattered ones.
constexpr auto kBehind = [](const auto& a, const auto& b) { return a.name > b.name; };
constexpr auto kRunBehind = [](const auto& a, const auto& b) { return kBehind(a.back(), b.back()); };

}  // namespace

Checkpointer::Checkpointer(Keyspace& keyspace, backend::Log& log, Limits limits)
    : keyspace_(keyspace), log_(log), limits_(limits) {}

void Checkpointer::note(const backend::RowBatch& batch) {
  const std::lock_guard lock(noted_);
  for (std::size_t i = 0; i < batch.size(); ++i) note_locked(batch[i]);
}

void Checkpointer::note(const Row& row) {
  const std::lock_guard lock(noted_);
  note_locked(row);
}

void Checkpointer::note_seen(const backend::Vector& seen) {
  const std::lock_guard lock(noted_);
  if (is_clean()) oldest_ = Clock::now();
  saw_others_ = true;
  for (const auto& [origin, seq] : seen) seen_[origin] = std::max(seen_[origin], seq);
}

void Checkpointer::hurry() {
  const std::lock_guard lock(noted_);
  oldest_ = {};
}

void Checkpointer::reset() {
  const std::lock_guard lock(noted_);
  dirty_.clear();
  flushed_.clear();
  seen_.clear();
  saw_others_ = false;
  gathering_.clear();
  writing_.clear();
  writing_flushed_.clear();
  chunks_.clear();
  phase_ = Phase::idle;
  dirty_count_.store(0, std::memory_order_relaxed);
  writing_count_.store(0, std::memory_order_relaxed);
}

Checkpointer::Dirty& Checkpointer::dirty_key(std::uint8_t db, std::string_view key) {
  if (is_clean()) oldest_ = Clock::now();
  thread_local std::string name;
  name.assign(1, static_cast<char>(db));
  name.append(key);
  const auto it = dirty_.find(name);
  if (it != dirty_.end()) return it->second;
  add_dirty(1);
  return dirty_[name];
}

void Checkpointer::note_whole(Dirty& dirty) {
  dirty.whole = true;
  dirty_count_.fetch_sub(dirty.fields.size(), std::memory_order_relaxed);
  dirty.fields.clear();
}

void Checkpointer::note_key(std::uint8_t db, std::string_view name) {
  const std::lock_guard lock(noted_);
  Dirty& dirty = dirty_key(db, name);
  dirty.together = true;
  note_whole(dirty);
}

void Checkpointer::note_locked(const Row& row) {
  if (row.seq != 0) seen_[row.origin] = std::max(seen_[row.origin], row.seq);
  if (row.kind == RowKind::flush) {
    if (is_clean()) oldest_ = Clock::now();
    flushed_.push_back({row.db, row.version, row.site});
    return;
  }
  if (!backend::is_of_key(row.kind)) return;
  Dirty& dirty = dirty_key(row.db, row.key);
  switch (row.kind) {
    case RowKind::hset:
    case RowKind::hcreate:
    case RowKind::hdel:
    case RowKind::hincr:
    case RowKind::sadd:
    case RowKind::screate:
    case RowKind::srem:
      if (!dirty.whole && dirty.fields.emplace(row.field).second) add_dirty(1);
      break;
    case RowKind::expire:
      break;
    case RowKind::update:
      // On top of what this site has, which is a string; what others have may have been a hash here.
      if (row.site == log_.site() && !row.copied) break;
      [[fallthrough]];
    default:
      // After a row of another site fields may be left that are older than the last mark.
      dirty.together |= row.site != log_.site() || row.copied;
      note_whole(dirty);
      break;
  }
}

bool Checkpointer::due(Clock::time_point now) const {
  const std::lock_guard lock(noted_);
  if (is_clean()) return false;
  return dirty_count_.load(std::memory_order_relaxed) >= limits_.dirty_entries ||
         now - oldest_ >= limits_.max_age;
}

bool Checkpointer::busy() const {
  const Clock::time_point now = Clock::now();
  return phase_ == Phase::idle ? due(now) && now >= next_step_ : now >= next_step_;
}

// What the mark says is taken before the first key is read: a key may be newer than it, never older. The
// caller may be the committing thread, so that all this costs the same however much is dirty.
void Checkpointer::begin(Journal& journal) {
  mark_ = {};
  if (frontiers_) mark_.frontiers = frontiers_();
  {
    const std::lock_guard shard_lock(keyspace_.shards()[0].mutex);
    mark_.flushes = keyspace_.stored_flushes();
    mark_place_ = journal.appended();
  }
  const std::lock_guard lock(noted_);
  std::swap(gathering_, dirty_);
  writing_count_.store(dirty_count_.exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
  std::swap(writing_flushed_, flushed_);
  mark_.vector = seen_;
  saw_others_ = false;
  phase_ = Phase::flushing;
}

bool Checkpointer::step(Journal& journal) {
  if (!busy()) return true;
  next_step_ = Clock::now() + (journal.backlog_bytes() > 0 ? limits_.pause : std::chrono::milliseconds{0});
  if (phase_ == Phase::idle) begin(journal);
  try {
    do_piece(journal);
    return true;
  } catch (const backend::AppendError& error) {
    put_back(error.what());
    return false;
  }
}

// Whatever of it had been written already is written again: upserts do not mind.
void Checkpointer::put_back(const std::string& cause) {
  log_warning("A piece of the checkpoint could not be written; it will be tried again", {{"cause", cause}});
  next_step_ = Clock::now() + kRetry;
}

void Checkpointer::do_piece(Journal& journal) {
  switch (phase_) {
    case Phase::idle:
      return;
    case Phase::flushing:
      return forget_flushed();
    case Phase::gathering:
      return gather_keys();
    case Phase::writing:
      return write_piece(journal);
    case Phase::cutting:
      if (!log_.cut()) phase_ = Phase::idle;
      return;
  }
}

void Checkpointer::forget_flushed() {
  if (writing_flushed_.empty()) {
    phase_ = Phase::gathering;
    return;
  }
  const Flushed& flushed = writing_flushed_.back();
  if (!log_.forget_flushed(flushed.db, flushed.version, flushed.site)) writing_flushed_.pop_back();
}

// Sorting them all at once would take seconds with millions of them, and merging many runs costs no more.
void Checkpointer::gather_keys() {
  std::size_t room = std::max<std::size_t>(limits_.run_keys, 1);
  Run run;
  run.reserve(std::min(room, gathering_.size()));
  for (auto it = gathering_.begin(); it != gathering_.end() && room > 0; --room) {
    run.push_back({it->first, std::move(it->second)});
    gathering_.erase(it++);
  }
  if (run.empty()) {
    phase_ = Phase::writing;
    return;
  }
  std::sort(run.begin(), run.end(), kBehind);
  writing_.push_back(std::move(run));
  std::push_heap(writing_.begin(), writing_.end(), kRunBehind);
}

// The key is done that was the front's last.
void Checkpointer::drop_key() {
  std::pop_heap(writing_.begin(), writing_.end(), kRunBehind);
  writing_.back().pop_back();
  if (writing_.back().empty()) {
    writing_.pop_back();
  } else {
    std::push_heap(writing_.begin(), writing_.end(), kRunBehind);
  }
}

void Checkpointer::write_piece(Journal& journal) {
  if (chunks_.empty()) {
    collect_piece();
    chunks_place_ = journal.appended();
  }
  if (chunks_.empty()) return finish(journal);
  // What was read may not be in the log yet, and the checkpoint must never be ahead of it.
  if (!settled(journal, chunks_place_)) return;
  if (chunks_together_) {
    log_.write_checkpoint(chunks_.front());
  } else if (log_.write_checkpoint_step(chunks_.front())) {
    return;
  }
  chunks_.pop_front();
}

void Checkpointer::finish(Journal& journal) {
  if (!settled(journal, mark_place_)) return;
  log_.put_mark(mark_);
  writing_count_.store(0, std::memory_order_relaxed);
  journal.count_checkpoint();
  phase_ = Phase::cutting;
}

// On an embedded log the caller is the committing thread and commits at once; on a shared one that is another
// thread's work, and the piece waits for its next turn.
bool Checkpointer::settled(Journal& journal, backend::Seq place) {
  return journal.shared() ? journal.committed() >= place : journal.commit_gathered();
}

void Checkpointer::collect_piece() {
  const std::size_t most = std::max<std::size_t>(limits_.chunk_rows, 1);
  Piece piece;
  while (!writing_.empty() && piece.rows() < most) {
    if (!read_key(writing_.front().back(), most - piece.rows(), piece)) break;
    drop_key();
  }
  if (piece.chunk.keys.empty()) return;
  chunks_together_ = piece.together;
  // Of a key that was read at once all fields are here; the key, which replaces what was there, goes with the
  // first of them. A few more than `most` are not worth a transaction of their own.
  std::vector<StoredField> fields;
  if (!piece.together && piece.chunk.fields.size() > 2 * most) fields.swap(piece.chunk.fields);
  chunks_.push_back(std::move(piece.chunk));
  for (std::size_t i = 0; i < fields.size(); ++i) {
    if (i != 0 && i % most == 0) chunks_.emplace_back();
    chunks_.back().fields.push_back(std::move(fields[i]));
  }
}

// Adds what the key is now, and about `room` of its fields. True if no more of it is to be read.
//
// Between two pieces of a key anything may happen to it. Each piece has the whole header of the moment, and
// is what a checkpoint would write that had begun with those fields alone: whatever changed since this one
// began is in the log behind the mark, and noted for the next one.
bool Checkpointer::read_key(Writing& writing, std::size_t room, Piece& piece) {
  const Key key(static_cast<std::uint8_t>(writing.name[0]), std::string_view(writing.name).substr(1));
  const std::lock_guard lock(keyspace_.shard(key).mutex);
  piece.chunk.keys.push_back(keyspace_.stored(key));
  const Node* const node = keyspace_.find_any(key);
  piece.together |= writing.dirty.together;
  if (node == nullptr) return true;
  // A row of another site may have made a set of a hash, or a hash of a set: then fields of the other are
  // left.
  const bool has_cut = node->has_fields() && node->registers().cut_version != 0;
  if (!writing.dirty.whole && !has_cut) return read_fields(writing, key, *node, room, piece);
  writing.dirty.together |= has_cut;
  piece.together |= has_cut;
  return read_whole(writing, key, *node, room, piece);
}

// A key that is a string now has been noted whole since: what is left of its fields goes with the next
// checkpoint.
bool Checkpointer::read_fields(Writing& writing, const Key& key, const Node& node, std::size_t room,
                               Piece& piece) {
  auto& fields = writing.dirty.fields;
  for (auto it = fields.begin(); it != fields.end() && room > 0; --room) {
    piece.chunk.fields.push_back(keyspace_.stored(key, *it));
    fields.erase(it++);
  }
  return fields.empty() || !node.has_fields();
}

// In pieces it goes by the cursor of SCAN: that misses no field that is there all the time, and the others
// are noted. It passes over tombstones, so a key that has any is read at once.
bool Checkpointer::read_whole(Writing& writing, const Key& key, const Node& node, std::size_t room,
                              Piece& piece) {
  auto& fields = piece.chunk.fields;
  const auto add = [&](const FieldView& field) { fields.push_back(keyspace_.stored(key, field.name)); };
  bool& replaces = piece.chunk.keys.back().replace_fields;
  replaces = writing.cursor == 0;
  if (!node.has_fields()) return true;
  if (writing.dirty.together || hash_tombstones(node) > 0) {
    replaces = true;
    hash_for_each(node, true, add);
    return true;
  }
  for (const std::size_t end = fields.size() + room; fields.size() < end;) {
    writing.cursor = hash_scan(node, writing.cursor, add);
    if (writing.cursor == 0) return true;
  }
  return false;
}

}  // namespace isthmus
