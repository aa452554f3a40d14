// The checkpoint: how much one step of it does, and that a server which dies at any moment finds in the
// checkpoint and the log behind it all that was committed.
#include "src/site/checkpointer.hpp"

#include <map>
#include <random>
#include <set>
#include <tuple>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "src/keyspace/clock.hpp"
#include "src/site/journal.hpp"
#include "tests/unit/merge/registers_text.hpp"

namespace isthmus {
namespace {

using backend::CheckpointChunk;
using backend::Row;
using backend::RowKind;
using backend::Seq;
using backend::SiteId;
using backend::StoredField;
using backend::StoredKey;
using backend::StoredType;
using ::testing::Each;
using ::testing::Le;
using ::testing::SizeIs;

constexpr SiteId kOwn = 1;
constexpr SiteId kOther = 2;

/// A row that owns its bytes.
struct KeptRow {
  Row row;
  std::string key, field, value;
  Row view() const {
    Row out = row;
    out.key = key;
    out.field = field;
    out.value = value;
    return out;
  }
};

KeptRow make_row(RowKind kind, std::string key, std::string field = {}, std::string value = {}) {
  KeptRow made;
  made.row.kind = kind;
  made.row.site = kOwn;
  made.key = std::move(key);
  made.field = std::move(field);
  made.value = std::move(value);
  return made;
}

/// What outlives a server: a log and a checkpoint, in memory. Deletes few fields in one step.
class KeptLog final : public backend::Log {
 public:
  bool durable() const override { return true; }
  SiteId site() const override { return kOwn; }
  void load(backend::LoadSink& sink) override;
  void append(const backend::RowBatch& /*batch*/) override {}
  void write_checkpoint(const CheckpointChunk& chunk) override;
  bool write_checkpoint_step(const CheckpointChunk& chunk) override;
  bool forget_flushed(std::uint8_t db, Version version, SiteId site) override;
  void put_mark(const backend::CheckpointMark& mark) override;
  bool cut() override { return false; }
  std::uint64_t disk_bytes() const override { return 0; }
  std::string description() const override { return "kept"; }

  std::vector<KeptRow> rows;
  std::vector<CheckpointChunk> chunks;           ///< as they were written
  std::size_t together = 0;                      ///< so many of them not in steps
  std::size_t marks = 0;                         ///< finished checkpoints
  std::function<void()> commit_waiting = [] {};  ///< what the journal does before a piece is written

 private:
  using Name = std::pair<std::uint8_t, std::string>;
  struct Fields : std::map<std::string, StoredField> {
    bool lose(std::size_t most) {
      for (; most > 0 && !empty(); --most) erase(begin());
      return empty();
    }
  };
  void load_fields(const StoredKey& owner, backend::LoadSink& sink) const;

  std::map<Name, StoredKey> keys_;
  std::map<Name, Fields> fields_;
  backend::Vector progress_;
  std::vector<backend::StoredFlush> flushes_;
};

void KeptLog::load_fields(const StoredKey& owner, backend::LoadSink& sink) const {
  const auto found = fields_.find({owner.db, owner.key});
  if (found == fields_.end()) return;
  for (const auto& [name, field] : found->second) {
    const std::pair stamp(field.version, field.site);
    const bool cut = stamp < std::pair(owner.cut_version, owner.cut_site);
    const bool replaced = owner.type == StoredType::string && stamp < std::pair(owner.version, owner.site);
    if (!cut && !replaced) sink.field(field);
  }
}

void KeptLog::load(backend::LoadSink& sink) {
  for (const backend::StoredFlush& flush : flushes_) sink.flushed(flush);
  for (const auto& [name, key] : keys_) {
    sink.key(key);
    load_fields(key, sink);
  }
  for (const auto& [name, fields] : fields_) EXPECT_TRUE(fields.empty() || keys_.contains(name));
  for (const KeptRow& kept : rows) {
    if (kept.row.seq > progress_[kept.row.origin]) sink.row(kept.view());
  }
}

void KeptLog::write_checkpoint(const CheckpointChunk& chunk) {
  commit_waiting();
  ++together;
  chunks.push_back(chunk);
  for (const StoredKey& key : chunk.keys) {
    if (key.forget || key.replace_fields) fields_.erase({key.db, key.key});
    keys_[{key.db, key.key}] = key;
    if (key.forget) keys_.erase({key.db, key.key});
  }
  for (const StoredField& field : chunk.fields) {
    Fields& fields = fields_[{field.db, field.key}];
    fields[field.field] = field;
    if (field.forget) fields.erase(field.field);
  }
}

bool KeptLog::write_checkpoint_step(const CheckpointChunk& chunk) {
  commit_waiting();
  for (const StoredKey& key : chunk.keys) {
    if ((key.forget || key.replace_fields) && !fields_[{key.db, key.key}].lose(2)) return true;
  }
  write_checkpoint(chunk);
  --together;
  return false;
}

bool KeptLog::forget_flushed(std::uint8_t db, Version version, SiteId site) {
  const std::pair flush(version, site);
  for (auto& [name, fields] : fields_) {
    if (name.first != db) continue;
    std::erase_if(fields, [&](const auto& field) {
      return std::pair(field.second.version, field.second.site) <= flush;
    });
  }
  std::erase_if(keys_, [&](const auto& entry) {
    const StoredKey& key = entry.second;
    return key.db == db && std::pair(key.version, key.site) <= flush &&
           std::pair(key.cut_version, key.cut_site) <= flush &&
           std::pair(key.expire_version, key.expire_site) <= flush;
  });
  return false;
}

void KeptLog::put_mark(const backend::CheckpointMark& mark) {
  commit_waiting();
  ++marks;
  for (const auto& [origin, seq] : mark.vector) progress_[origin] = std::max(progress_[origin], seq);
  flushes_ = mark.flushes;
}

/// A keyspace with its checkpointer. Dies with the object; what is in the log stays.
class Server : public backend::LoadSink {
 public:
  Server(KeptLog& log, const Checkpointer::Limits& limits, Version stable)
      : log_(log), journal(log, clock_), checkpointer(keyspace, log, limits) {
    keyspace.set_site(kOwn);
    keyspace.set_stable(stable);
    keyspace.set_hash_limits({2, 64});
    log.commit_waiting = [this] { commit(); };
    log.load(*this);
  }
  ~Server() override {
    log_.commit_waiting = [] {};
  }

  void key(const StoredKey& stored) override { keyspace.restore(stored); }
  void field(const StoredField& stored) override { keyspace.restore(stored); }
  void flushed(const backend::StoredFlush& stored) override { keyspace.restore(stored); }
  void row(const Row& row) override {
    fold_row(keyspace, row);
    checkpointer.note(row);
  }

  /// Folds the row, which is in the log from the next commit on.
  void write(KeptRow row) {
    row.row.origin = origin;
    row.row.seq = ++seq_;
    if (row.row.version == 0) row.row.version = seq_;
    row.row.group_end = true;
    fold_row(keyspace, row.view());
    waiting_.push_back(std::move(row));
  }
  void commit() {
    for (KeptRow& row : std::exchange(waiting_, {})) {
      checkpointer.note(row.view());
      log_.rows.push_back(std::move(row));
    }
  }
  /// Steps until so many chunks have been written; gives the number of steps.
  std::size_t step_to(std::size_t chunks) {
    std::size_t steps = 0;
    for (; log_.chunks.size() < chunks && steps < 10'000; ++steps) checkpointer.step(journal);
    return steps;
  }
  void finish() {
    for (const std::size_t marks = log_.marks; log_.marks == marks;) checkpointer.step(journal);
  }

 private:
  KeptLog& log_;
  HybridClock clock_;
  std::vector<KeptRow> waiting_;
  Seq seq_ = 0;

 public:
  backend::OriginId origin = 1;
  Keyspace keyspace;
  Journal journal;
  Checkpointer checkpointer;
};

constexpr Version kForgetAll = std::numeric_limits<Version>::max();

Checkpointer::Limits small_limits() {
  Checkpointer::Limits limits;
  limits.dirty_entries = 50;
  limits.run_keys = 10;
  limits.chunk_rows = 10;
  limits.pause = std::chrono::milliseconds{0};
  return limits;
}

std::size_t rows_of(const CheckpointChunk& chunk) { return chunk.keys.size() + chunk.fields.size(); }

std::vector<std::size_t> sizes_of(const KeptLog& log) {
  std::vector<std::size_t> sizes;
  for (const CheckpointChunk& chunk : log.chunks) sizes.push_back(rows_of(chunk));
  return sizes;
}

class CheckpointerTest : public ::testing::Test {
 protected:
  void fill_hash(const std::string& key, int fields, const std::string& value) {
    for (int i = 0; i < fields; ++i) server_.write(make_row(RowKind::hset, key, std::to_string(i), value));
    server_.commit();
  }
  std::size_t count_written(const std::string& value) const {
    std::size_t count = 0;
    for (const CheckpointChunk& chunk : log_.chunks) {
      for (const StoredField& field : chunk.fields) count += field.value == value ? 1 : 0;
    }
    return count;
  }

  KeptLog log_;
  Server server_{log_, small_limits(), kForgetAll};
};

TEST_F(CheckpointerTest, CountsKeysAndFields) {
  fill_hash("h", 40, "v");
  EXPECT_EQ(server_.checkpointer.dirty(), 41U);
  fill_hash("h", 41, "w");
  EXPECT_EQ(server_.checkpointer.dirty(), 42U) << "the same fields again";
  server_.write(make_row(RowKind::del, "h"));
  server_.commit();
  EXPECT_EQ(server_.checkpointer.dirty(), 1U) << "the key as a whole";
  fill_hash("g", 20, "v");
  EXPECT_EQ(server_.checkpointer.dirty(), 22U);
  EXPECT_FALSE(server_.checkpointer.busy());
}

TEST_F(CheckpointerTest, BeginsForTheFieldsOfOneKey) {
  fill_hash("h", 48, "v");
  EXPECT_FALSE(server_.checkpointer.busy());
  fill_hash("h", 49, "v");
  EXPECT_TRUE(server_.checkpointer.busy());
  server_.checkpointer.step(server_.journal);
  EXPECT_EQ(server_.checkpointer.dirty(), 50U) << "not in the checkpoint yet";
  server_.finish();
  EXPECT_EQ(server_.checkpointer.dirty(), 0U);
}

TEST_F(CheckpointerTest, PutsFewKeysInOrderInOneStep) {
  for (int i = 0; i < 100; ++i)
    server_.write(make_row(RowKind::set, "key" + std::to_string(i * 37 % 100 + 100), {}, "v"));
  server_.commit();
  EXPECT_GE(server_.step_to(1), 10U);
  server_.finish();
  std::vector<std::string> names;
  for (const CheckpointChunk& chunk : log_.chunks) {
    for (const StoredKey& key : chunk.keys) names.push_back(key.key);
  }
  EXPECT_THAT(names, SizeIs(100));
  EXPECT_TRUE(std::is_sorted(names.begin(), names.end()));
  EXPECT_THAT(sizes_of(log_), Each(Le(10)));
}

TEST_F(CheckpointerTest, ReadsTheDirtyFieldsOfALargeHashInPieces) {
  fill_hash("h", 100, "old");
  server_.checkpointer.hurry();
  server_.step_to(1);
  for (int i = 0; i < 100; ++i) server_.write(make_row(RowKind::hset, "h", std::to_string(i), "new"));
  server_.finish();
  EXPECT_THAT(sizes_of(log_), Each(Le(11)));
  EXPECT_LE(count_written("old"), 10U);
  EXPECT_EQ(count_written("old") + count_written("new"), 100U);
}

TEST_F(CheckpointerTest, ReadsALargeHashThatWasMadeAnewInPieces) {
  server_.write(make_row(RowKind::del, "h"));
  for (int i = 0; i < 60; ++i) server_.write(make_row(RowKind::set, "x" + std::to_string(i), {}, "v"));
  fill_hash("h", 1000, "old");
  server_.step_to(1);
  for (int i = 0; i < 1000; ++i) server_.write(make_row(RowKind::hset, "h", std::to_string(i), "new"));
  server_.finish();
  // The bucket that fills a piece may have a few more.
  EXPECT_THAT(sizes_of(log_), Each(Le(20)));
  EXPECT_LE(count_written("old"), 19U);
  EXPECT_EQ(count_written("old") + count_written("new"), 1000U);
}

TEST_F(CheckpointerTest, WritesTogetherWhatTheLogMayNotHave) {
  KeptRow foreign = make_row(RowKind::del, "h");
  foreign.row.site = kOther;
  server_.write(std::move(foreign));
  fill_hash("h", 100, "v");
  server_.checkpointer.hurry();
  server_.step_to(1);
  ASSERT_THAT(log_.chunks, SizeIs(1));
  EXPECT_THAT(log_.chunks[0].fields, SizeIs(100));
  EXPECT_TRUE(log_.chunks[0].keys.at(0).replace_fields);
  EXPECT_EQ(log_.together, 1U) << "in one transaction with the deletion of the fields that were there";
}

TEST_F(CheckpointerTest, StopsReadingAHashThatIsDeletedMeanwhile) {
  fill_hash("h", 100, "v");
  server_.checkpointer.hurry();
  server_.step_to(1);
  server_.write(make_row(RowKind::del, "h"));
  server_.finish();
  ASSERT_THAT(log_.chunks, SizeIs(2));
  EXPECT_TRUE(log_.chunks[1].keys.at(0).forget);
  EXPECT_THAT(log_.chunks[1].fields, SizeIs(0));
}

/// Random commands, steps of the checkpoint and deaths between them.
class History {
 public:
  History(unsigned seed, bool linked) : random_(seed), linked_(linked) { start(); }

  void run(int events) {
    for (int i = 0; i < events && !::testing::Test::HasFailure(); ++i) {
      const std::size_t what = pick(100);
      if (what < 40) {
        command();
      } else if (what < 60) {
        server_->commit();
      } else if (what < 98) {
        server_->checkpointer.step(server_->journal);
      } else {
        die();
      }
    }
    die();
  }
  std::size_t marks() const { return log_.marks; }

 private:
  std::size_t pick(std::size_t below) { return random_() % below; }
  Version stable() const { return linked_ ? 0 : kForgetAll; }

  void start() {
    Checkpointer::Limits limits = small_limits();
    limits.dirty_entries = 1 + pick(15);
    limits.run_keys = 2;
    limits.chunk_rows = 1 + pick(4);
    server_ = std::make_unique<Server>(log_, limits, stable());
    server_->origin = ++lives_;
  }

  // What was committed is all there, and nothing else.
  void die() {
    server_.reset();
    start();
    Keyspace all;
    all.set_site(kOwn);
    all.set_stable(stable());
    for (const KeptRow& row : log_.rows) fold_row(all, row.view());
    for (const std::uint8_t db : {0, 1})
      ASSERT_EQ(text_of(server_->keyspace, db), text_of(all, db)) << "life " << lives_;
    // What is remembered for rows that may come late.
    if (!linked_) return;
    ASSERT_EQ(registers_of(server_->keyspace), registers_of(all)) << "life " << lives_;
  }

  // Rows of another site come late, but each of its own in order.
  void emit(KeptRow row, std::uint8_t db) {
    row.row.db = db;
    version_ += 100;
    row.row.version = version_;
    if (linked_ && pick(3) == 0) {
      row.row.site = kOther;
      others_version_ += 1 + pick(version_ - others_version_);
      row.row.version = others_version_;
    }
    server_->write(std::move(row));
  }

  const Node* find(std::uint8_t db, const std::string& key) { return server_->keyspace.find({db, key}, 0); }

  void command() {
    const std::uint8_t db = static_cast<std::uint8_t>(pick(2));
    const std::string key(1, static_cast<char>('a' + pick(3)));
    const std::size_t what = pick(100);
    if (what < 45) {
      for (std::size_t count = 1 + pick(8); count > 0; --count) add_field(db, key, pick(4) == 0);
    } else if (what < 65) {
      for (std::size_t count = 1 + pick(8); count > 0; --count) remove_field(db, key);
    } else if (what < 80) {
      if (find(db, key) != nullptr) emit(make_row(RowKind::del, key), db);
    } else if (what < 90) {
      emit(make_row(RowKind::set, key, {}, std::to_string(version_)), db);
    } else if (what < 97) {
      KeptRow row = make_row(RowKind::expire, key);
      if (pick(3) != 0) row.row.expire_at = 1 + static_cast<std::int64_t>(pick(1000));
      if (find(db, key) != nullptr) emit(std::move(row), db);
    } else {
      emit(make_row(RowKind::flush, {}), db);
    }
  }

  void add_field(std::uint8_t db, const std::string& key, bool to_set) {
    const Node* node = find(db, key);
    if (node != nullptr && (node->is_string() || (pick(20) == 0 && node->is_set() != to_set))) {
      emit(make_row(RowKind::del, key), db);
      node = find(db, key);
    }
    if (node != nullptr) to_set = node->is_set();
    const RowKind kind = to_set ? (node == nullptr ? RowKind::screate : RowKind::sadd)
                                : (node == nullptr ? RowKind::hcreate : RowKind::hset);
    emit(make_row(kind, key, std::to_string(pick(30)), to_set ? "" : std::to_string(version_)), db);
  }

  void remove_field(std::uint8_t db, const std::string& key) {
    const Node* node = find(db, key);
    if (node == nullptr || !node->has_fields()) return;
    std::string field(hash_random(*node, [this] { return random_(); }).name);
    emit(make_row(node->is_set() ? RowKind::srem : RowKind::hdel, key, std::move(field)), db);
  }

  std::mt19937_64 random_;
  const bool linked_;
  KeptLog log_;
  std::unique_ptr<Server> server_;
  int lives_ = 0;
  Version version_ = 1000, others_version_ = 900;
};

class Histories : public ::testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Sites, Histories, ::testing::Bool(),
                         [](const auto& linked) { return linked.param ? "Linked" : "Alone"; });

TEST_P(Histories, LoseNothingThatWasCommitted) {
  std::size_t marks = 0;
  for (unsigned seed = 0; seed < 15 && !HasFailure(); ++seed) {
    SCOPED_TRACE(seed);
    History history(seed, GetParam());
    history.run(1500);
    marks += history.marks();
  }
  EXPECT_GT(marks, 15U * 10);
}

}  // namespace
}  // namespace isthmus
