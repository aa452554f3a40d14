// How rows and checkpoint entries look in SQLite, and how the database is read into a server.
#pragma once

#include <string_view>

#include "backend/log.hpp"
#include "backend/sqlite_connection.hpp"

namespace isthmus::backend {

/// The name of a type in the column `entry.type`.
std::string_view stored_type_name(StoredType type);

/// The columns that read_stored_key() reads, in its order.
inline constexpr std::string_view kSelectKeysSql =
    "SELECT db, key, type, version, site, cut_version, cut_site, expire_at, expire_version, expire_site, "
    "value FROM entry";

/// Reads the row at which a statement that begins with kSelectKeysSql stands. Throws SqliteError for an
/// unknown type.
void read_stored_key(const Statement& statement, StoredKey& key);

/// Folds what the checkpoint has into `key`: of each register (type and value, deletion, deadline) the higher
/// (version, site) stays. A stored value that is older than the deletion gives way whatever its version.
void merge_stored_key(StoredKey& key, const StoredKey& stored);

/// Reads all of a database: the checkpoint, without values and fields that a deletion or another type has
/// superseded, then the rows of the log behind the checkpoint's progress, repeats left out. Throws
/// SqliteError, and lets the sink's own exceptions through.
void load_database(const Connection& connection, LoadSink& sink);

}  // namespace isthmus::backend
