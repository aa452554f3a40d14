// The merge: how one row of the log changes one key. The rules, with their reasons, are in MERGE.md.
#pragma once

#include <optional>

#include "src/keyspace/dots.hpp"
#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// Folds one row into one key. Lives while its shard is locked.
class Fold {
 public:
  Fold(Keyspace& keyspace, Shard& shard, const backend::Row& row, std::uint64_t hash, SiteIndex site);
  FoldResult run();
  /// What a row of kind flush does to the key of that name (the row's `key` is the key here).
  void run_flush();

 private:
  struct State {
    bool exists = false;
    std::int64_t deadline = kNoDeadline;
  };
  static State state_of(const Node* node) {
    if (node == nullptr || !holds_value(*node)) return {};
    return {true, node->deadline()};
  }
  void fold_kind();

  // Where the row stands among the others of its key: a row that counts stands where its base does, and one
  // that takes an add back stands where that add does.
  Point at() const { return {at_version_, keyspace_.site_id(at_site_)}; }
  Point point(Version version, SiteIndex site) const {
    return version == 0 ? Point{} : Point{version, keyspace_.site_id(site)};
  }
  bool newer_than(Version version, SiteIndex site) const { return at() > point(version, site); }
  Point type_point() const { return point((*link_)->version, (*link_)->site); }
  bool wins_type() const { return newer_than((*link_)->version, (*link_)->site); }
  bool is_nil_count() const { return backend::is_count(row_.kind) && row_.value.empty(); }
  bool older_than_flush() const;
  Heap& heap() { return shard_.heap; }

  Node* ensure();
  void insert(Node* node);
  void stamp(Node* node);
  void note_lost(Version version, SiteIndex site, bool had_value);
  void write_registers_of(const Registers& registers);
  void write_value(std::string_view value, bool spare);

  void fold_string(bool whole);
  void become_string();
  void fold_del();
  void fold_deadline(const std::optional<std::int64_t>& deadline);
  void raise_cut();

  void fold_type(NodeType packed);
  bool reach(NodeType packed);
  void become(NodeType packed, const Point& killed_base);
  void fold_field(bool deleted);
  void write_field(const FieldView& field);

  // fold_members.cpp
  void fold_member(bool removed);
  void write_member(std::string_view name, Dots& dots);
  void drop_older_dots();

  // fold_counters.cpp
  KeyCounters* counters();
  Counter* string_counter();
  Counter* field_counter();
  void drop_counters();
  void drop_field_counter(std::string_view field);
  bool outlived_by_counter(Point& killed_base);
  bool field_outlives(const std::optional<FieldView>& known);
  Total total() const;
  void fold_count();
  void count_on_nothing();
  void fold_field_count();
  void count_field_on_nothing(const std::optional<FieldView>& known);
  void show_string(const Counter& counter);
  void show_field(const Counter& counter, Version version, SiteIndex site);
  void cut_counted_fields();

  // flush.cpp
  void flush_string();
  void flush_collection();
  void flush_fields();

  void settle();
  void note_deadline(std::int64_t deadline);

  Keyspace& keyspace_;
  Shard& shard_;
  const backend::Row& row_;
  const std::uint64_t hash_;
  const SiteIndex site_;
  const Version stable_;
  Version at_version_;
  SiteIndex at_site_;
  FoldResult result_;
  Node** link_ = nullptr;
  State before_;
};

}  // namespace isthmus
