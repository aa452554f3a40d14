// What a keyspace holds, and what one has that another lacks, as rows of the log.
#pragma once

#include <functional>

#include "backend/row.hpp"
#include "src/keyspace/keyspace.hpp"

namespace isthmus {

/// Calls `emit` for the rows that are the registers of a key, deleted or not: folded into a keyspace that
/// knows nothing of the key they make it what it is in this one, and any other one they bring up to it. Site
/// and version are those of each register, `copied` is set, `group_end` on the last one; origin and seq are
/// not set. Views live during the call. Needs the lock of the key's shard.
void copy_rows(Keyspace& keyspace, const Key& key, const std::function<void(const backend::Row&)>& emit);

/// The same for the flushes that are remembered, one row for each database that has one. Needs any shard's
/// lock.
void copy_flushes(const Keyspace& keyspace, const std::function<void(const backend::Row&)>& emit);

/// Calls `emit` for rows that bring `theirs` to the state of `mine`, when folded in their order: copied rows
/// of the registers in which the two differ; and, for what `theirs` has and `mine` does not, deletions with a
/// version of `next_version` and without a site (0). `mine` must have seen all that made `theirs`: what it
/// lacks was deleted. Rows come key by key, `group_end` on the last one of each key; origin and seq are not
/// set. Views live during the call. Locks one shard of `mine` at a time; nobody else may know `theirs`, which
/// has changed afterwards.
void for_each_difference(Keyspace& mine, Keyspace& theirs,
                         const std::function<backend::Version()>& next_version,
                         const std::function<void(const backend::Row&)>& emit);

}  // namespace isthmus
