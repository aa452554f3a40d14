// Puts the state that a shared log holds into a keyspace.
#pragma once

#include <algorithm>

#include "backend/shared_log.hpp"
#include "src/keyspace/clock.hpp"
#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// Fills a keyspace that nobody else sees, and remembers how far it goes.
class StateLoader final : public backend::LoadSink {
 public:
  StateLoader(Keyspace& keyspace, HybridClock& clock, backend::Vector& seen)
      : keyspace_(keyspace), clock_(clock), seen_(seen) {}
  void covered(backend::OriginId origin, backend::Seq seq, backend::SiteId /*site*/) override {
    seen_[origin] = std::max(seen_[origin], seq);
  }
  void key(const backend::StoredKey& key) override {
    clock_.observe(std::max({key.version, key.cut_version, key.expire_version}));
    keyspace_.restore(key);
    ++keys_;
  }
  void field(const backend::StoredField& field) override {
    clock_.observe(field.version);
    keyspace_.restore(field);
    ++fields_;
  }
  void row(const backend::Row& row) override {
    covered(row.origin, row.seq, row.site);
    ++rows_;
    clock_.observe(row.version);
    if (backend::is_state(row.kind)) {
      keyspace_.fold(row, hash_name(row.key), keyspace_.site_index(row.site));
    }
  }
  std::uint64_t keys() const { return keys_; }
  std::uint64_t fields() const { return fields_; }
  std::uint64_t rows() const { return rows_; }

 private:
  Keyspace& keyspace_;
  HybridClock& clock_;
  backend::Vector& seen_;
  std::uint64_t keys_ = 0, fields_ = 0, rows_ = 0;
};

}  // namespace isthmus
