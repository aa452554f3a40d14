// Puts the state that a shared log holds into a keyspace.
#pragma once

#include <algorithm>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"
#include "src/site/reach.hpp"

namespace isthmus {

/// Fills a keyspace that nobody else sees, and remembers how far it goes.
class StateLoader final : public backend::LoadSink {
 public:
  StateLoader(Keyspace& keyspace, HybridClock& clock, Reach& reach)
      : keyspace_(keyspace), clock_(clock), reach_(reach) {}
  void covered(backend::OriginId origin, backend::Seq seq, backend::SiteId site) override {
    reach_.covered(origin, site, seq);
  }
  void flushed(const backend::StoredFlush& flush) override { keyspace_.restore(flush); }
  void frontier(const backend::StoredFrontier& frontier) override { reach_.restore(frontier); }
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
    observe(row.version, row.site);
    if (backend::is_state(row.kind)) {
      keyspace_.fold(row, hash_name(row.key), keyspace_.site_index(row.site));
    }
  }
  std::uint64_t keys() const { return keys_; }
  std::uint64_t fields() const { return fields_; }
  std::uint64_t rows() const { return rows_; }

 private:
  // Never back behind what this site has given; and not after a wild clock of another one.
  void observe(backend::Version version, backend::SiteId site) {
    if (site == keyspace_.site_id(0)) {
      clock_.observe(version);
    } else {
      clock_.observe_foreign(version, wall_clock_ms());
    }
  }

  Keyspace& keyspace_;
  HybridClock& clock_;
  Reach& reach_;
  std::uint64_t keys_ = 0, fields_ = 0, rows_ = 0;
};

}  // namespace isthmus
