// A key's registers as rows of the log.
#include <vector>

#include "src/keyspace/difference.hpp"

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
    if (node->type == NodeType::none && node->version != 0) add(RowKind::del, node->version, node->site);
    if (node->type == NodeType::string) add(RowKind::update, node->version, node->site).value = node->value();
    if (node->is_hash()) add_hash(*node, registers);
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

  void add_hash(const Node& node, const Registers& registers) {
    if (registers.cut_version != 0) add(RowKind::del, registers.cut_version, registers.cut_site);
    add(RowKind::htype, node.version, node.site);
    hash_for_each(node, true, [this](const FieldView& field) {
      Row& row = add(field.deleted ? RowKind::hdel : RowKind::hset, field.version, field.site);
      row.field = field.name;
      if (!field.deleted) row.value = field.value;
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
