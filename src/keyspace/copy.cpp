// A key's registers as rows of the log.
#include <vector>

#include "src/keyspace/difference.hpp"
#include "src/keyspace/dots.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;

// Gathers the rows of one key, and knows which one is the last.
class CopiedKey {
 public:
  CopiedKey(Keyspace& keyspace, const Key& key) : keyspace_(keyspace), key_(key) {}

  void hand_out(const std::function<void(const Row&)>& emit) {
    const Node* node = keyspace_.find_any(key_);
    if (node == nullptr) return;
    const Registers registers = node->registers();
    if (node->is_hash()) {
      add_hash(*node, registers);
    } else if (node->is_set()) {
      add_set(*node, registers);
    } else {
      add_string(*node);
    }
    if (registers.expire_version != 0) {
      Row& row = add(RowKind::expire, registers.expire_version, registers.expire_site);
      if (registers.deadline != kNoDeadline) row.expire_at = registers.deadline;
    }
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      rows_[i].group_end = i + 1 == rows_.size();
      emit(rows_[i]);
    }
  }

 private:
  Row& add(RowKind kind, Version version, SiteIndex site) {
    Row& row = rows_.emplace_back();
    row.db = key_.db;
    row.key = key_.name;
    row.kind = kind;
    row.version = version;
    row.site = keyspace_.site_id(site);
    row.copied = true;
    return row;
  }

  // Not `set`, which would write the deadline as well: that has a version of its own.
  void add_string(const Node& node) {
    const Counter* const counter = keyspace_.counter(key_);
    const bool has_value = node.type == NodeType::string && (counter == nullptr || counter->base);
    if (has_value) {
      add(RowKind::update, node.version, node.site).value =
          counter == nullptr ? node.value() : std::string_view(*counter->base);
    } else if (node.version != 0) {
      add(RowKind::del, node.version, node.site);
    }
    if (counter != nullptr) add_totals(RowKind::incr, {}, *counter);
  }

  void add_totals(RowKind kind, std::string_view field, const Counter& counter) {
    for (const auto& [lease, total] : counter.totals) {
      Row& row = add(kind, total.stamp.version, 0);
      row.site = total.stamp.site;
      row.field = field;
      if (counter.base) row.value = *counter.base;
      row.count = {total.base.version, total.is_mark() ? 0 : total.base.site, lease, total.total};
    }
  }

  void add_field(const FieldView& field) {
    const Counter* const counter = keyspace_.counter(key_, field.name);
    const bool has_value = !field.deleted && (counter == nullptr || counter->base);
    if (has_value || field.version != 0) {
      Row& row = add(has_value ? RowKind::hset : RowKind::hdel, field.version, field.site);
      row.field = field.name;
      if (has_value) row.value = counter == nullptr ? field.value : std::string_view(*counter->base);
    }
    if (counter != nullptr) add_totals(RowKind::hincr, field.name, *counter);
  }

  void add_hash(const Node& node, const Registers& registers) {
    if (registers.cut_version != 0) add(RowKind::del, registers.cut_version, registers.cut_site);
    add(RowKind::htype, node.version, node.site);
    hash_for_each(node, true, [this](const FieldView& field) { add_field(field); });
  }

  // A row for each dot, with the version and site of the add, whoever took it back.
  void add_set(const Node& node, const Registers& registers) {
    if (registers.cut_version != 0) add(RowKind::del, registers.cut_version, registers.cut_site);
    add(RowKind::stype, node.version, node.site);
    hash_for_each(node, true, [this](const FieldView& member) {
      for (const Dot& dot : Dots(keyspace_, member)) {
        Row& row = add(dot.removed ? RowKind::srem : RowKind::sadd, dot.at.version, 0);
        row.site = dot.at.site;
        row.field = member.name;
        if (dot.removed) row.count = {.base_version = dot.at.version, .base_site = dot.at.site};
      }
    });
  }

  Keyspace& keyspace_;
  const Key& key_;
  std::vector<Row> rows_;
};

}  // namespace

void copy_rows(Keyspace& keyspace, const Key& key, const std::function<void(const Row&)>& emit) {
  CopiedKey(keyspace, key).hand_out(emit);
}

}  // namespace isthmus
