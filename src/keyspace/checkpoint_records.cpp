// The keyspace as records of the checkpoint, and back.
#include <cstring>

#include "src/keyspace/fold.hpp"

namespace isthmus {

using backend::StoredField;
using backend::StoredKey;
using backend::StoredType;

StoredKey Keyspace::stored(const Key& key) {
  StoredKey out;
  out.db = key.db;
  out.key = key.name;
  const Node* node = find_any(key);
  if (node == nullptr) {
    out.forget = true;
    return out;
  }
  out.type = node->type == NodeType::string ? StoredType::string
             : node->is_hash()              ? StoredType::hash
             : node->is_set()               ? StoredType::set
                                            : StoredType::none;
  out.version = node->version;
  out.site = site_id(node->site);
  const Registers registers = node->registers();
  out.cut_version = registers.cut_version;
  out.cut_site = registers.cut_version == 0 ? 0 : site_id(registers.cut_site);
  if (registers.deadline != kNoDeadline) out.expire_at = registers.deadline;
  out.expire_version = registers.expire_version;
  out.expire_site = registers.expire_version == 0 ? 0 : site_id(registers.expire_site);
  if (node->type != NodeType::string) return out;
  out.value = node->value();
  if (const Counter* const known = counter(key)) {
    const Point stands = std::max(known->highest_base(), Point{out.version, out.site});
    out.version = stands.version;
    out.site = stands.site;
    out.value = known->base.value_or(std::string());
    out.totals = totals_text(*known);
  }
  return out;
}

StoredField Keyspace::stored(const Key& key, std::string_view field) {
  StoredField out;
  out.db = key.db;
  out.key = key.name;
  out.field = field;
  const Node* node = find_any(key);
  const std::optional<FieldView> view =
      node != nullptr && node->has_fields() ? hash_find_any(*node, field) : std::nullopt;
  if (!view) {
    out.forget = true;
    return out;
  }
  (node->is_set() ? out.totals : out.value) = view->value;
  out.version = view->version;
  out.site = site_id(view->site);
  out.deleted = view->deleted;
  if (const Counter* const known = counter(key, field)) {
    const Point stands = std::max(known->highest_base(), Point{out.version, out.site});
    out.version = stands.version;
    out.site = stands.site;
    out.value = known->base.value_or(std::string());
    out.totals = totals_text(*known);
  }
  return out;
}

namespace {

// A counter as its record says; none if it is none.
std::optional<Counter> counter_of(const std::string& totals, const std::string& value) {
  if (totals.empty()) return std::nullopt;
  Counter counter;
  counter.totals = parse_totals(totals);
  if (counter.totals.empty()) return std::nullopt;
  if (!value.empty()) counter.base = value;
  return counter;
}

}  // namespace

// The registers of a record besides its type. A flush changes no record: what it has ended still stands in
// that of a key which outlives it.
Registers Keyspace::registers_of(const StoredKey& key) {
  const Point flush = flushed(key.db);
  const auto lives = [&](Version version, backend::SiteId site) {
    return flush.version == 0 || Point{version, site} > flush;
  };
  Registers registers;
  if (lives(key.expire_version, key.expire_site)) {
    registers.deadline = key.expire_at.value_or(kNoDeadline);
    registers.expire_version = key.expire_version;
    if (key.expire_version != 0) registers.expire_site = site_index(key.expire_site);
  }
  if (lives(key.cut_version, key.cut_site)) {
    registers.cut_version = key.cut_version;
    if (key.cut_version != 0) registers.cut_site = site_index(key.cut_site);
  }
  return registers;
}

void Keyspace::restore(const StoredKey& key) {
  const Key k(key.db, key.key);
  Shard& s = shard(k);
  Table& table = s.tables[key.db];
  const NodeType type = key.type == StoredType::string ? NodeType::string
                        : key.type == StoredType::hash ? NodeType::packed_hash
                        : key.type == StoredType::set  ? NodeType::packed_set
                                                       : NodeType::none;
  const bool has_fields = type == NodeType::packed_hash || type == NodeType::packed_set;
  std::string value = has_fields ? PackedHash::empty(key.version) : key.value;
  Point stands{key.version, key.site};
  std::optional<Counter> known = counter_of(key.totals, key.value);
  if (known) {
    value = std::to_string(known->sum());
    if (!known->base) stands = known->highest_write();
    if (!known->base && stands <= flushed(key.db)) stands = {};
  }
  Node* node = make_node(s.heap, key.key, value, type, stands.version,
                         stands.version == 0 ? SiteIndex{0} : site_index(stands.site));
  if (known) {
    s.counters.make(key.db, key.key).value = std::move(known);
    node->counted = true;
  }
  const Registers registers = registers_of(key);
  const bool expires = registers.deadline != kNoDeadline;
  if (expires || registers.expire_version > stable() || registers.cut_version > stable())
    node = write_registers(s.heap, node, registers, true);
  table.insert(table.find(k.hash, k.name), node);
  if (type == NodeType::string) sizes_[key.db].fetch_add(1, std::memory_order_relaxed);
  if (type == NodeType::string && expires) {
    count_deadline(s, key.db, kNoDeadline, registers.deadline);
    add_deadline(s, {registers.deadline, k.hash, key.db});
  }
  // The fields are yet to come.
  if (has_fields) {
    if (node->has_registers || stable() != std::numeric_limits<Version>::max())
      await(s, k, node, highest_version(s, key.db, *node));
    return;
  }
  if (const FlushRegister flush = flushes_[key.db]; flush.version != 0) {
    // A value at or below it may be kept by a newer deadline.
    backend::Row row;
    row.kind = backend::RowKind::flush;
    row.db = key.db;
    row.key = key.key;
    row.version = flush.version;
    Fold(*this, s, row, k.hash, flush.site).run_flush();
    return;
  }
  Node** link = table.find(k.hash, k.name);
  if (const Version wait = forget_now(s, key.db, link, stable()); wait != 0) await(s, k, *link, wait);
}

void Keyspace::restore(const StoredField& field) {
  const Key k(field.db, field.key);
  Shard& s = shard(k);
  Node** link = s.tables[field.db].find(k.hash, k.name);
  if (*link == nullptr || !(*link)->has_fields()) return;
  const bool is_set = (*link)->is_set();
  const bool was_there = holds_value(**link);
  const Point flush = flushed(field.db);
  Point stands{field.version, field.site};
  bool deleted = field.deleted;
  std::string value = is_set ? field.totals : field.value;
  if (std::optional<Counter> known = is_set ? std::nullopt : counter_of(field.totals, field.value)) {
    value = std::to_string(known->sum());
    const Registers registers = (*link)->registers();
    if (!known->base) stands = known->highest_write();
    const Point cut{registers.cut_version, site_id(registers.cut_site)};
    if (!known->base && stands <= std::max(cut, flush)) stands = {};
    s.counters.make(field.db, field.key).fields[field.field] = std::move(*known);
    (*link)->counted = true;
  }
  const SiteIndex site = stands.version == 0 ? SiteIndex{0} : site_index(stands.site);
  // The flush has ended older adds of a member whose newest one has outlived it.
  if (is_set && !value.empty() && flush.version != 0) {
    Dots dots(*this, {field.field, value, stands.version, site, deleted});
    if (dots.drop_older(flush)) {
      if (dots.empty()) return;
      value = dots.text();
      deleted = !dots.live();
    }
  }
  *link = hash_write(s.heap, *link, {field.field, value, stands.version, site, deleted},
                     is_set ? kSetLimits : hash_limits_);
  if (deleted) await(s, k, *link, (*link)->version);
  if (was_there || !holds_value(**link)) return;
  sizes_[field.db].fetch_add(1, std::memory_order_relaxed);
  const std::int64_t deadline = (*link)->deadline();
  count_deadline(s, field.db, kNoDeadline, deadline);
  if (deadline != kNoDeadline) add_deadline(s, {deadline, k.hash, field.db});
}

std::vector<backend::StoredFlush> Keyspace::stored_flushes() const {
  std::vector<backend::StoredFlush> out;
  for (std::size_t db = 0; db < kDatabaseCount; ++db) {
    const FlushRegister& flush = flushes_[db];
    if (flush.version == 0) continue;
    out.push_back({static_cast<std::uint8_t>(db), flush.version, site_id(flush.site)});
  }
  return out;
}

void Keyspace::restore(const backend::StoredFlush& flush) {
  backend::Row row;
  row.kind = backend::RowKind::flush;
  row.db = flush.db;
  row.version = flush.version;
  row.site = flush.site;
  fold(row, 0, site_index(flush.site));
}

}  // namespace isthmus
