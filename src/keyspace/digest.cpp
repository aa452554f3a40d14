#include "src/keyspace/digest.hpp"

#include <array>
#include <cstdio>

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace isthmus {
namespace {

using Words = std::array<std::uint64_t, 3>;

void append_sized(std::string& out, std::string_view part) {
  out.append(std::to_string(part.size())).append(":").append(part);
}

// The seeds only have to differ from each other, and to be the same in every process.
void mix(Words& words, std::string_view text) {
  for (std::size_t i = 0; i < words.size(); ++i)
    words[i] ^= XXH3_64bits_withSeed(text.data(), text.size(), i + 1);
}

void mix_key(Words& words, std::size_t db, const Node& node) {
  std::string text = std::to_string(db) + (node.is_hash() ? "h" : node.is_set() ? "m" : "s");
  append_sized(text, node.name());
  text.append(std::to_string(node.deadline())).append(" ");
  if (node.has_fields()) {
    Words fields{};
    hash_for_each(node, false, [&](const FieldView& field) {
      std::string pair;
      append_sized(pair, field.name);
      if (node.is_hash()) append_sized(pair, field.value);
      mix(fields, pair);
    });
    for (const std::uint64_t word : fields) text.append(std::to_string(word)).append(" ");
  } else {
    append_sized(text, node.value());
  }
  mix(words, text);
}

}  // namespace

std::string digest(const Keyspace& keyspace, std::int64_t now_ms) {
  Words words{};
  for (const Shard& shard : keyspace.shards()) {
    for (std::size_t db = 0; db < kDatabaseCount; ++db) {
      shard.tables[db].for_each([&](const Node& node) {
        if (holds_value(node) && node.deadline() > now_ms) mix_key(words, db, node);
      });
    }
  }
  char text[41];
  std::snprintf(text, sizeof text, "%016jx%016jx%08jx", static_cast<std::uintmax_t>(words[0]),
                static_cast<std::uintmax_t>(words[1]), static_cast<std::uintmax_t>(words[2] & 0xffffffff));
  return text;
}

}  // namespace isthmus
