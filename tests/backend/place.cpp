// A durable backend under test: where it keeps its state, whichever kind it is.
#include "tests/backend/place.hpp"

#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

void insert_once(Model::State& state, const Model::State::value_type& shown) {
  EXPECT_TRUE(state.insert(shown).second) << "the view shows a value twice";
}

class SqlitePlace final : public Place {
 public:
  std::unique_ptr<Log> open() const override { return open_log(folder_.url()); }
  Recorder load() const override { return test::load(folder_.url()); }
  void load_into(LoadSink& sink) const override { open()->load(sink); }
  std::int64_t count(const std::string& table) const override {
    return query_integer(folder_.path(), "SELECT count(*) FROM " + table);
  }
  Model::State current() const override {
    const Connection connection(folder_.path(), Connection::Mode::existing);
    Statement row = connection.prepare("SELECT db, key, type, field, value, expire_at FROM current");
    Model::State state;
    while (row.step()) {
      std::optional<std::int64_t> expire_at;
      if (!row.is_null(5)) expire_at = row.integer(5);
      insert_once(state, {{static_cast<int>(row.integer(0)), std::string(row.bytes(1)),
                           std::string(row.bytes(2)), std::string(row.bytes(3))},
                          {std::string(row.bytes(4)), expire_at}});
    }
    return state;
  }

 private:
  TempFolder folder_;
};

class PostgresqlPlace final : public Place {
 public:
  std::unique_ptr<Log> open() const override { return open_connected(database_.url()); }
  Recorder load() const override { return database_.load(); }
  void load_into(LoadSink& sink) const override {
    PgConnection connection(database_.url());
    FeedReads(connection).read_state(sink);
  }
  std::int64_t count(const std::string& table) const override {
    return database_.integer("SELECT count(*) FROM isthmus." + table);
  }
  Model::State current() const override {
    PgConnection connection(database_.url());
    const PgResult rows = connection.exec(
        "SELECT db, key_bytes, type, field_bytes, value_bytes, (extract(epoch FROM expire_at) * "
        "1000)::bigint "
        "FROM isthmus.current",
        PgParams());
    Model::State state;
    for (int i = 0; i < rows.rows(); ++i) {
      std::optional<std::int64_t> expire_at;
      if (!rows.is_null(i, 5)) expire_at = rows.integer(i, 5);
      insert_once(state, {{static_cast<int>(rows.integer(i, 0)), rows.string(i, 1), rows.string(i, 2),
                           rows.string(i, 3)},
                          {rows.string(i, 4), expire_at}});
    }
    return state;
  }

 private:
  TestDatabase database_;
};

}  // namespace

std::unique_ptr<Place> make_place(const std::string& kind) {
  if (kind == "Sqlite") return std::make_unique<SqlitePlace>();
  return std::make_unique<PostgresqlPlace>();
}

}  // namespace isthmus::backend::test
