// The checkpoint in SQL, of every kind: what is written comes back, the newer stays, and what is forgotten is
// gone.
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/backend/place.hpp"
#include "tests/backend/support.hpp"

namespace isthmus::backend::test {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAre;

StoredKey string_key(const std::string& name, const std::string& value, Version version,
                     std::uint8_t db = 0) {
  StoredKey key;
  key.db = db;
  key.key = name;
  key.type = StoredType::string;
  key.value = value;
  key.version = key.cut_version = key.expire_version = version;
  key.site = key.cut_site = key.expire_site = kSite;
  return key;
}

StoredKey deleted_key(const std::string& name, Version version) {
  StoredKey key = string_key(name, "", version);
  key.type = StoredType::none;
  return key;
}

StoredField hash_field(const std::string& key, const std::string& field, const std::string& value,
                       Version version) {
  return {0, key, field, value, version, kSite, "", false, false};
}

/// The keys as "db key type value version cut expire", for short comparisons.
std::vector<std::string> brief_keys(const Recorder& recorder) {
  std::vector<std::string> lines;
  for (const StoredKey& key : recorder.keys) {
    const char* const types[] = {"none", "string", "hash"};
    std::string line =
        std::to_string(key.db) + " " + key.key + " " + types[static_cast<int>(key.type)] + " " + key.value;
    line += " " + std::to_string(key.version) + " " + std::to_string(key.cut_version) + " ";
    lines.push_back(line + (key.expire_at ? std::to_string(*key.expire_at) : "-") + "@" +
                    std::to_string(key.expire_version));
  }
  return lines;
}

/// The fields as "key field value version".
std::vector<std::string> brief_fields(const Recorder& recorder) {
  std::vector<std::string> lines;
  for (const StoredField& field : recorder.fields) {
    lines.push_back(field.key + " " + field.field + " " + (field.deleted ? "(deleted)" : field.value) + " " +
                    std::to_string(field.version));
  }
  return lines;
}

class Checkpoint : public ::testing::TestWithParam<const char*> {
 protected:
  void write(const CheckpointChunk& chunk) { place_->open()->write_checkpoint(chunk); }
  Recorder stored() const { return place_->load(); }

  std::unique_ptr<Place> place_ = make_place(GetParam());
};

INSTANTIATE_TEST_SUITE_P(Places, Checkpoint, ::testing::ValuesIn(kPlaces),
                         [](const auto& place) { return std::string(place.param); });

TEST_P(Checkpoint, GivesUpADeadlineThatHasBeenForgotten) {
  StoredKey key = string_key("k", "v", 5);
  key.expire_at = 1'000'000;
  key.expire_version = 7;
  write({{key}, {}});
  // PERSIST, and then the register was forgotten, since nobody can miss it.
  key.expire_at.reset();
  key.expire_version = key.expire_site = 0;
  write({{key}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k string v 5 5 -@0"));
}

TEST_P(Checkpoint, GivesBackEveryColumn) {
  StoredKey key = string_key(std::string("k\0\xff", 3), std::string("v\0\xfe", 3), 5, 15);
  key.version = 6;
  key.site = 8;
  key.cut_site = 9;
  key.expire_at = -1;
  key.expire_version = (std::uint64_t{1} << 63U) - 1;
  key.expire_site = 10;
  StoredField field = hash_field("", "", "", 3);
  StoredField gone = hash_field("", std::string("\0", 1), "x", 4);
  gone.deleted = true;
  write({{key, hash_key("", 4)}, {field, gone}});
  const Recorder got = stored();
  ASSERT_EQ(got.keys.size(), 2U);
  EXPECT_EQ(got.keys[0].type, StoredType::hash);
  EXPECT_EQ(got.keys[0].key, "");
  EXPECT_FALSE(got.keys[0].expire_at);
  const StoredKey& back = got.keys[1];
  EXPECT_EQ(back.db, 15);
  EXPECT_EQ(back.key, key.key);
  EXPECT_EQ(back.type, StoredType::string);
  EXPECT_EQ(back.value, key.value);
  EXPECT_EQ(back.version, 6U);
  EXPECT_EQ(back.site, 8);
  EXPECT_EQ(back.cut_version, 5U);
  EXPECT_EQ(back.cut_site, 9);
  EXPECT_EQ(back.expire_at, -1);
  EXPECT_EQ(back.expire_version, key.expire_version);
  EXPECT_EQ(back.expire_site, 10);
  ASSERT_EQ(got.fields.size(), 2U);
  EXPECT_EQ(got.fields[0].field, "");
  EXPECT_EQ(got.fields[0].value, "");
  EXPECT_FALSE(got.fields[0].deleted);
  EXPECT_EQ(got.fields[1].field, std::string("\0", 1));
  EXPECT_TRUE(got.fields[1].deleted);
  EXPECT_EQ(got.fields[1].version, 4U);
  EXPECT_EQ(got.fields[1].site, kSite);
}

TEST_P(Checkpoint, LoadsAKeyBeforeItsFields) {
  write({{hash_key("b", 1), hash_key("a", 1), string_key("ab", "v", 1)},
         {hash_field("b", "g", "1", 1), hash_field("a", "f", "2", 1), hash_field("b", "f", "3", 1)}});
  struct Order : LoadSink {
    void key(const StoredKey& key) override { seen.push_back(key.key); }
    void field(const StoredField& field) override {
      EXPECT_THAT(seen, ::testing::Contains(field.key));
      seen.push_back(field.key + "." + field.field);
    }
    void row(const Row& /*row*/) override {}
    std::vector<std::string> seen;
  } order;
  place_->load_into(order);
  EXPECT_THAT(order.seen, UnorderedElementsAre("a", "a.f", "ab", "b", "b.f", "b.g"));
}

TEST_P(Checkpoint, GivesFieldsWithoutAKeyOne) {
  write({{string_key("m", "v", 1)}, {hash_field("a", "f", "1", 1), hash_field("z", "f", "2", 1)}});
  EXPECT_THAT(brief_keys(stored()),
              ElementsAre("0 a hash  0 0 -@0", "0 m string v 1 1 -@1", "0 z hash  0 0 -@0"));
  EXPECT_THAT(brief_fields(stored()), ElementsAre("a f 1 1", "z f 2 1"));
}

TEST_P(Checkpoint, KeepsTheNewerValue) {
  write({{string_key("k", "new", 5)}, {}});
  write({{string_key("k", "old", 4)}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k string new 5 5 -@5"));
  write({{string_key("k", "newest", 6)}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k string newest 6 6 -@6"));
}

TEST_P(Checkpoint, LetsTheHigherSiteWinATie) {
  StoredKey high = string_key("k", "high", 5);
  high.site = kSite + 1;
  write({{high}, {}});
  write({{string_key("k", "low", 5)}, {}});
  EXPECT_EQ(stored().keys.at(0).value, "high");
}

TEST_P(Checkpoint, TakesTheSameVersionAgain) {
  write({{string_key("k", "v", 5)}, {}});
  StoredKey again = string_key("k", "v", 5);
  again.expire_version = 7;
  again.expire_at = 70;
  write({{again}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k string v 5 5 70@7"));
}

TEST_P(Checkpoint, MergesEachRegisterOnItsOwn) {
  StoredKey first = string_key("k", "new", 9);
  first.cut_version = 1;
  first.expire_version = 2;
  first.expire_at = 20;
  StoredKey second = string_key("k", "old", 4);
  second.cut_version = 3;
  second.expire_version = 8;
  second.expire_at = 80;
  write({{first}, {}});
  write({{second}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k string new 9 3 80@8"));
}

TEST_P(Checkpoint, LetsADeletionReplaceAnOlderString) {
  write({{string_key("k", "v", 5)}, {}});
  StoredKey gone = deleted_key("k", 6);
  gone.version = 0;
  gone.site = 0;
  write({{gone}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k none  0 6 -@6"));
}

TEST_P(Checkpoint, HidesAStringThatIsOlderThanTheDeletion) {
  write({{deleted_key("k", 6)}, {}});
  StoredKey late = string_key("k", "late", 7);
  late.version = 5;
  write({{late}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k none  5 7 -@7"));
  StoredKey other = string_key("o", "late", 7);
  other.version = 5;
  write({{other}, {}});
  EXPECT_EQ(stored().keys.at(1).type, StoredType::none);
}

TEST_P(Checkpoint, KeepsTheNewerField) {
  write({{hash_key("k", 5)}, {hash_field("k", "f", "new", 5), hash_field("k", "g", "1", 3)}});
  write({{}, {hash_field("k", "f", "old", 4), hash_field("k", "g", "2", 4)}});
  EXPECT_THAT(brief_fields(stored()), ElementsAre("k f new 5", "k g 2 4"));
}

TEST_P(Checkpoint, HidesFieldsThatADeletionOrAStringSuperseded) {
  StoredKey cut = hash_key("cut", 8);
  cut.cut_version = 6;
  cut.cut_site = kSite;
  StoredKey turned = string_key("turned", "v", 6);
  turned.cut_version = 0;
  write({{cut, turned},
         {hash_field("cut", "old", "1", 5), hash_field("cut", "new", "2", 7),
          hash_field("turned", "f", "3", 5)}});
  EXPECT_THAT(brief_fields(stored()), ElementsAre("cut new 2 7"));
}

TEST_P(Checkpoint, ForgetsAKeyWithItsFields) {
  write(
      {{hash_key("k", 5), hash_key("kk", 5)}, {hash_field("k", "f", "1", 5), hash_field("kk", "f", "2", 5)}});
  StoredKey forget;
  forget.key = "k";
  forget.forget = true;
  write({{forget}, {}});
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 kk hash  5 0 -@0"));
  EXPECT_THAT(brief_fields(stored()), ElementsAre("kk f 2 5"));
}

TEST_P(Checkpoint, ForgetsAField) {
  write({{hash_key("k", 5)}, {hash_field("k", "f", "1", 5), hash_field("k", "ff", "2", 5)}});
  StoredField forget = hash_field("k", "f", "", 0);
  forget.forget = true;
  write({{}, {forget}});
  EXPECT_THAT(brief_fields(stored()), ElementsAre("k ff 2 5"));
}

TEST_P(Checkpoint, ReplacesTheFieldsOfAKey) {
  write({{hash_key("k", 5), hash_key("o", 5)}, {hash_field("k", "f", "1", 5), hash_field("o", "f", "1", 5)}});
  StoredKey replaced = hash_key("k", 6);
  replaced.replace_fields = true;
  write({{replaced}, {hash_field("k", "g", "2", 4)}});
  EXPECT_THAT(brief_fields(stored()), ElementsAre("k g 2 4", "o f 1 5"));
}

TEST_P(Checkpoint, WritesTheSameInSteps) {
  write({{hash_key("k", 5), hash_key("o", 5), hash_key("gone", 5)},
         {hash_field("k", "f", "1", 5), hash_field("o", "f", "1", 5), hash_field("gone", "f", "1", 5)}});
  StoredKey replaced = hash_key("k", 6), forget;
  replaced.replace_fields = true;
  forget.key = "gone";
  forget.forget = true;
  const CheckpointChunk chunk{{replaced, forget}, {hash_field("k", "g", "2", 6)}};
  {
    const auto log = place_->open();
    while (log->write_checkpoint_step(chunk)) {
    }
  }
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 k hash  6 0 -@0", "0 o hash  5 0 -@0"));
  EXPECT_THAT(brief_fields(stored()), ElementsAre("k g 2 6", "o f 1 5"));
}

TEST_P(Checkpoint, TakesNamesOfAnyLength) {
  // An index of PostgreSQL takes 2,704 bytes.
  const std::string longest(300'000, 'k'), other = longest.substr(1) + "x", short_one(1024, 'k');
  CheckpointChunk chunk;
  for (const std::string& name : {longest, other, short_one}) {
    chunk.keys.push_back(hash_key(name, 5));
    for (const std::string& field : {longest, other, short_one}) {
      chunk.fields.push_back(hash_field(name, field, "v", 5));
    }
  }
  write(chunk);
  write(chunk);
  EXPECT_EQ(stored().keys.size(), 3U);
  EXPECT_EQ(stored().fields.size(), 9U);
  chunk.keys[0].forget = true;
  write(chunk);
  EXPECT_EQ(place_->count("entry"), 2);
}

TEST_P(Checkpoint, TakesAnEmptyChunk) {
  write({});
  EXPECT_THAT(stored().keys, IsEmpty());
}

TEST_P(Checkpoint, ForgetsWhatAFlushDeletes) {
  StoredKey expires_later = string_key("e", "v", 3);
  expires_later.expire_version = 9;
  write({{string_key("a", "v", 3), string_key("b", "v", 9), string_key("a", "v", 3, 1), expires_later,
          hash_key("h", 9), hash_key("old", 2), deleted_key("gone", 4)},
         {hash_field("h", "old", "1", 3), hash_field("h", "new", "2", 9), hash_field("old", "f", "3", 2)}});
  {
    const auto log = place_->open();
    while (log->forget_flushed(0, 5, kSite)) {
    }
  }
  EXPECT_THAT(brief_keys(stored()), ElementsAre("0 b string v 9 9 -@9", "0 e string v 3 3 -@9",
                                                "0 h hash  9 0 -@0", "1 a string v 3 3 -@3"));
  EXPECT_THAT(brief_fields(stored()), ElementsAre("h new 2 9"));
}

TEST_P(Checkpoint, ForgetsAFlushedDatabaseInPieces) {
  CheckpointChunk chunk;
  for (int i = 0; i < 5000; ++i) {
    // Every tenth key is newer than the flush and has to be passed by.
    chunk.keys.push_back(string_key("key" + std::to_string(i), "v", i % 10 == 0 ? 9 : 1));
    chunk.fields.push_back(hash_field("hash", std::to_string(i), "v", i % 10 == 0 ? 9 : 1));
  }
  write(chunk);
  const auto log = place_->open();
  int calls = 1;
  while (log->forget_flushed(0, 5, kSite)) ++calls;
  EXPECT_EQ(calls, 6) << "three for the fields and three for the keys";
  EXPECT_EQ(place_->count("entry"), 500);
  EXPECT_EQ(place_->count("field"), 500);
  while (log->forget_flushed(0, 10, kSite)) {
  }
  EXPECT_EQ(place_->count("entry"), 0) << "another flush starts anew";
  EXPECT_EQ(place_->count("field"), 0);
}

}  // namespace
}  // namespace isthmus::backend::test
