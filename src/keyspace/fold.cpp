// The merge: how one row of the log changes the state. The rules are those of ARCHITECTURE.md, section
// "Merge".
#include <cstring>

#include "src/keyspace/keyspace.hpp"

namespace isthmus {

using backend::Row;
using backend::RowKind;

/// Folds one row into one key.
class Fold {
 public:
  Fold(Keyspace& keyspace, Shard& shard, const Row& row, std::uint64_t hash, SiteIndex site)
      : keyspace_(keyspace), shard_(shard), row_(row), hash_(hash), site_(site), stable_(keyspace.stable()) {}

  FoldResult run() {
    Table& table = shard_.tables[row_.db];
    link_ = table.find(hash_, row_.key);
    before_ = state_of(*link_);
    result_.existed = result_.exists = before_.exists;
    if (older_than_flush()) return result_;
    switch (row_.kind) {
      case RowKind::set:
        fold_string(true);
        break;
      case RowKind::update:
        fold_string(false);
        break;
      case RowKind::hcreate:
        fold_deadline(std::nullopt);
        [[fallthrough]];
      case RowKind::hset:
        fold_field(false);
        break;
      case RowKind::hdel:
        fold_field(true);
        break;
      case RowKind::del:
        fold_del();
        break;
      case RowKind::expire:
        fold_deadline(row_.expire_at);
        break;
      case RowKind::htype:
        fold_type();
        break;
      default:
        return result_;
    }
    settle();
    return result_;
  }

 private:
  struct State {
    bool exists = false;
    std::int64_t deadline = kNoDeadline;
  };
  static State state_of(const Node* node) {
    if (node == nullptr || !holds_value(*node)) return {};
    return {true, node->deadline()};
  }

  bool newer_than(Version version, SiteIndex site) const {
    if (row_.version != version) return row_.version > version;
    return keyspace_.site_id(site_) > keyspace_.site_id(site);
  }
  bool older_than_flush() const {
    const auto& flush = keyspace_.flushes_[row_.db];
    return flush.version != 0 && !newer_than(flush.version, flush.site);
  }
  bool wins_type() const { return *link_ == nullptr || newer_than((*link_)->version, (*link_)->site); }
  Heap& heap() { return shard_.heap; }

  // The node, made as "deleted at version 0" if nothing is known of the key.
  Node* ensure() {
    if (*link_ != nullptr) return *link_;
    insert(make_node(heap(), row_.key, {}, NodeType::none, 0, 0));
    return *link_;
  }
  void insert(Node* node) {
    Table& table = shard_.tables[row_.db];
    if (table.insert(link_, node)) link_ = table.find(hash_, row_.key);
  }
  void stamp(Node* node) {
    result_.won = true;
    node->version = row_.version;
    node->site = site_;
  }
  void write_registers_of(const Registers& registers) {
    *link_ = write_registers(heap(), *link_, registers, true);
  }

  void fold_string(bool whole) {
    if (*link_ == nullptr && row_.version <= stable_ && (!whole || !row_.expire_at)) {
      insert(make_node(heap(), row_.key, row_.value, NodeType::string, row_.version, site_));
      return;
    }
    ensure();
    if (whole) fold_deadline(row_.expire_at);
    if (wins_type()) {
      become_string();
    } else if ((*link_)->is_hash()) {
      raise_cut();
    }
  }

  void become_string() {
    Node* node = *link_;
    if (node->is_hash()) hash_release(heap(), node);
    const bool grows = node->type == NodeType::string && row_.kind == RowKind::update;
    node = resize_value(heap(), node, row_.value.size(), grows);
    if (!row_.value.empty()) std::memcpy(node->value_data(), row_.value.data(), row_.value.size());
    node->type = NodeType::string;
    node->piecewise = node->as_text = false;
    stamp(node);
    *link_ = node;
  }

  void fold_field(bool deleted) {
    Node* node = ensure();
    if (!node->is_hash()) {
      if (!wins_type()) return;
      become_hash();
      node = *link_;
    } else {
      const Registers registers = node->registers();
      if (!newer_than(registers.cut_version, registers.cut_site)) return;
      if (wins_type()) stamp(node);
    }
    const std::optional<FieldView> known = hash_find_any(*node, row_.field);
    if (known && !newer_than(known->version, known->site)) return;
    result_.won = true;
    if (deleted && row_.version <= stable_) {
      *link_ = hash_erase(heap(), node, row_.field);
    } else {
      const FieldView field{row_.field, deleted ? std::string_view{} : row_.value, row_.version, site_,
                            deleted};
      *link_ = hash_write(heap(), node, field, keyspace_.hash_limits_);
    }
  }

  void fold_type() {
    if (!ensure()->is_hash()) {
      if (wins_type()) become_hash();
    } else if (wins_type()) {
      stamp(*link_);
    }
  }

  // What was there before, a string or a tombstone, is below the cut from now on.
  void become_hash() {
    Node* node = *link_;
    Registers registers = node->registers();
    registers.cut_version = node->version;
    registers.cut_site = node->site;
    const std::string head = PackedHash::empty(row_.version);
    node = resize_value(heap(), node, head.size());
    std::memcpy(node->value_data(), head.data(), head.size());
    node->type = NodeType::packed_hash;
    node->piecewise = node->as_text = false;
    stamp(node);
    *link_ = node;
    if (registers.cut_version > stable_ || node->has_registers) write_registers_of(registers);
  }

  void fold_del() {
    if (*link_ == nullptr && row_.version <= stable_) return;
    ensure();
    if (!row_.copied) fold_deadline(std::nullopt);
    if (wins_type()) {
      Node* node = *link_;
      if (node->is_hash()) hash_release(heap(), node);
      node->type = NodeType::none;
      stamp(node);
      *link_ = resize_value(heap(), node, 0);
    } else if ((*link_)->is_hash()) {
      raise_cut();
    }
  }

  // Fields at or below the row are dead; the newer ones stay.
  void raise_cut() {
    Registers registers = (*link_)->registers();
    if (!newer_than(registers.cut_version, registers.cut_site)) return;
    result_.won = true;
    registers.cut_version = row_.version;
    registers.cut_site = site_;
    write_registers_of(registers);
    *link_ = hash_erase_if(heap(), *link_, [this](const FieldView& field) {
      return !(field.version > row_.version ||
               (field.version == row_.version && keyspace_.site_id(field.site) > keyspace_.site_id(site_)));
    });
  }

  void fold_deadline(const std::optional<std::int64_t>& deadline) {
    if (*link_ == nullptr && row_.version <= stable_ && !deadline) return;
    Registers registers = ensure()->registers();
    if (!newer_than(registers.expire_version, registers.expire_site)) return;
    result_.won = true;
    if (!deadline && !(*link_)->has_registers && row_.version <= stable_) return;
    registers.deadline = deadline.value_or(kNoDeadline);
    registers.expire_version = row_.version;
    registers.expire_site = site_;
    write_registers_of(registers);
  }

  // Forgets what nobody can ask for any more, and keeps the counts and the deadlines.
  void settle() {
    forget_registers();
    const State after = state_of(*link_);
    auto& sizes = keyspace_.sizes_[row_.db];
    if (after.exists != before_.exists) sizes.fetch_add(after.exists ? 1 : -1, std::memory_order_relaxed);
    result_.exists = after.exists;
    if (after.deadline != before_.deadline) note_deadline(after.deadline);
    if (!after.exists) forget_key();
  }

  void note_deadline(std::int64_t deadline) {
    const int change = (deadline != kNoDeadline ? 1 : 0) - (before_.deadline != kNoDeadline ? 1 : 0);
    keyspace_.count_deadline(shard_, row_.db, change);
    if (deadline == kNoDeadline) return;
    keyspace_.add_deadline(shard_, {deadline, hash_, row_.db});
  }

  void forget_registers() {
    Node* node = *link_;
    if (node == nullptr || !node->has_registers) return;
    const Registers registers = node->registers();
    if (registers.deadline != kNoDeadline) return;
    if (registers.expire_version > stable_ || registers.cut_version > stable_) return;
    *link_ = write_registers(heap(), node, {}, false);
  }

  void forget_key() {
    Node* node = *link_;
    if (node == nullptr || node->version > stable_) return;
    const Registers registers = node->registers();
    if (registers.expire_version > stable_ || registers.cut_version > stable_) return;
    if (node->is_hash()) {
      bool tombstones = false;
      hash_for_each(*node, true, [&](const FieldView& field) { tombstones |= field.version > stable_; });
      if (tombstones) return;
    }
    keyspace_.destroy(shard_, shard_.tables[row_.db].unlink(link_));
  }

  Keyspace& keyspace_;
  Shard& shard_;
  const Row& row_;
  const std::uint64_t hash_;
  const SiteIndex site_;
  const Version stable_;
  FoldResult result_;
  Node** link_ = nullptr;
  State before_;
};

namespace {

// A flush is a `del` of every key, now and of every row that comes later with a lower version.
void for_all_keys(Shard& shard, std::uint8_t db, const std::function<void(const Node&)>& visit) {
  std::vector<std::string> names;
  shard.tables[db].for_each([&](const Node& node) { names.emplace_back(node.name()); });
  for (const std::string& name : names) visit(**shard.tables[db].find(hash_name(name), name));
}

}  // namespace

FoldResult Keyspace::fold(const Row& row, std::uint64_t hash, SiteIndex site) {
  if (row.kind != RowKind::flush) return Fold(*this, shards_[shard_of(hash)], row, hash, site).run();
  for (Shard& s : shards_) {
    if (row.version <= stable()) {
      // Nothing newer can be there: the whole table goes.
      std::size_t deadlines = 0, keys = 0;
      s.tables[row.db].drain([&](Node* node) {
        if (holds_value(*node)) ++keys;
        if (holds_value(*node) && node->deadline() != kNoDeadline) ++deadlines;
        destroy(s, node);
      });
      sizes_[row.db].fetch_sub(keys, std::memory_order_relaxed);
      deadline_counts_[row.db].fetch_sub(deadlines, std::memory_order_relaxed);
      s.keys_with_deadline -= deadlines;
      continue;
    }
    for_all_keys(s, row.db, [&](const Node& node) {
      Row del = row;
      const std::string name(node.name());
      del.kind = RowKind::del;
      del.key = name;
      Fold(*this, s, del, hash_name(name), site).run();
    });
  }
  FlushRegister& flush = flushes_[row.db];
  if (row.version > stable() && (row.version > flush.version ||
                                 (row.version == flush.version && site_id(site) > site_id(flush.site)))) {
    flush = {row.version, site};
  }
  return {.won = true};
}

}  // namespace isthmus
