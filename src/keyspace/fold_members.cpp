// The part of the merge that is about the members of sets: an add goes only by who has seen it.
#include <algorithm>
#include <string>
#include <vector>

#include "src/keyspace/fold.hpp"

namespace isthmus {

// Whether the member is added or that is taken back, the row stands where the add does.
void Fold::fold_member(bool removed) {
  ensure();
  if (!reach(NodeType::packed_set)) return;
  const Registers registers = (*link_)->registers();
  if (!newer_than(registers.cut_version, registers.cut_site)) return;
  if (wins_type()) stamp(*link_);
  const bool forgotten = removed && at_version_ <= stable_;
  const std::optional<FieldView> known = hash_find_any(**link_, row_.field);
  if (known && (!known->value.empty() || known->site != at_site_)) {
    Dots dots(keyspace_, *known);
    if (!dots.merge({at(), removed})) return;
    result_.won = true;
    write_member(row_.field, dots);
    return;
  }
  // The usual case: no other site has added it.
  if (known && std::pair(known->version, known->deleted) >= std::pair(at_version_, removed)) return;
  if (!known && forgotten) return;
  result_.won = true;
  if (forgotten) {
    *link_ = hash_erase(heap(), *link_, row_.field);
  } else {
    write_field({row_.field, {}, at_version_, at_site_, removed});
  }
}

// Writes a member as its dots say, or takes it out if none is left.
void Fold::write_member(std::string_view name, Dots& dots) {
  dots.forget(stable_);
  if (dots.empty()) {
    *link_ = hash_erase(heap(), *link_, name);
    return;
  }
  const Point& newest = dots.newest().at;
  const std::string text = dots.text();
  write_field({name, text, newest.version, keyspace_.site_index(newest.site), !dots.live()});
}

// Of members that several sites have added: the adds at or below the row. Members of which nothing is newer
// are left to who calls.
void Fold::drop_older_dots() {
  std::vector<std::pair<std::string, Dots>> left;
  hash_for_each(**link_, true, [&](const FieldView& member) {
    if (member.value.empty() || !(at() < point(member.version, member.site))) return;
    Dots dots(keyspace_, member);
    if (dots.drop_older(at())) left.emplace_back(member.name, std::move(dots));
  });
  for (auto& [name, dots] : left) write_member(name, dots);
}

}  // namespace isthmus
