// The table and its SCAN cursors.
#include "src/keyspace/table.hpp"

#include <map>
#include <random>
#include <string>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

class TableTest : public testing::Test {
 protected:
  ~TableTest() override {
    table.drain([this](Node* node) { free_node(heap, node); });
    EXPECT_EQ(heap.bytes(), 0u);
  }
  void add(const std::string& name) {
    Node** link = table.find(hash_name(name), name);
    ASSERT_EQ(*link, nullptr);
    table.insert(link, make_node(heap, name, "v", NodeType::string, 1, 0));
  }
  void remove(const std::string& name) { free_node(heap, table.unlink(table.find(hash_name(name), name))); }
  bool has(const std::string& name) { return *table.find(hash_name(name), name) != nullptr; }

  Heap heap;
  Table table;
};

TEST_F(TableTest, FindsWhatIsThereAndNothingElse) {
  for (int i = 0; i < 1000; ++i) add("n" + std::to_string(i));
  for (int i = 0; i < 1000; i += 2) remove("n" + std::to_string(i));
  EXPECT_EQ(table.size(), 500u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(has("n" + std::to_string(i)), i % 2 == 1) << i;
}

TEST_F(TableTest, ScanVisitsEachNodeOnceWhileNothingChanges) {
  for (int i = 0; i < 333; ++i) add("n" + std::to_string(i));
  std::map<std::string, int> seen;
  std::uint64_t cursor = 0;
  do {
    cursor = table.scan(cursor, [&](const Node& node) { ++seen[std::string(node.name())]; });
  } while (cursor != 0);
  EXPECT_EQ(seen.size(), 333u);
  for (const auto& [name, times] : seen) EXPECT_EQ(times, 1) << name;
}

// https://redis.io/docs/latest/commands/scan/: what is there from the beginning to the end is returned.
TEST_F(TableTest, ScanReturnsWhatStaysWhileTheTableGrowsAndShrinks) {
  for (std::uint32_t seed = 0; seed < 20; ++seed) {
    std::mt19937 random(seed);
    for (int i = 0; i < 100; ++i) add("stays" + std::to_string(i));
    std::map<std::string, int> seen;
    std::uint64_t cursor = 0;
    std::vector<std::string> others;
    do {
      cursor = table.scan(cursor, [&](const Node& node) { ++seen[std::string(node.name())]; });
      for (std::uint32_t n = random() % 200; n > 0; --n) {
        others.push_back("other" + std::to_string(random()));
        if (has(others.back())) {
          others.pop_back();
        } else {
          add(others.back());
        }
      }
      if (random() % 3 == 0) {
        for (const std::string& name : others) remove(name);
        others.clear();
      }
    } while (cursor != 0);
    for (int i = 0; i < 100; ++i) EXPECT_GE(seen["stays" + std::to_string(i)], 1) << i << " seed " << seed;
    table.drain([this](Node* node) { free_node(heap, node); });
  }
}

TEST_F(TableTest, ValuesGrowAndShrinkInPlaceOrNot) {
  add("n");
  for (const std::size_t size : {0, 1, 10, 100, 1000, 100'000, 50, 3}) {
    Node** link = table.find(hash_name("n"), "n");
    const std::string value(size, 'x');
    *link = resize_value(heap, *link, size);
    std::copy(value.begin(), value.end(), (*link)->value_data());
    EXPECT_EQ((*table.find(hash_name("n"), "n"))->value(), value);
    EXPECT_LE(allocated_bytes(*link), std::max<std::size_t>(128, 2 * (*link)->total_size() + 64)) << size;
  }
}

TEST_F(TableTest, RegistersComeAndGoWithoutTouchingNameAndValue) {
  add("name");
  Node** link = table.find(hash_name("name"), "name");
  Registers registers;
  registers.deadline = 77;
  registers.expire_version = 5;
  *link = write_registers(heap, *link, registers, true);
  EXPECT_EQ((*link)->deadline(), 77);
  EXPECT_EQ((*link)->name(), "name");
  EXPECT_EQ((*link)->value(), "v");
  *link = write_registers(heap, *link, {}, false);
  EXPECT_EQ((*link)->deadline(), kNoDeadline);
  EXPECT_EQ((*link)->name(), "name");
  EXPECT_EQ((*link)->value(), "v");
}

TEST_F(TableTest, RandomNodeReachesEveryNode) {
  for (int i = 0; i < 10; ++i) add(std::to_string(i));
  std::mt19937_64 random(1);
  std::map<std::string, int> seen;
  for (int i = 0; i < 2000; ++i) ++seen[std::string(table.random_node(random)->name())];
  EXPECT_EQ(seen.size(), 10u);
}

}  // namespace
}  // namespace isthmus
