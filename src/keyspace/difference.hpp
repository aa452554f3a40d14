// What one keyspace has and another lacks, as rows of the log.
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

/// Calls `emit` for rows that bring `theirs` to the state of `mine`, when folded in their order: values,
/// fields and deadlines that `mine` has newer, with the versions that they have there; and, for what `theirs`
/// has and `mine` does not, deletions with a version of `next_version`. `mine` must have seen all that made
/// `theirs`: what it lacks was deleted. Rows come key by key, `group_end` on the last one of each key; site,
/// origin and seq are not set. Views live during the call. Locks one shard of `mine` at a time; nobody else
/// may know `theirs`.
void for_each_difference(Keyspace& mine, Keyspace& theirs,
                         const std::function<backend::Version()>& next_version,
                         const std::function<void(const backend::Row&)>& emit);

}  // namespace isthmus
