// The tables of an Isthmus database in SQLite.
#pragma once

#include <cstdint>
#include <string>

namespace isthmus::backend {

/// 'Isth' in ASCII: the application id in the header of every database of ours.
inline constexpr std::uint32_t kApplicationId = 0x49737468;
/// The version of the tables below. A server opens no database with a higher one.
inline constexpr std::uint32_t kSchemaVersion = 2;

/// The statements that make an empty database ours, all but the row of the table `site`.
std::string schema_sql();

/// The statements that bring a database of an older version to this one, but for the row of the table
/// `schema_version`. To be run in a transaction.
std::string migration_sql();

}  // namespace isthmus::backend
