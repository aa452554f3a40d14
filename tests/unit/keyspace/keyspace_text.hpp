// The state of a keyspace as text, so that tests can compare states and print them.
#pragma once

#include <algorithm>
#include <map>
#include <string>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// What clients would see of a database at `now_ms`: `key=value@deadline` and `key{field=value,…}@deadline`,
/// of a set `key{member,…}`,
/// sorted.
inline std::string text_of(Keyspace& keyspace, std::uint8_t db = 0, std::int64_t now_ms = 0) {
  std::map<std::string, std::string> keys;
  for (Shard& shard : keyspace.shards()) {
    shard.tables[db].for_each([&](const Node& node) {
      if (!holds_value(node) || node.deadline() <= now_ms) return;
      std::string text;
      if (node.type == NodeType::string) {
        text = "=" + std::string(node.value());
      } else {
        std::map<std::string, std::string> fields;
        hash_for_each(node, false,
                      [&](const FieldView& field) { fields[std::string(field.name)] = field.value; });
        for (const auto& [name, value] : fields)
          text += (text.empty() ? "{" : ",") + name + (node.is_set() ? "" : "=" + value);
        text += "}";
      }
      if (node.deadline() != kNoDeadline) text += "@" + std::to_string(node.deadline());
      keys[std::string(node.name())] = text;
    });
  }
  std::string all;
  for (const auto& [key, text] : keys) all += (all.empty() ? "" : " ") + key + text;
  return all;
}

/// Folds a row of the site with that number (0 is the own site).
inline FoldResult fold_row(Keyspace& keyspace, const backend::Row& row) {
  return keyspace.fold(row, hash_name(row.key), keyspace.site_index(row.site));
}

}  // namespace isthmus
