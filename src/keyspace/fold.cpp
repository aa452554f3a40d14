#include "src/keyspace/fold.hpp"

#include <cstring>

namespace isthmus {

using backend::Row;
using backend::RowKind;

Fold::Fold(Keyspace& keyspace, Shard& shard, const Row& row, std::uint64_t hash, SiteIndex site)
    : keyspace_(keyspace),
      shard_(shard),
      row_(row),
      hash_(hash),
      site_(site),
      stable_(keyspace.stable()),
      at_version_(row.version),
      at_site_(site) {
  if (!backend::is_count(row.kind) && (row.kind != RowKind::srem || row.count.base_version == 0)) return;
  at_version_ = row.count.base_version;
  at_site_ = row.count.base_site == 0 ? kEverySiteIndex : keyspace.site_index(row.count.base_site);
}

FoldResult Fold::run() {
  Table& table = shard_.tables[row_.db];
  link_ = table.find(hash_, row_.key);
  before_ = state_of(*link_);
  result_.existed = result_.exists = before_.exists;
  if (older_than_flush()) return result_;
  fold_kind();
  settle();
  return result_;
}

void Fold::fold_kind() {
  switch (row_.kind) {
    case RowKind::set:
      return fold_string(true);
    case RowKind::update:
      return fold_string(false);
    case RowKind::hcreate:
      fold_deadline(std::nullopt);
      return fold_field(false);
    case RowKind::hset:
      return fold_field(false);
    case RowKind::hdel:
      return fold_field(true);
    case RowKind::del:
      return fold_del();
    case RowKind::expire:
      return fold_deadline(row_.expire_at);
    case RowKind::incr:
      return fold_count();
    case RowKind::hincr:
      return fold_field_count();
    case RowKind::htype:
      return fold_type(NodeType::packed_hash);
    case RowKind::screate:
      fold_deadline(std::nullopt);
      return fold_member(false);
    case RowKind::sadd:
      return fold_member(false);
    case RowKind::srem:
      return fold_member(true);
    case RowKind::stype:
      return fold_type(NodeType::packed_set);
    default:
      return;
  }
}

// Who counts on nothing has seen the flush at which nothing was left.
bool Fold::older_than_flush() const {
  const auto& flush = keyspace_.flushes_[row_.db];
  if (flush.version == 0) return false;
  const Point flushed = point(flush.version, flush.site);
  return is_nil_count() ? at() < flushed : at() <= flushed;
}

// The node, made as "deleted at version 0" if nothing is known of the key.
Node* Fold::ensure() {
  if (*link_ == nullptr) insert(make_node(heap(), row_.key, {}, NodeType::none, 0, 0));
  return *link_;
}

void Fold::insert(Node* node) {
  Table& table = shard_.tables[row_.db];
  if (table.insert(link_, node)) link_ = table.find(hash_, row_.key);
}

void Fold::stamp(Node* node) {
  result_.won = true;
  node->version = at_version_;
  node->site = at_site_;
}

void Fold::note_lost(Version version, SiteIndex site, bool had_value) {
  if (had_value && site == 0 && site_ != 0) result_.lost_version = version;
}

void Fold::write_registers_of(const Registers& registers) {
  *link_ = write_registers(heap(), *link_, registers, true);
}

void Fold::write_value(std::string_view value, bool spare) {
  Node* node = resize_value(heap(), *link_, value.size(), spare);
  if (!value.empty()) std::memcpy(node->value_data(), value.data(), value.size());
  *link_ = node;
}

void Fold::fold_string(bool whole) {
  if (*link_ == nullptr && row_.version <= stable_ && (!whole || !row_.expire_at)) {
    insert(make_node(heap(), row_.key, row_.value, NodeType::string, row_.version, site_));
    result_.won = true;
    return;
  }
  ensure();
  if (whole) fold_deadline(row_.expire_at);
  if (wins_type()) {
    become_string();
  } else if ((*link_)->has_fields()) {
    raise_cut();
  }
}

void Fold::become_string() {
  Node* node = *link_;
  note_lost(node->version, node->site, has_content(*node));
  Point killed;
  if (node->counted && outlived_by_counter(killed)) return;
  if (node->has_fields()) hash_release(heap(), node);
  write_value(row_.value, node->type == NodeType::string && row_.kind == RowKind::update);
  node = *link_;
  node->type = NodeType::string;
  node->piecewise = node->as_text = false;
  stamp(node);
}

void Fold::fold_del() {
  if (*link_ == nullptr && row_.version <= stable_) return;
  ensure();
  // A copied deletion is a register of its own; the deadline has another row.
  if (!row_.copied) fold_deadline(std::nullopt);
  if (!wins_type()) {
    if ((*link_)->has_fields()) raise_cut();
    return;
  }
  Node* node = *link_;
  note_lost(node->version, node->site, has_content(*node));
  Point killed;
  if (node->counted && outlived_by_counter(killed)) return;
  if (node->has_fields()) hash_release(heap(), node);
  node->type = NodeType::none;
  stamp(node);
  *link_ = resize_value(heap(), node, 0);
}

void Fold::fold_deadline(const std::optional<std::int64_t>& deadline) {
  if (*link_ == nullptr && row_.version <= stable_ && !deadline) return;
  const Node* node = ensure();
  Registers registers = node->registers();
  const Point mine{row_.version, keyspace_.site_id(site_)};
  if (mine <= point(registers.expire_version, registers.expire_site)) return;
  if (!deadline && !node->has_registers && row_.version <= stable_) return;
  result_.won = true;
  const std::int64_t old = registers.deadline;
  registers.deadline = deadline.value_or(kNoDeadline);
  registers.expire_version = row_.version;
  registers.expire_site = site_;
  write_registers_of(registers);
  if (registers.deadline != old) (*link_)->told = false;
}

// Fields at or below the row are dead; the newer ones stay.
void Fold::raise_cut() {
  Registers registers = (*link_)->registers();
  if (!newer_than(registers.cut_version, registers.cut_site)) return;
  if (at() <= keyspace_.flushed(row_.db)) return;
  result_.won = true;
  registers.cut_version = at_version_;
  registers.cut_site = at_site_;
  write_registers_of(registers);
  if ((*link_)->counted) cut_counted_fields();
  if ((*link_)->is_set()) drop_older_dots();
  const bool counted = (*link_)->counted;
  *link_ = hash_erase_if(heap(), *link_, [&](const FieldView& field) {
    if (at() < point(field.version, field.site)) return false;
    if (counted && shard_.counters.find(row_.db, row_.key)->fields.contains(field.name)) return false;
    note_lost(field.version, field.site, !field.deleted);
    return true;
  });
}

void Fold::fold_type(NodeType packed) {
  ensure();
  if (reach(packed) && wins_type()) stamp(*link_);
}

// Makes the key a hash or a set (`packed` says which), if it is none and the row may do so. False if it is
// none afterwards; a row that comes too late for its kind still is the end of what is older of the other
// kind. A field that was counted on when it was not there has seen what stands at its base, inclusive.
bool Fold::reach(NodeType packed) {
  Node* node = *link_;
  if (packed == NodeType::packed_set ? node->is_set() : node->is_hash()) return true;
  if (is_nil_count() ? at() < type_point() : !wins_type()) {
    if (node->has_fields()) raise_cut();
    return false;
  }
  Point killed;
  if (node->counted && outlived_by_counter(killed)) return false;
  note_lost((*link_)->version, (*link_)->site, has_content(**link_));
  become(packed, killed);
  return true;
}

// What was there before is below the cut from now on.
void Fold::become(NodeType packed, const Point& killed_base) {
  Node* node = *link_;
  if (node->has_fields()) hash_release(heap(), node);
  Registers registers = node->registers();
  registers.cut_version = node->version;
  registers.cut_site = node->site;
  if (killed_base > type_point()) {
    registers.cut_version = killed_base.version;
    registers.cut_site = keyspace_.site_index(killed_base.site);
  }
  // What a flush says already need not be said twice.
  if (point(registers.cut_version, registers.cut_site) <= keyspace_.flushed(row_.db))
    registers.cut_version = 0;
  const std::string head = PackedHash::empty(row_.version);
  write_value(head, false);
  node = *link_;
  node->type = packed;
  node->piecewise = node->as_text = false;
  stamp(node);
  if (registers.cut_version > stable_ || node->has_registers) write_registers_of(registers);
}

void Fold::fold_field(bool deleted) {
  ensure();
  if (!reach(NodeType::packed_hash)) return;
  Node* node = *link_;
  const Registers registers = node->registers();
  if (!newer_than(registers.cut_version, registers.cut_site)) return;
  if (wins_type()) stamp(node);
  const std::optional<FieldView> known = hash_find_any(*node, row_.field);
  if (known && !newer_than(known->version, known->site)) return;
  result_.won = true;
  if (known) note_lost(known->version, known->site, !known->deleted);
  if (node->counted && field_outlives(known)) return;
  if (deleted && row_.version <= stable_) {
    *link_ = hash_erase(heap(), node, row_.field);
  } else {
    write_field({row_.field, deleted ? std::string_view{} : row_.value, at_version_, at_site_, deleted});
  }
}

void Fold::write_field(const FieldView& field) {
  *link_ = hash_write(heap(), *link_, field, (*link_)->is_set() ? kSetLimits : keyspace_.hash_limits_);
}

// Forgets what nobody can ask for any more, and keeps the counts and the deadlines.
void Fold::settle() {
  const State after = state_of(*link_);
  result_.exists = after.exists;
  auto& sizes = keyspace_.sizes_[row_.db];
  if (after.exists != before_.exists) sizes.fetch_add(after.exists ? 1 : -1, std::memory_order_relaxed);
  if (after.deadline != before_.deadline) note_deadline(after.deadline);
  if (*link_ == nullptr) return;
  const Version forgettable = keyspace_.forget_now(shard_, row_.db, link_, stable_);
  if (forgettable != 0) keyspace_.await(shard_, {row_.db, hash_, row_.key}, *link_, forgettable);
}

void Fold::note_deadline(std::int64_t deadline) {
  keyspace_.count_deadline(shard_, row_.db, before_.deadline, deadline);
  if (deadline == kNoDeadline) return;
  keyspace_.add_deadline(shard_, {deadline, hash_, row_.db});
}

FoldResult Keyspace::fold(const Row& row, std::uint64_t hash, SiteIndex site) {
  if (row.kind == RowKind::flush) return fold_flush(row, site);
  if (!backend::is_of_key(row.kind)) return {};
  return Fold(*this, shards_[shard_of(hash)], row, hash, site).run();
}

}  // namespace isthmus
