#include "src/site/loader.hpp"

#include <chrono>

#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

class Loader final : public backend::LoadSink {
 public:
  Loader(Keyspace& keyspace, HybridClock& clock, Checkpointer& checkpointer)
      : keyspace_(keyspace), clock_(clock), checkpointer_(checkpointer) {}

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
    clock_.observe(row.version);
    keyspace_.fold(row, hash_name(row.key), keyspace_.site_index(row.site));
    checkpointer_.note(row);
    ++rows_;
  }

  std::uint64_t keys() const { return keys_; }
  std::uint64_t fields() const { return fields_; }
  std::uint64_t rows() const { return rows_; }

 private:
  Keyspace& keyspace_;
  HybridClock& clock_;
  Checkpointer& checkpointer_;
  std::uint64_t keys_ = 0, fields_ = 0, rows_ = 0;
};

}  // namespace

void load(backend::Log& log, Keyspace& keyspace, HybridClock& clock, Checkpointer& checkpointer) {
  if (!log.durable()) return;
  const auto begin = std::chrono::steady_clock::now();
  Loader loader(keyspace, clock, checkpointer);
  log.load(loader);
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begin).count();
  log_info("State loaded", {{"keys", loader.keys()},
                            {"fields", loader.fields()},
                            {"log_rows", loader.rows()},
                            {"took_ms", took},
                            {"backend", log.description()}});
}

}  // namespace isthmus
