#include "src/site/reseed.hpp"

namespace isthmus {
namespace {

constexpr std::size_t kRowsATransaction = 10'000;

}  // namespace

void append_seeds(backend::SharedLog& log, const backend::RowBatch& rows, backend::OriginId origin,
                  backend::Seq last) {
  backend::RowBatch transaction;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    backend::Row row = rows[i];
    if (row.site == 0) row.site = log.site();
    row.copied = true;
    row.origin = origin;
    row.seq = ++last;
    transaction.append(row);
    if (!row.group_end || transaction.size() < kRowsATransaction) continue;
    log.append(transaction, {});
    transaction.clear();
  }
  if (!transaction.empty()) log.append(transaction, {});
}

}  // namespace isthmus
