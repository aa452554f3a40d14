// The backend `memory:`: a log that keeps nothing.
#include "backend/memory_log.hpp"

#include "backend/random_id.hpp"

namespace isthmus::backend {
namespace {

class MemoryLog final : public Log {
 public:
  bool durable() const override { return false; }
  SiteId site() const override { return site_; }
  void load(LoadSink& /*sink*/) override {}
  void append(const RowBatch& /*batch*/) override {}
  void write_checkpoint(const CheckpointChunk& /*chunk*/) override {}
  bool forget_flushed(std::uint8_t /*db*/, Version /*version*/, SiteId /*site*/) override { return false; }
  void put_mark(const CheckpointMark& /*mark*/) override {}
  bool cut() override { return false; }
  std::uint64_t disk_bytes() const override { return 0; }
  std::string description() const override { return "memory:"; }

 private:
  SiteId site_ = random_id();
};

}  // namespace

std::unique_ptr<Log> make_memory_log() { return std::make_unique<MemoryLog>(); }

}  // namespace isthmus::backend
