// INCR and its kin between linked sites: rows that say what was counted on and how much this site has added.
// See MERGE.md, "Counters".
#include <string>

#include "src/command/call.hpp"

namespace isthmus {

using backend::Row;
using backend::RowKind;

namespace {

// So many leases may count on one base; the next one writes the sum as a plain value.
constexpr std::size_t kMaxTotals = 256;

}  // namespace

/// What is counted on.
struct Evaluation::Base {
  Point at;
  bool is_mark = false;  ///< nothing was there, as of everything up to at.version
  std::string value;     ///< empty: none
};

Evaluation::Base Evaluation::base_of(const Counter* counter, const Point& written,
                                     std::string_view value) const {
  if (counter == nullptr) return {written, false, std::string(value)};
  if (counter->base) return {written, false, *counter->base};
  const Point highest = counter->highest_base();
  return {highest, highest.site == kEverySite, {}};
}

Evaluation::Base Evaluation::base_of_nothing(const Point& deleted, std::uint8_t db) const {
  const Point at = std::max(deleted, services_.keyspace.flushed(db));
  if (at.site == kEverySite) return {at, true, {}};
  if (at.version != 0) return {at, false, {}};
  return {{services_.keyspace.stable(), kEverySite}, true, {}};
}

// Whatever is left of a key that is not there for a client: nothing of it can come back.
void Evaluation::delete_remains(const Key& key) {
  const Node* const node = services_.keyspace.find_any(key);
  if (has_content(*node)) {
    delete_expired(key);
    return;
  }
  Row row;
  row.kind = RowKind::del;
  emit(row, key);
}

// A key that is not there becomes a string that is counted on. Where a string has expired there is no
// deletion: sites that find the same expired string count on the same base.
Evaluation::Base Evaluation::make_counted_string(const Key& key) {
  Keyspace& keyspace = services_.keyspace;
  const auto point = [&](Version version, SiteIndex site) {
    return version == 0 ? Point{} : Point{version, keyspace.site_id(site)};
  };
  const auto expired_at = [&](const Node& node) {
    const Registers registers = node.registers();
    return std::max(point(node.version, node.site), point(registers.expire_version, registers.expire_site));
  };
  const Node* node = keyspace.find_any(key);
  const Counter* const counter = keyspace.counter(key);
  const bool unclear =
      node != nullptr &&
      (node->has_fields() || (counter != nullptr && counter->highest_base() > expired_at(*node)));
  if (unclear) delete_remains(key);
  node = keyspace.find_any(key);
  Point deleted;
  if (node != nullptr)
    deleted = node->type == NodeType::string ? expired_at(*node) : point(node->version, node->site);
  const Base base = base_of_nothing(deleted, key.db);
  const bool expired = node != nullptr && has_content(*node);
  const bool told = expired && node->told;
  Row row;
  row.kind = RowKind::expire;
  emit(row, key);
  if (expired) group_.add_event(key.db, key.name, "expired");
  if (expired && !told) {
    services_.stats.expired_keys.fetch_add(1, std::memory_order_relaxed);
    raise(kEventExpired, "expired", key);
  }
  return base;
}

Evaluation::Base Evaluation::make_counted_hash(const Key& key) {
  Keyspace& keyspace = services_.keyspace;
  const Node* node = keyspace.find_any(key);
  if (node != nullptr && node->type != NodeType::none) delete_remains(key);
  node = keyspace.find_any(key);
  Point deleted;
  if (node != nullptr && node->version != 0) deleted = {node->version, keyspace.site_id(node->site)};
  const Base base = base_of_nothing(deleted, key.db);
  Row row;
  row.kind = RowKind::expire;
  emit(row, key);
  return base;
}

bool Evaluation::emit_count(RowKind kind, const Key& key, std::string_view field, const Base& base,
                            const Counter* counter, std::int64_t by) {
  const backend::OriginId lease = group_.lease();
  std::int64_t total = 0;
  if (counter != nullptr) {
    const auto known = counter->totals.find(lease);
    if (known != counter->totals.end()) total = known->second.total;
    if (known == counter->totals.end() && counter->totals.size() >= kMaxTotals) return false;
  }
  if (__builtin_add_overflow(total, by, &total)) return false;
  Row row;
  row.kind = kind;
  row.field = field;
  row.value = base.value;
  row.count = {base.at.version, base.is_mark ? 0 : base.at.site, lease, total};
  emit(row, key);
  return true;
}

bool Evaluation::count(const Key& key, std::int64_t by) {
  Keyspace& keyspace = services_.keyspace;
  if (const Node* const node = keyspace.find(key, now_ms_)) {
    const Counter* const counter = keyspace.counter(key);
    const Base base = base_of(counter, {node->version, keyspace.site_id(node->site)}, node->value());
    return emit_count(RowKind::incr, key, {}, base, counter, by);
  }
  return emit_count(RowKind::incr, key, {}, make_counted_string(key), nullptr, by);
}

bool Evaluation::count_field(const Key& key, std::string_view field, std::int64_t by) {
  Keyspace& keyspace = services_.keyspace;
  const Node* const node = keyspace.find(key, now_ms_);
  if (node == nullptr) {
    return emit_count(RowKind::hincr, key, field, make_counted_hash(key), nullptr, by);
  }
  const std::optional<FieldView> known = hash_find_any(*node, field);
  const Point written =
      known && known->version != 0 ? Point{known->version, keyspace.site_id(known->site)} : Point{};
  if (known && !known->deleted) {
    const Counter* const counter = keyspace.counter(key, field);
    return emit_count(RowKind::hincr, key, field, base_of(counter, written, known->value), counter, by);
  }
  const Registers registers = node->registers();
  Point deleted = written;
  if (registers.cut_version != 0)
    deleted = std::max(deleted, Point{registers.cut_version, keyspace.site_id(registers.cut_site)});
  return emit_count(RowKind::hincr, key, field, base_of_nothing(deleted, key.db), nullptr, by);
}

void Call::count(const Key& k, std::int64_t by, std::int64_t sum, bool exists) {
  if (services.keyspace.linked() && evaluation_.count(k, by)) {
    if (!exists) notify(kEventNew, "new", k);
  } else if (exists) {
    update(k, std::to_string(sum));
  } else {
    set(k, std::to_string(sum));
  }
}

void Call::hcount(const Key& k, std::string_view field, std::int64_t by, std::int64_t sum, bool creates) {
  if (services.keyspace.linked() && evaluation_.count_field(k, field, by)) {
    if (creates) notify(kEventNew, "new", k);
  } else {
    hset(k, field, std::to_string(sum), creates);
  }
}

}  // namespace isthmus
