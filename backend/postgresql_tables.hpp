// The statements that make the schema `isthmus`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace isthmus::backend {

/// Tables, indexes, publication; what `\d+` and `\dt+` show of them.
std::string postgresql_tables_sql();
/// Brings the tables and publications of an older version to those of today, and keeps what is in them.
std::string postgresql_migration_sql(std::int64_t from_version);
/// What SQL clients use: the views `isthmus.current`, `isthmus.changes` and `isthmus.messages` and the
/// functions that write into the inbox. May be run again over an older version of itself.
std::string postgresql_sql_interface();

/// Puts `with` in the place of every `what`.
void replace_all(std::string& text, std::string_view what, std::string_view with);

}  // namespace isthmus::backend
