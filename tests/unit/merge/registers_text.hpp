// All registers of a keyspace as text, so that tests can compare what two of them remember.
#pragma once

#include <set>
#include <string>

#include "src/keyspace/difference.hpp"
#include "tests/unit/keyspace/keyspace_text.hpp"

namespace isthmus {

inline std::string text_of(const backend::Row& row) {
  std::string text = std::to_string(row.db) + " " + std::string(row.key) + " " +
                     std::string(backend::row_kind_name(row.kind)) + " " + std::to_string(row.version) + "." +
                     std::to_string(row.site);
  if (!row.field.empty()) text += " field=" + std::string(row.field);
  if (!row.value.empty()) text += " value=" + std::string(row.value);
  if (row.expire_at) text += " at=" + std::to_string(*row.expire_at);
  if (row.kind == backend::RowKind::srem)
    text +=
        " takes back " + std::to_string(row.count.base_version) + "." + std::to_string(row.count.base_site);
  if (!backend::is_count(row.kind)) return text;
  return text + " base=" + std::to_string(row.count.base_version) + "." +
         std::to_string(row.count.base_site) + " " + std::to_string(row.count.counter) + " adds " +
         std::to_string(row.count.total);
}

inline void for_each_copied_row(Keyspace& keyspace, const std::function<void(const backend::Row&)>& visit) {
  copy_flushes(keyspace, visit);
  for (Shard& shard : keyspace.shards()) {
    for (std::uint8_t db = 0; db < kDatabaseCount; ++db) {
      shard.tables[db].for_each([&](const Node& node) { copy_rows(keyspace, {db, node.name()}, visit); });
    }
  }
}

/// One line for each register, sorted.
inline std::string registers_of(Keyspace& keyspace) {
  std::multiset<std::string> lines;
  for_each_copied_row(keyspace, [&](const backend::Row& row) { lines.insert(text_of(row)); });
  std::string all;
  for (const std::string& line : lines) all += line + "\n";
  return all;
}

}  // namespace isthmus
