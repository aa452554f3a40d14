#include "src/command/key_copy.hpp"

namespace isthmus {

using backend::Row;
using backend::RowKind;

std::size_t KeyCopy::effect_bytes(std::size_t name_size) const {
  std::size_t bytes = name_size + value.size();
  for (const auto& [field, field_value] : fields) bytes += name_size + field.size() + field_value.size();
  return bytes;
}

KeyCopy copy_key(const Node& node) {
  KeyCopy copy;
  copy.is_hash = node.is_hash();
  copy.is_set = node.is_set();
  copy.as_text = node.as_text;
  if (node.deadline() != kNoDeadline) copy.deadline = node.deadline();
  if (node.has_fields()) {
    copy.table = node.type == NodeType::table_hash;
    copy.fields.reserve(hash_size(node));
    hash_for_each(node, false, [&](const FieldView& field) {
      copy.fields.emplace_back(field.name, copy.is_set ? std::string_view() : field.value);
    });
  } else {
    copy.piecewise = node.piecewise;
    copy.value = node.value();
  }
  return copy;
}

void write_copy(Call& call, const Key& key, const KeyCopy& copy) {
  Evaluation& evaluation = call.evaluation();
  Row row;
  if (!copy.has_fields()) {
    row.kind = RowKind::set;
    row.value = copy.value;
    row.expire_at = copy.deadline;
    evaluation.emit(row, key);
    if (copy.piecewise) call.services.keyspace.mark_piecewise(key);
    if (copy.as_text) call.services.keyspace.mark_as_text(key);
    return;
  }
  row.kind = copy.is_set ? RowKind::screate : RowKind::hcreate;
  for (const auto& [field, value] : copy.fields) {
    row.field = field;
    row.value = value;
    evaluation.emit(row, key);
    if (copy.table && row.kind == RowKind::hcreate) call.services.keyspace.unpack_hash(key);
    row.kind = copy.is_set ? RowKind::sadd : RowKind::hset;
  }
  if (copy.as_text) call.services.keyspace.mark_as_text(key);
  if (copy.deadline) call.expire(key, copy.deadline);
}

}  // namespace isthmus
