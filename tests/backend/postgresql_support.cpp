#include "tests/backend/postgresql_support.hpp"

#include <algorithm>
#include <tuple>

#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "backend/postgresql_feed_reads.hpp"

namespace isthmus::backend::test {

isthmus::test::PostgresCluster& shared_cluster() {
  static isthmus::test::PostgresCluster cluster;
  return cluster;
}

TestDatabase::~TestDatabase() {
  try {
    shared_cluster().sql("DROP DATABASE IF EXISTS " + name_ + " WITH (FORCE)");
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
}

Recorder TestDatabase::load() const {
  PgConnection connection(url());
  FeedReads reads(connection);
  Recorder recorder;
  reads.read_state(recorder);
  std::sort(recorder.keys.begin(), recorder.keys.end(), [](const StoredKey& a, const StoredKey& b) {
    return std::tie(a.db, a.key) < std::tie(b.db, b.key);
  });
  std::sort(recorder.fields.begin(), recorder.fields.end(), [](const StoredField& a, const StoredField& b) {
    return std::tie(a.db, a.key, a.field) < std::tie(b.db, b.key, b.field);
  });
  return recorder;
}

std::unique_ptr<Log> open_shared(const std::string& url, std::chrono::seconds retention) {
  BackendOptions options;
  options.log_retention = retention;
  return open_log(url, options);
}

std::unique_ptr<Log> open_connected(const std::string& url, std::chrono::seconds retention) {
  std::unique_ptr<Log> log = open_shared(url, retention);
  std::string why;
  EXPECT_TRUE(log->shared()->connect(why)) << why;
  return log;
}

Row lease_row(OriginId lease, OriginId server, std::string_view address) {
  Row row = make_row(1, RowKind::lease, address, "", "0:0");
  row.origin = lease;
  row.requester = server;
  return row;
}

}  // namespace isthmus::backend::test
