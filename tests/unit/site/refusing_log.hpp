// A log in memory that takes rows or refuses them, as a test says.
#pragma once

#include <atomic>
#include <string>

#include "backend/log.hpp"

namespace isthmus {

/// Durable, so that effects wait for their commit; keeps nothing. Refuses all rows until it is told
/// otherwise.
class RefusingLog final : public backend::Log {
 public:
  std::atomic<bool> refuses{true};

  bool durable() const override { return true; }
  backend::SiteId site() const override { return 1; }
  void load(backend::LoadSink&) override {}
  void append(const backend::RowBatch&) override {
    if (refuses) throw backend::AppendError(backend::AppendError::Kind::unavailable, "the disk is full");
  }
  void write_checkpoint(const backend::CheckpointChunk&) override {}
  bool forget_flushed(std::uint8_t, backend::Version, backend::SiteId) override { return false; }
  void put_mark(const backend::CheckpointMark&) override {}
  bool cut() override { return false; }
  std::uint64_t disk_bytes() const override { return 0; }
  std::string description() const override { return "refusing"; }
};

}  // namespace isthmus
