#include "backend/postgresql_insert.hpp"

#include <cstdint>

#include "backend/big_endian.hpp"
#include "backend/postgresql_copy.hpp"

namespace isthmus::backend {
namespace {

std::string statement_name(std::size_t count) { return "rows_" + std::to_string(count); }

}  // namespace

void RowInserter::forget() {
  table_.clear();
  prepared_.fill(false);
}

void RowInserter::prepare(PgConnection& session, const std::string& table, std::size_t count) {
  if (table_ != table) {
    // Those for another partition.
    session.exec("DEALLOCATE ALL");
    forget();
    table_ = table;
  }
  if (prepared_.at(count)) return;
  std::string sql = "INSERT INTO " + table + " (" + kLogColumns + ") VALUES ";
  for (std::size_t parameter = 1; parameter <= count * kLogColumnCount; ++parameter) {
    const std::size_t column = (parameter - 1) % kLogColumnCount;
    sql += (column != 0 ? ",$" : parameter == 1 ? "($" : ",($") + std::to_string(parameter);
    if (column + 1 == kLogColumnCount) sql += ')';
  }
  session.prepare(statement_name(count), sql);
  prepared_.at(count) = true;
}

// In COPY's format each row is the number of its columns, and each column its length and its bytes, the
// length of NULL being -1. The bytes are those that a parameter has.
void RowInserter::take_apart(std::string_view rows) {
  values_.clear();
  lengths_.clear();
  for (std::size_t at = 0; at < rows.size();) {
    at += sizeof(std::uint16_t);
    for (std::size_t column = 0; column < kLogColumnCount; ++column) {
      const auto length = static_cast<std::int32_t>(load_big_endian<std::uint32_t>(&rows[at]));
      at += sizeof length;
      values_.push_back(length < 0 ? nullptr : rows.data() + at);
      lengths_.push_back(length < 0 ? 0 : length);
      if (length > 0) at += static_cast<std::size_t>(length);
    }
  }
}

void RowInserter::run(PgConnection& session, const std::string& table, std::string_view rows,
                      std::size_t count) {
  prepare(session, table, count);
  take_apart(rows);
  session.exec_prepared(statement_name(count), values_, lengths_);
}

}  // namespace isthmus::backend
