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
  return it != dirty_.end() ? it->second : dirty_[name];
}

void Checkpointer::note_key(std::uint8_t db, std::string_view name) {
  const std::lock_guard lock(noted_);
  Dirty& dirty = dirty_key(db, name);
  dirty.whole = dirty.together = true;
  dirty.fields.clear();
  dirty_count_.store(dirty_.size(), std::memory_order_relaxed);
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
      if (!dirty.whole) dirty.fields.emplace(row.field);
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
      dirty.whole = true;
      dirty.fields.clear();
      break;
  }
  dirty_count_.store(dirty_.size(), std::memory_order_relaxed);
}

bool Checkpointer::due(Clock::time_point now) const {
  const std::lock_guard lock(noted_);
  if (is_clean()) return false;
  return dirty_.size() >= limits_.dirty_keys || now - oldest_ >= limits_.max_age;
}

bool Checkpointer::busy() const {
  const Clock::time_point now = Clock::now();
  return phase_ == Phase::idle ? due(now) && now >= next_step_ : now >= next_step_;
}

// What the mark says is taken before the first key is read: a key may be newer than it, never older.
void Checkpointer::begin(Journal& journal) {
  mark_ = {};
  if (frontiers_) mark_.frontiers = frontiers_();
  {
    const std::lock_guard shard_lock(keyspace_.shards()[0].mutex);
    mark_.flushes = keyspace_.stored_flushes();
    mark_place_ = journal.appended();
  }
  const std::lock_guard lock(noted_);
  for (auto& [name, dirty] : dirty_) writing_.emplace_back(name, std::move(dirty));
  dirty_.clear();
  dirty_count_.store(0, std::memory_order_relaxed);
  writing_count_.store(writing_.size(), std::memory_order_relaxed);
  // In the order of the table's own key: upserts next to each other cost a fraction of scattered ones.
  std::sort(writing_.begin(), writing_.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
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
    write_piece(journal);
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

void Checkpointer::write_piece(Journal& journal) {
  switch (phase_) {
    case Phase::idle:
      return;
    case Phase::flushing:
      if (writing_flushed_.empty()) {
        phase_ = Phase::writing;
      } else {
        const Flushed& flushed = writing_flushed_.back();
        if (!log_.forget_flushed(flushed.db, flushed.version, flushed.site)) writing_flushed_.pop_back();
      }
      return;
    case Phase::writing:
      if (chunks_.empty()) {
        collect_chunk();
        chunks_place_ = journal.appended();
      }
      if (!chunks_.empty()) {
        // What was read may not be in the log yet, and the checkpoint must never be ahead of it.
        if (!settled(journal, chunks_place_)) return;
        log_.write_checkpoint(chunks_.front());
        chunks_.pop_front();
        return;
      }
      if (!settled(journal, mark_place_)) return;
      log_.put_mark(mark_);
      writing_count_.store(0, std::memory_order_relaxed);
      journal.count_checkpoint();
      phase_ = Phase::cutting;
      return;
    case Phase::cutting:
      if (!log_.cut()) phase_ = Phase::idle;
      return;
  }
}

// On an embedded log the caller is the committing thread and commits at once; on a shared one that is another
// thread's work, and the piece waits for its next turn.
bool Checkpointer::settled(Journal& journal, backend::Seq place) {
  return journal.shared() ? journal.committed() >= place : journal.commit_gathered();
}

void Checkpointer::collect_chunk() {
  CheckpointChunk chunk;
  std::vector<StoredField> fields;
  bool together = false;
  while (!writing_.empty() && chunk.keys.size() + fields.size() < limits_.chunk_rows) {
    const auto& [name, dirty] = writing_.back();
    const Key key(static_cast<std::uint8_t>(name[0]), std::string_view(name).substr(1));
    together |= dirty.together;
    {
      const std::lock_guard lock(keyspace_.shard(key).mutex);
      StoredKey stored = keyspace_.stored(key);
      const Node* node = keyspace_.find_any(key);
      // A row of another site may have made a set of a hash, or a hash of a set: then fields of the other are
      // left.
      const bool has_cut = node != nullptr && node->has_fields() && node->registers().cut_version != 0;
      const bool whole = dirty.whole || has_cut;
      together |= has_cut;
      stored.replace_fields = whole;
      if (whole && node != nullptr && node->has_fields()) {
        hash_for_each(*node, true,
                      [&](const FieldView& field) { fields.push_back(keyspace_.stored(key, field.name)); });
      }
      for (const std::string& field : dirty.fields) {
        if (!stored.forget && !whole) fields.push_back(keyspace_.stored(key, field));
      }
      chunk.keys.push_back(std::move(stored));
    }
    writing_.pop_back();
  }
  if (chunk.keys.empty()) return;
  // A large hash goes over several transactions; its key, which replaces what was there, comes with the
  // first.
  const std::size_t most = together ? fields.size() : std::max<std::size_t>(limits_.chunk_rows, 1);
  std::size_t next = 0;
  do {
    const std::size_t end = std::min(fields.size(), next + most);
    for (; next < end; ++next) chunk.fields.push_back(std::move(fields[next]));
    chunks_.push_back(std::move(chunk));
    chunk = {};
  } while (next < fields.size());
}

}  // namespace isthmus
