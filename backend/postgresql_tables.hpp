// The statements that make the schema `isthmus`.
#pragma once

#include <string>

namespace isthmus::backend {

/// Tables, indexes, publication; what `\d+` and `\dt+` show of them.
std::string postgresql_tables_sql();
/// Brings the tables and publications of version 1 to those of today, and keeps what is in them.
std::string postgresql_migration_sql();
/// What SQL clients use: the view `isthmus.current` and the functions that write into the inbox. May be run
/// again over an older version of itself.
std::string postgresql_sql_interface();

}  // namespace isthmus::backend
