// Appends few rows of SQL to the log by a prepared INSERT. A COPY has a round trip of its own to begin and is
// planned anew each time; that is worth it from some rows on only. What is committed at a time without
// pipelining is mostly one row (row_pack.hpp).
#pragma once

#include <array>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "backend/postgresql_connection.hpp"

namespace isthmus::backend {

/// The statements that a session has prepared. Used by the session's thread.
class RowInserter {
 public:
  static constexpr std::size_t kMostRows = 3;

  /// The session is a new one: nothing is prepared.
  void forget();
  /// Inserts the rows, `count` of them as `append_copy_row` encodes them, in one transaction. Throws PgError.
  void run(PgConnection& session, const std::string& table, std::string_view rows, std::size_t count);

 private:
  void prepare(PgConnection& session, const std::string& table, std::size_t count);
  void take_apart(std::string_view rows);

  std::string table_;
  std::array<bool, kMostRows + 1> prepared_{};
  std::vector<const char*> values_;
  std::vector<int> lengths_;
};

}  // namespace isthmus::backend
