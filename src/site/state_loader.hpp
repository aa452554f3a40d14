// Puts the state that a shared log holds into a keyspace.
#pragma once

#include <algorithm>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/reach.hpp"

namespace isthmus {

/// Fills a keyspace that nobody else sees, and remembers how far it goes. While it lives, nothing of linked
/// sites is forgotten: rows of different origins come in an order in which no stream brings them, a deletion
/// before the write that it ended.
class StateLoader final : public backend::LoadSink {
 public:
  StateLoader(Keyspace& keyspace, HybridClock& clock, Reach& reach)
      : keyspace_(keyspace), clock_(clock), reach_(reach), stable_(keyspace.stable()) {
    if (keyspace.linked()) keyspace.set_stable(0);
  }
  ~StateLoader() override { keyspace_.set_stable(stable_); }
  StateLoader(const StateLoader&) = delete;
  StateLoader& operator=(const StateLoader&) = delete;
  void covered(backend::OriginId origin, backend::Seq seq, backend::SiteId site) override {
    reach_.covered(origin, site, seq);
  }
  void flushed(const backend::StoredFlush& flush) override { keyspace_.restore(flush); }
  void frontier(const backend::StoredFrontier& frontier) override {
    reach_.restore(frontier);
    if (frontier.site == keyspace_.site_id(0) && frontier.of == frontier.site)
      clock_.observe(frontier.version);
  }
  void key(const backend::StoredKey& key) override {
    observe(key.version, key.site);
    observe(key.cut_version, key.cut_site);
    observe(key.expire_version, key.expire_site);
    keyspace_.restore(key);
    ++keys_;
  }
  void field(const backend::StoredField& field) override {
    observe(field.version, field.site);
    keyspace_.restore(field);
    ++fields_;
  }
  void row(const backend::Row& row) override {
    reach_.take(row);
    reach_.end_group();
    ++rows_;
    if (backend::is_state(row.kind)) {
      observe(row.version, row.site);
      keyspace_.fold(row, hash_name(row.key), keyspace_.site_index(row.site));
    } else if (row.site == keyspace_.site_id(0)) {
      clock_.observe(row.version);
    }
  }
  std::uint64_t keys() const { return keys_; }
  std::uint64_t fields() const { return fields_; }
  std::uint64_t rows() const { return rows_; }

 private:
  // Never back behind what this site has given; and not after a wild clock of another one, on top of whose
  // versions this site may have written as well. How far the own clock was, the own frontiers tell.
  void observe(backend::Version version, backend::SiteId site) {
    if (site == keyspace_.site_id(0) && !keyspace_.linked()) {
      clock_.observe(version);
    } else {
      clock_.observe_foreign(version, wall_clock_ms());
    }
  }

  Keyspace& keyspace_;
  HybridClock& clock_;
  Reach& reach_;
  const backend::Version stable_;
  std::uint64_t keys_ = 0, fields_ = 0, rows_ = 0;
};

}  // namespace isthmus
