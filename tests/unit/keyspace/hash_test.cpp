// Hashes, packed and as tables, beside a plain map that does the same.
#include "src/keyspace/hash.hpp"

#include <cstring>
#include <map>
#include <random>

#include <gtest/gtest.h>

namespace isthmus {
namespace {

class HashTest : public testing::TestWithParam<HashLimits> {
 protected:
  HashTest() {
    const std::string head = PackedHash::empty(1000);
    key = make_node(heap, "key", head, NodeType::packed_hash, 1000, 0);
  }
  ~HashTest() override {
    hash_release(heap, key);
    free_node(heap, key);
    EXPECT_EQ(heap.bytes(), 0u);
  }
  std::map<std::string, std::string> content() const {
    std::map<std::string, std::string> fields;
    hash_for_each(*key, false,
                  [&](const FieldView& field) { fields[std::string(field.name)] = field.value; });
    return fields;
  }

  Heap heap;
  Node* key;
};

TEST_P(HashTest, DoesWhatAMapDoes) {
  std::mt19937 random(1);
  std::map<std::string, std::string> model;
  for (Version version = 1; version < 3000; ++version) {
    const std::string name = "f" + std::to_string(random() % 40);
    const std::string value(random() % 90, static_cast<char>('a' + random() % 26));
    // Versions below and far above the hash's base, and other sites, are stored as they are.
    const FieldView field{name, value, version % 3 == 0 ? version << 40 : version,
                          static_cast<SiteIndex>(version % 3), false};
    switch (random() % 5) {
      case 0:
        key = hash_erase(heap, key, name);
        model.erase(name);
        break;
      case 1: {
        FieldView tombstone = field;
        tombstone.value = {};
        tombstone.deleted = true;
        key = hash_write(heap, key, tombstone, GetParam());
        model.erase(name);
        ASSERT_TRUE(hash_find_any(*key, name)->deleted);
        break;
      }
      default:
        key = hash_write(heap, key, field, GetParam());
        model[name] = value;
        ASSERT_EQ(hash_find_any(*key, name)->version, field.version);
        ASSERT_EQ(hash_find_any(*key, name)->site, field.site);
    }
    ASSERT_EQ(hash_size(*key), model.size());
    ASSERT_EQ(key->name(), "key");
  }
  EXPECT_EQ(content(), model);
}

TEST_P(HashTest, ScanAndRandomSeeEveryLiveField) {
  for (int i = 0; i < 50; ++i) {
    const std::string name = std::to_string(i);
    key = hash_write(heap, key, {name, "v", 1000, 0, i % 5 == 0}, GetParam());
  }
  std::map<std::string, int> scanned, drawn;
  std::uint64_t cursor = 0;
  do {
    cursor = hash_scan(*key, cursor, [&](const FieldView& field) { ++scanned[std::string(field.name)]; });
  } while (cursor != 0);
  std::mt19937_64 random(3);
  for (int i = 0; i < 3000; ++i) ++drawn[std::string(hash_random(*key, [&] { return random(); }).name)];
  EXPECT_EQ(scanned.size(), 40u);
  EXPECT_EQ(drawn.size(), 40u);
}

INSTANTIATE_TEST_SUITE_P(Encodings, HashTest,
                         testing::Values(HashLimits{512, 1000}, HashLimits{512, 64}, HashLimits{8, 64},
                                         HashLimits{0, 0}));

TEST(Hash, PackedFieldsKeepTheOrderOfTheirInsertion) {
  Heap heap;
  Node* key = make_node(heap, "k", PackedHash::empty(0), NodeType::packed_hash, 0, 0);
  for (const char* name : {"z", "a", "m"}) key = hash_write(heap, key, {name, "1", 5, 0, false}, {});
  key = hash_write(heap, key, {"a", "longer than before", 6, 0, false}, {});
  std::string order;
  hash_for_each(*key, false, [&](const FieldView& field) { order += field.name; });
  EXPECT_EQ(order, "zam");
  free_node(heap, key);
}

}  // namespace
}  // namespace isthmus
