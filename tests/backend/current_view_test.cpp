// The view `current` and the load, against the rules of merging: random rows, cut by random checkpoints.
#include <chrono>
#include <random>
#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/shared_log.hpp"
#include "tests/backend/place.hpp"
#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr std::int64_t kPast = 1'000;
constexpr std::int64_t kFuture = 9'999'999'999'999;

std::int64_t now_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

constexpr const char* kAllSql =
    "SELECT db, key, type, field, value, expire_at, version FROM current ORDER BY db, key, field";

class CurrentView : public ::testing::Test {
 protected:
  CurrentView() : log_(open_log(folder_.url())) {}
  std::vector<std::string> after(const std::vector<Row>& rows) {
    log_->append(make_batch(rows));
    return query_lines(folder_.path(), kAllSql);
  }

  TempFolder folder_;
  std::unique_ptr<Log> log_;
};

Row with_deadline(Row row, std::int64_t expire_at) {
  row.expire_at = expire_at;
  return row;
}

TEST_F(CurrentView, ShowsStringsAndFields) {
  EXPECT_THAT(after({make_row(1, RowKind::set, "s", "", "1"), make_row(2, RowKind::update, "s", "", "2"),
                     make_row(3, RowKind::hcreate, "h", "f", "3"), make_row(4, RowKind::hset, "h", "", ""),
                     make_row(5, RowKind::hset, "h", "g", "4"), make_row(6, RowKind::hdel, "h", "g")}),
              ElementsAre("0|h|hash||||4", "0|h|hash|f|3||3", "0|s|string||2||2"));
}

TEST_F(CurrentView, ShowsMembersWithoutAValue) {
  EXPECT_THAT(after({make_row(1, RowKind::screate, "t", "a"), make_row(2, RowKind::sadd, "t", "b"),
                     make_row(3, RowKind::srem, "t", "a"), make_row(4, RowKind::sadd, "t", "")}),
              ElementsAre("0|t|set||||4", "0|t|set|b|||2"));
}

TEST_F(CurrentView, HidesWhatIsDeletedExpiredOrFlushed) {
  Row elsewhere = make_row(7, RowKind::set, "o", "", "kept");
  elsewhere.db = 3;
  EXPECT_THAT(after({make_row(1, RowKind::set, "s", "", "1"), make_row(2, RowKind::hset, "h", "f", "1"),
                     with_deadline(make_row(3, RowKind::set, "e", "", "1"), kPast),
                     make_row(4, RowKind::del, "s"), elsewhere}),
              ElementsAre("0|h|hash|f|1||2", "3|o|string||kept||7"));
  EXPECT_THAT(after({make_row(8, RowKind::flush)}), ElementsAre("3|o|string||kept||7"));
}

TEST_F(CurrentView, ShowsTheDeadlineThatIsInForce) {
  EXPECT_THAT(after({with_deadline(make_row(1, RowKind::set, "k", "", "v"), kPast),
                     with_deadline(make_row(2, RowKind::expire, "k"), kFuture)}),
              ElementsAre("0|k|string||v|9999999999999|1"));
  EXPECT_THAT(after({make_row(3, RowKind::update, "k", "", "w")}),
              ElementsAre("0|k|string||w|9999999999999|3"));
  EXPECT_THAT(after({make_row(4, RowKind::expire, "k")}), ElementsAre("0|k|string||w||3"));
}

TEST_F(CurrentView, KeepsADeadlineForAKeyThatComesLater) {
  Row early = make_row(1, RowKind::hset, "k", "f", "v");
  early.version = 2;
  Row deadline = with_deadline(make_row(2, RowKind::expire, "k"), kPast);
  deadline.version = 1;
  EXPECT_THAT(after({deadline, early}), IsEmpty());
}

TEST_F(CurrentView, ShowsReadableBytesAsTextAndOthersAsBlobs) {
  const std::string bytes[] = {"plain", "two\nlines", "Gr\xc3\xbc\xc3\x9f", "\xf0\x9f\x98\x80",
                               "\xff",  "\x80\x81",   "cut \xe2\x82",       std::string("zero\0", 5)};
  std::vector<Row> rows;
  for (const std::string& value : bytes)
    rows.push_back(make_row(rows.size() + 1, RowKind::set, value, "", value));
  after(rows);
  EXPECT_THAT(
      query_lines(folder_.path(), "SELECT typeof(key) || typeof(value) FROM current ORDER BY version"),
      ElementsAre("texttext", "texttext", "texttext", "texttext", "blobblob", "blobblob", "blobblob",
                  "blobblob"));
  EXPECT_EQ(
      query_integer(folder_.path(), "SELECT count(*) FROM current WHERE key = 'plain' AND value = 'plain'"),
      1);
}

TEST_F(CurrentView, CountsACoveredRowThatIsNotYetCutOnlyThroughTheCheckpoint) {
  after({make_row(1, RowKind::set, "k", "", "v"), make_row(2, RowKind::del, "k")});
  log_->finish_checkpoint({{kOrigin, 2}});
  // The checkpoint has forgotten the key with its deletion. Only the first row is cut away below.
  run_sql(folder_.path(), "DELETE FROM log WHERE seq = 2");
  EXPECT_THAT(query_lines(folder_.path(), kAllSql), IsEmpty());
}

/// Makes rows on few keys and fields, so that they collide, with versions in no order.
class RandomRows {
 public:
  explicit RandomRows(unsigned seed) : random_(seed) {}

  OwnedRow next() {
    OwnedRow made;
    Row& row = made.row;
    row.kind = static_cast<RowKind>(pick(static_cast<int>(RowKind::lease) + 1));
    // Those of linked sites have tests of their own.
    if (is_count(row.kind) || row.kind == RowKind::htype) row.kind = RowKind::set;
    if (row.kind == RowKind::stype) row.kind = RowKind::srem;
    // Flushes and messages, whose effect is wide or none, less often than the rest.
    if (row.kind >= RowKind::flush && pick(4) != 0) row.kind = RowKind::hset;
    // Runs of one source share rows in PostgreSQL.
    if (pick(8) == 0) source_ = {pick(2), pick(2)};
    row.origin = kOrigin + source_.first;
    row.seq = ++seqs_[row.origin];
    do {
      row.version = floor_ + static_cast<Version>(pick(300)) + 1;
      // Who takes a member out names the adds of other sites, which a test of its own looks at.
      row.site = is_of_member(row.kind) ? kSite : kSite + source_.second;
    } while (!used_.insert({row.version, row.site}).second);
    highest_ = std::max(highest_, row.version);
    row.db = static_cast<std::uint8_t>(pick(2));
    if (row.kind != RowKind::flush && row.kind != RowKind::lease)
      made.key = std::string(1, static_cast<char>('a' + pick(5)));
    if (parts_have_field(row.kind)) made.field = std::string(static_cast<std::size_t>(pick(3)), 'f');
    if (row.kind != RowKind::del && row.kind != RowKind::hdel && !is_of_member(row.kind))
      made.value = std::string(static_cast<std::size_t>(pick(4)), 'v');
    const int deadline = pick(4);
    if ((row.kind == RowKind::set || row.kind == RowKind::expire) && deadline > 0) {
      row.expire_at = deadline == 1 ? kPast : kFuture + deadline;
    }
    return made;
  }

  /// From here on all versions are above those before, as a server that forgets deletions at its checkpoint
  /// has it.
  void raise_floor() { floor_ = highest_; }
  bool chance(int one_in) { return pick(one_in) == 0; }
  Vector vector() const { return {seqs_.begin(), seqs_.end()}; }

 private:
  static bool parts_have_field(RowKind kind) {
    return kind == RowKind::hset || kind == RowKind::hcreate || kind == RowKind::hdel || is_of_member(kind);
  }
  static bool is_of_member(RowKind kind) {
    return kind == RowKind::sadd || kind == RowKind::screate || kind == RowKind::srem;
  }
  int pick(int below) { return std::uniform_int_distribution<int>(0, below - 1)(random_); }

  std::mt19937 random_;
  std::pair<int, int> source_;
  std::map<OriginId, Seq> seqs_;
  std::set<std::pair<Version, SiteId>> used_;
  Version floor_ = 0, highest_ = 0;
};

Model::State state_of_load(const Place& place) {
  Model model;
  place.load_into(model);
  return model.visible(now_ms());
}

/// Writes the checkpoint of `model` in chunks that split keys from their fields, and cuts some of the log.
void write_checkpoint(Log& log, const Model& model, RandomRows& rows) {
  const CheckpointChunk all = model.checkpoint();
  // Some of the rows take the lease.
  if (SharedLog* shared = log.shared()) shared->guard_checkpoint(shared->newest_lease().lease);
  log.write_checkpoint({all.keys, {}});
  log.write_checkpoint({{}, all.fields});
  if (rows.chance(3)) return;  // as if the server died before the end
  log.finish_checkpoint(rows.vector());
  if (rows.chance(2)) log.cut();
}

class RandomHistory : public ::testing::TestWithParam<std::tuple<const char*, unsigned>> {};

TEST_P(RandomHistory, IsTheSameInTheViewTheLoadAndTheModel) {
  const std::unique_ptr<Place> place = make_place(std::get<0>(GetParam()));
  std::unique_ptr<Log> log = place->open();
  RandomRows random(std::get<1>(GetParam()));
  Model model;
  // With that the log knows that all servers can read rows that share one.
  if (SharedLog* shared = log->shared(); shared && std::get<1>(GetParam()) % 2 == 0)
    shared->upkeep({1, "here:1", "0.3", 0, true}, 0);
  for (int round = 0; round < 12; ++round) {
    RowBatch batch;
    for (int i = 0; i < 20; ++i) {
      const OwnedRow made = random.next();
      batch.append(made.view());
      model.row(made.view());
    }
    log->append(batch);
    ASSERT_EQ(place->current(), model.visible(now_ms())) << "round " << round;
    if (!log->shared()) log.reset();
    ASSERT_EQ(state_of_load(*place), model.visible(now_ms())) << "round " << round;
    if (!log) log = place->open();
    if (!random.chance(3)) continue;
    write_checkpoint(*log, model, random);
    random.raise_floor();
    ASSERT_EQ(place->current(), model.visible(now_ms())) << "after a checkpoint in round " << round;
    if (!log->shared()) log.reset();
    ASSERT_EQ(state_of_load(*place), model.visible(now_ms())) << "after a checkpoint in round " << round;
    if (!log) log = place->open();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, RandomHistory,
                         ::testing::Combine(::testing::ValuesIn(kPlaces), ::testing::Range(1U, 26U)),
                         [](const auto& seed) {
                           return std::string(std::get<0>(seed.param)) +
                                  std::to_string(std::get<1>(seed.param));
                         });

}  // namespace
}  // namespace isthmus::backend::test
