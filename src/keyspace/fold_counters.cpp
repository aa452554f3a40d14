// The part of the merge that is about counters: bases, totals, and what is counted on nothing.
#include <algorithm>
#include <string>
#include <vector>

#include "src/keyspace/fold.hpp"

namespace isthmus {

using backend::RowKind;

KeyCounters* Fold::counters() {
  return (*link_)->counted ? shard_.counters.find(row_.db, row_.key) : nullptr;
}

Counter* Fold::string_counter() {
  KeyCounters* const all = counters();
  return all != nullptr && all->value ? &*all->value : nullptr;
}

Counter* Fold::field_counter() {
  KeyCounters* const all = counters();
  if (all == nullptr) return nullptr;
  const auto it = all->fields.find(row_.field);
  return it == all->fields.end() ? nullptr : &it->second;
}

void Fold::drop_counters() {
  if (!(*link_)->counted) return;
  shard_.counters.erase(row_.db, row_.key);
  (*link_)->counted = false;
}

void Fold::drop_field_counter(std::string_view field) {
  KeyCounters* const all = counters();
  if (all == nullptr) return;
  const auto it = all->fields.find(field);
  if (it != all->fields.end()) all->fields.erase(it);
  if (all->empty()) drop_counters();
}

// A write that is newer than the type register ends a counter, but for what was counted by sites that had
// seen the write and found nothing any more. True if such totals are left: then they stay what the key is.
// Otherwise nothing is known of counters afterwards, and `killed_base` is the highest base that has gone.
bool Fold::outlived_by_counter(Point& killed_base) {
  Counter* const counter = string_counter();
  if (counter != nullptr && !counter->base) {
    killed_base = counter->highest_base();
    // Where a string and a field were counted on the same nothing, the hash wins.
    if (counter->drop_older(at(), is_nil_count())) {
      stamp(*link_);
      show_string(*counter);
      return true;
    }
  }
  drop_counters();
  return false;
}

// The same for a field, of which the row is newer.
bool Fold::field_outlives(const std::optional<FieldView>& known) {
  Counter* const counter = field_counter();
  if (!known || counter == nullptr) return false;
  if (counter->base || !counter->drop_older(at())) {
    drop_field_counter(row_.field);
    return false;
  }
  show_field(*counter, at_version_, at_site_);
  return true;
}

Total Fold::total() const {
  Total total;
  total.total = row_.count.total;
  total.stamp = {row_.version, keyspace_.site_id(site_)};
  total.base = at();
  return total;
}

void Fold::show_string(const Counter& counter) {
  write_value(std::to_string(counter.sum()), false);
  Node* const node = *link_;
  node->type = NodeType::string;
  node->piecewise = node->as_text = false;
}

void Fold::show_field(const Counter& counter, Version version, SiteIndex site) {
  write_field({row_.field, std::to_string(counter.sum()), version, site, false});
}

void Fold::fold_count() {
  ensure();
  const bool has_fields = (*link_)->has_fields();
  if (has_fields ? at() <= type_point() : at() < type_point()) {
    if (has_fields) raise_cut();
    return;
  }
  if (is_nil_count()) {
    count_on_nothing();
    return;
  }
  // The base may come before the write that made it: then it is that write. But not where that write has been
  // folded and deleted, and both are forgotten.
  if (wins_type() && at_version_ > stable_) become_string();
  Node* const node = *link_;
  if (node->type != NodeType::string || type_point() != at()) return;
  Counter* counter = string_counter();
  if (counter != nullptr && !counter->base) return;
  if (counter == nullptr) {
    counter = &shard_.counters.make(row_.db, row_.key).value.emplace();
    counter->base = std::string(row_.value);
    node->counted = true;
  }
  if (!counter->add(row_.count.counter, total())) return;
  result_.won = true;
  show_string(*counter);
}

// Everything at or below the base is dead, but for what was counted beside it.
void Fold::count_on_nothing() {
  const Total mine = total();
  Counter* counter = string_counter();
  if (counter == nullptr || counter->base) {
    Node* const node = *link_;
    note_lost(node->version, node->site, has_content(*node));
    drop_counters();
    if (node->has_fields()) hash_release(heap(), node);
    node->type = NodeType::none;
    *link_ = resize_value(heap(), node, 0);
    counter = &shard_.counters.make(row_.db, row_.key).value.emplace();
    (*link_)->counted = true;
    result_.won = true;
  }
  if (!mine.is_mark()) {
    counter->drop_older(at());
    if (wins_type() && at() > keyspace_.flushed(row_.db)) stamp(*link_);
  }
  result_.won |= counter->add(row_.count.counter, mine);
  show_string(*counter);
}

void Fold::fold_field_count() {
  ensure();
  if (!reach(NodeType::packed_hash)) return;
  Node* const node = *link_;
  const Registers registers = node->registers();
  const Point cut = point(registers.cut_version, registers.cut_site);
  if (is_nil_count() ? at() < cut : at() <= cut) return;
  if (wins_type()) stamp(node);
  const std::optional<FieldView> known = hash_find_any(*node, row_.field);
  const Point register_of_field = known ? point(known->version, known->site) : Point{};
  if (at() < register_of_field) return;
  if (is_nil_count()) {
    count_field_on_nothing(known);
    return;
  }
  if (at() > register_of_field) {
    if (at_version_ <= stable_) return;
    result_.won = true;
    if (known) note_lost(known->version, known->site, !known->deleted);
    if (field_outlives(known)) return;
    write_field({row_.field, row_.value, at_version_, at_site_, false});
  } else if (known->deleted) {
    return;
  }
  Counter* counter = field_counter();
  if (counter != nullptr && !counter->base) return;
  if (counter == nullptr) {
    counter = &shard_.counters.make(row_.db, row_.key).fields[std::string(row_.field)];
    counter->base = std::string(row_.value);
    (*link_)->counted = true;
  }
  if (!counter->add(row_.count.counter, total())) return;
  result_.won = true;
  show_field(*counter, at_version_, at_site_);
}

void Fold::count_field_on_nothing(const std::optional<FieldView>& known) {
  const Total mine = total();
  Version version = known ? known->version : 0;
  SiteIndex site = known ? known->site : 0;
  Counter* counter = field_counter();
  if (counter == nullptr || counter->base) {
    if (known) note_lost(version, site, !known->deleted);
    counter = &shard_.counters.make(row_.db, row_.key).fields[std::string(row_.field)];
    *counter = {};
    (*link_)->counted = true;
    result_.won = true;
  }
  if (!mine.is_mark()) {
    counter->drop_older(at());
    // What the cut or a flush says already need not be said twice.
    const Registers registers = (*link_)->registers();
    const Point cut = point(registers.cut_version, registers.cut_site);
    if (newer_than(version, site) && at() > std::max(cut, keyspace_.flushed(row_.db))) {
      version = at_version_;
      site = at_site_;
    }
  }
  result_.won |= counter->add(row_.count.counter, mine);
  show_field(*counter, version, site);
}

// The cut has been raised to the row: totals on older bases go. What is left of a counter has nothing but the
// cut below it.
void Fold::cut_counted_fields() {
  KeyCounters* const all = counters();
  std::vector<std::string> dead;
  for (auto& [name, counter] : all->fields) {
    const std::optional<FieldView> known = hash_find_any(**link_, name);
    if (!known) continue;
    const bool below = point(known->version, known->site) <= at();
    if (counter.base ? below : !counter.drop_older(at())) {
      dead.push_back(name);
    } else if (!counter.base) {
      const std::string text = std::to_string(counter.sum());
      write_field({name, text, below ? 0 : known->version, below ? SiteIndex{0} : known->site, false});
    }
  }
  for (const std::string& name : dead) drop_field_counter(name);
}

}  // namespace isthmus
