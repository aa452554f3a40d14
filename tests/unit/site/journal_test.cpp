// What waits for a commit, and what goes on while the log takes none.
#include "src/site/journal.hpp"

#include <chrono>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/site/refusing_log.hpp"

namespace isthmus {
namespace {

using std::chrono::milliseconds;
using testing::ElementsAre;

class JournalTest : public testing::Test {
 protected:
  void append_flush() {
    backend::Row row;
    row.kind = backend::RowKind::flush;
    Journal::Group(journal_).add(row, 1000, 0);
  }
  void after_commit(std::function<void()> deliver, Journal::Deferral what = Journal::Deferral::message) {
    Journal::Group(journal_).after_commit(std::move(deliver), what);
  }
  // The committing thread tries what has gathered, for so long, and ends. True if all is in the log.
  bool commit(milliseconds patience) {
    Journal::Hooks hooks;
    hooks.after_commit = [] {};
    journal_.start(nullptr, nullptr, std::move(hooks));
    return journal_.stop(patience);
  }

  RefusingLog log_;
  HybridClock clock_;
  Journal journal_{log_, clock_};
  std::vector<std::string> delivered_;
};

TEST_F(JournalTest, DeliversMessagesAndNoEffectsWhenTheLogRefusesTheirCommit) {
  append_flush();
  after_commit([this] { delivered_.push_back("first"); });
  after_commit([this] { delivered_.push_back("effect"); }, Journal::Deferral::effect);
  after_commit([this] { delivered_.push_back("second"); });
  EXPECT_FALSE(commit(milliseconds{0}));
  EXPECT_FALSE(journal_.available());
  EXPECT_THAT(delivered_, ElementsAre("first", "second"));
}

// Who finds the log unavailable delivers at once.
TEST_F(JournalTest, IsAvailableUntilTheMessagesThatWaitAreOut) {
  append_flush();
  std::vector<bool> available;
  for (int i = 0; i < 3; ++i) after_commit([&] { available.push_back(journal_.available()); });
  EXPECT_FALSE(commit(milliseconds{0}));
  EXPECT_THAT(available, ElementsAre(true, true, true));
  EXPECT_FALSE(journal_.available());
}

TEST_F(JournalTest, LetsNoMessageOvertakeThoseThatWaitWhenTheLogBeginsToRefuse) {
  append_flush();
  std::promise<void> looked;
  std::thread publisher;
  const auto publish = [&] {
    const bool available = journal_.available();
    if (!available) delivered_.push_back("late");
    looked.set_value();
    if (available) after_commit([this] { delivered_.push_back("late"); });
  };
  after_commit([&] {
    publisher = std::thread(publish);
    looked.get_future().wait();
    delivered_.push_back("first");
  });
  after_commit([this] { delivered_.push_back("second"); });
  EXPECT_FALSE(commit(milliseconds{0}));
  ASSERT_TRUE(publisher.joinable());
  publisher.join();
  EXPECT_THAT(delivered_, ElementsAre("first", "second", "late"));
}

// Else a million of them would be no backlog at all.
TEST_F(JournalTest, CountsARowWithoutBytesInItsBacklog) {
  append_flush();
  const std::size_t one = journal_.backlog_bytes();
  EXPECT_GT(one, 0u);
  append_flush();
  EXPECT_EQ(journal_.backlog_bytes(), 2 * one);
  log_.refuses = false;
  EXPECT_TRUE(commit(milliseconds{10'000}));
  EXPECT_EQ(journal_.backlog_bytes(), 0u);
}

TEST(RowBatch, HoldsMoreThanTheBytesOfItsRows) {
  backend::RowBatch batch;
  backend::Row row;
  row.kind = backend::RowKind::flush;
  batch.append(row);
  EXPECT_EQ(batch.bytes(), 0u);
  const std::size_t each = batch.held_bytes();
  EXPECT_GT(each, 0u);
  row.kind = backend::RowKind::set;
  row.key = "key";
  row.value = "value";
  batch.append(row);
  EXPECT_EQ(batch.held_bytes(), 2 * each + batch.bytes());
  batch.clear();
  EXPECT_EQ(batch.held_bytes(), 0u);
}

}  // namespace
}  // namespace isthmus
