#include "src/site/reseed.hpp"

#include "src/keyspace/difference.hpp"
#include "src/site/state_loader.hpp"

namespace isthmus {
namespace {

constexpr std::size_t kRowsATransaction = 10'000;

}  // namespace

std::uint64_t append_difference(backend::SharedLog& log, Keyspace& memory, HybridClock& clock,
                                backend::RowBatch& first) {
  Keyspace in_log;
  in_log.take_settings(memory);
  try {
    const std::unique_ptr<backend::Feed> feed = log.open_feed();
    feed->begin();
    backend::Vector seen;
    StateLoader loader(in_log, clock, seen);
    feed->read_state(loader);
  } catch (const backend::FeedError& error) {
    throw backend::AppendError(backend::AppendError::Kind::unavailable, error.what());
  }
  const backend::OriginId lease = first[0].origin;
  backend::RowBatch batch = std::move(first);
  backend::Seq seq = 1;
  // Batches are gathered first: nothing is appended while a shard is locked.
  std::vector<backend::RowBatch> batches;
  for_each_difference(
      memory, in_log, [&] { return clock.next(wall_clock_ms()); },
      [&](const backend::Row& difference) {
        backend::Row row = difference;
        row.site = log.site();
        row.origin = lease;
        row.seq = ++seq;
        batch.append(row);
        if (!row.group_end || batch.size() < kRowsATransaction) return;
        batches.push_back(std::move(batch));
        batch = {};
      });
  if (!batch.empty()) batches.push_back(std::move(batch));
  for (const backend::RowBatch& each : batches) log.append(each, {});
  return seq - 1;
}

}  // namespace isthmus
