#include "src/keyspace/hash.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

namespace isthmus {
namespace {

FieldTable* table_of(const Node& key) {
  FieldTable* table;
  std::memcpy(&table, key.value_data(), sizeof table);
  return table;
}

FieldView view_of(const Node& node) {
  return {node.name(), node.value(), node.version, node.site, static_cast<bool>(node.field_deleted)};
}

void table_write(Heap& heap, FieldTable& table, const FieldView& field) {
  Node** link = table.fields.find(hash_name(field.name), field.name);
  if (*link == nullptr) {
    Node* node = make_node(heap, field.name, field.value, NodeType::string, field.version, field.site);
    node->field_deleted = field.deleted;
    table.fields.insert(link, node);
  } else {
    if (!(*link)->field_deleted) --table.live;
    *link = resize_value(heap, *link, field.value.size());
    Node* node = *link;
    if (!field.value.empty()) std::memcpy(node->value_data(), field.value.data(), field.value.size());
    node->version = field.version;
    node->site = field.site;
    node->field_deleted = field.deleted;
  }
  if (!field.deleted) ++table.live;
}

Node* to_table(Heap& heap, Node* key) {
  auto* table = new FieldTable;
  heap.add(sizeof(FieldTable));
  FieldView field;
  std::size_t offset = PackedHash::kHeadSize;
  while (PackedHash::next(key->value(), offset, field)) table_write(heap, *table, field);
  key = resize_value(heap, key, sizeof table);
  std::memcpy(key->value_data(), &table, sizeof table);
  key->type = key->is_set() ? NodeType::table_set : NodeType::table_hash;
  return key;
}

// Replaces the bytes [begin, end) of the packed hash by `with`, in place.
Node* splice(Heap& heap, Node* key, std::size_t begin, std::size_t end, std::string_view with) {
  const std::size_t old_size = key->value_size;
  const std::size_t new_size = old_size - (end - begin) + with.size();
  const std::size_t tail = old_size - end;
  if (new_size < old_size) {
    char* bytes = key->value_data();
    std::copy(with.begin(), with.end(), bytes + begin);
    std::memmove(bytes + begin + with.size(), bytes + end, tail);
    return resize_value(heap, key, new_size);
  }
  key = resize_value(heap, key, new_size, old_size > 256);
  char* bytes = key->value_data();
  std::memmove(bytes + begin + with.size(), bytes + end, tail);
  std::copy(with.begin(), with.end(), bytes + begin);
  return key;
}

Node* packed_write(Heap& heap, Node* key, const FieldView& field, const PackedHash::Place& place) {
  const int live_change = (field.deleted ? 0 : 1) - (place.found() && !place.field.deleted ? 1 : 0);
  const int total_change = place.found() ? 0 : 1;
  const auto live = static_cast<std::uint16_t>(PackedHash::live(key->value()) + live_change);
  const auto total = static_cast<std::uint16_t>(PackedHash::total(key->value()) + total_change);
  thread_local std::string encoded;
  encoded.clear();
  PackedHash::encode(encoded, PackedHash::base(key->value()), field);
  key = splice(heap, key, place.begin, place.end, encoded);
  PackedHash::set_counts(key->value_data(), live, total);
  return key;
}

}  // namespace

std::uint32_t hash_size(const Node& key) {
  return key.is_packed() ? PackedHash::live(key.value()) : table_of(key)->live;
}

std::uint32_t hash_tombstones(const Node& key) {
  if (key.is_packed()) return std::uint32_t{PackedHash::total(key.value())} - PackedHash::live(key.value());
  return table_of(key)->fields.size() - table_of(key)->live;
}

std::optional<FieldView> hash_find_any(const Node& key, std::string_view name) {
  if (key.is_packed()) {
    const PackedHash::Place place = PackedHash::find(key.value(), name);
    return place.found() ? std::optional(place.field) : std::nullopt;
  }
  const Table& fields = table_of(key)->fields;
  const Node* node = fields.find(hash_name(name), name);
  return node == nullptr ? std::nullopt : std::optional(view_of(*node));
}

std::optional<FieldView> hash_find(const Node& key, std::string_view name) {
  std::optional<FieldView> field = hash_find_any(key, name);
  if (field && field->deleted) field.reset();
  return field;
}

void hash_for_each(const Node& key, bool with_deleted, const std::function<void(const FieldView&)>& visit) {
  if (key.is_packed()) {
    FieldView field;
    std::size_t offset = PackedHash::kHeadSize;
    while (PackedHash::next(key.value(), offset, field)) {
      if (with_deleted || !field.deleted) visit(field);
    }
    return;
  }
  table_of(key)->fields.for_each([&](const Node& node) {
    if (with_deleted || !node.field_deleted) visit(view_of(node));
  });
}

std::uint64_t hash_scan(const Node& key, std::uint64_t cursor,
                        const std::function<void(const FieldView&)>& visit) {
  if (key.is_packed()) {
    hash_for_each(key, false, visit);
    return 0;
  }
  return table_of(key)->fields.scan(cursor, [&](const Node& node) {
    if (!node.field_deleted) visit(view_of(node));
  });
}

FieldView hash_random(const Node& key, const std::function<std::uint64_t()>& random) {
  if (key.is_table()) {
    const FieldTable& table = *table_of(key);
    for (;;) {
      const Node* node = table.fields.random_node(random);
      if (!node->field_deleted) return view_of(*node);
    }
  }
  std::uint64_t skip = random() % PackedHash::live(key.value());
  FieldView field;
  std::size_t offset = PackedHash::kHeadSize;
  while (PackedHash::next(key.value(), offset, field)) {
    if (!field.deleted && skip-- == 0) break;
  }
  return field;
}

std::size_t hash_bytes(const Node& key, std::size_t samples) {
  if (!key.is_table()) return 0;
  const FieldTable& table = *table_of(key);
  std::size_t seen = 0, bytes = 0;
  std::uint64_t cursor = 0;
  do {
    cursor = table.fields.scan(cursor, [&](const Node& node) {
      bytes += allocated_bytes(&node);
      ++seen;
    });
  } while (cursor != 0 && (samples == 0 || seen < samples));
  const std::size_t all = seen == 0 ? 0 : bytes * table.fields.size() / seen;
  return sizeof(FieldTable) + table.fields.bucket_bytes() + all;
}

Node* hash_write(Heap& heap, Node* key, const FieldView& field, const HashLimits& limits) {
  if (key->is_packed()) {
    const PackedHash::Place place = PackedHash::find(key->value(), field.name);
    const bool fits = field.name.size() <= limits.max_packed_bytes &&
                      field.value.size() <= limits.max_packed_bytes &&
                      (place.found() || PackedHash::total(key->value()) < limits.max_packed_fields);
    if (fits) return packed_write(heap, key, field, place);
    key = to_table(heap, key);
  }
  table_write(heap, *table_of(*key), field);
  return key;
}

Node* hash_unpack(Heap& heap, Node* key) { return key->is_packed() ? to_table(heap, key) : key; }

Node* hash_erase(Heap& heap, Node* key, std::string_view name) {
  if (key->is_packed()) {
    const PackedHash::Place place = PackedHash::find(key->value(), name);
    if (!place.found()) return key;
    const auto live =
        static_cast<std::uint16_t>(PackedHash::live(key->value()) - (place.field.deleted ? 0 : 1));
    const auto total = static_cast<std::uint16_t>(PackedHash::total(key->value()) - 1);
    key = splice(heap, key, place.begin, place.end, {});
    PackedHash::set_counts(key->value_data(), live, total);
    return key;
  }
  FieldTable& table = *table_of(*key);
  Node** link = table.fields.find(hash_name(name), name);
  if (*link == nullptr) return key;
  Node* node = table.fields.unlink(link);
  if (!node->field_deleted) --table.live;
  free_node(heap, node);
  return key;
}

Node* hash_erase_if(Heap& heap, Node* key, const std::function<bool(const FieldView&)>& dead) {
  std::vector<std::string> names;
  hash_for_each(*key, true, [&](const FieldView& field) {
    if (dead(field)) names.emplace_back(field.name);
  });
  for (const std::string& name : names) key = hash_erase(heap, key, name);
  return key;
}

void hash_release(Heap& heap, Node* key) {
  if (!key->is_table()) return;
  FieldTable* table = table_of(*key);
  table->fields.drain([&](Node* node) { free_node(heap, node); });
  delete table;
  heap.subtract(sizeof(FieldTable));
}

}  // namespace isthmus
