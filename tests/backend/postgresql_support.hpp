// What the tests of the PostgreSQL backend share: one cluster for all of a process, and a database for each
// test.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backend/shared_log.hpp"
#include "tests/backend/support.hpp"
#include "tests/support/postgres_cluster.hpp"

namespace isthmus::backend::test {

/// A cluster that tests leave running and as they found it; their databases are their own.
isthmus::test::PostgresCluster& shared_cluster();

/// An empty database on the shared cluster, dropped at the end with the sessions on it.
class TestDatabase {
 public:
  TestDatabase() : name_(shared_cluster().create_database()) {}
  ~TestDatabase();
  TestDatabase(const TestDatabase&) = delete;
  TestDatabase& operator=(const TestDatabase&) = delete;

  const std::string& name() const { return name_; }
  std::string url(const std::string& role = "postgres") const { return shared_cluster().url(name_, role); }
  std::vector<std::string> sql(const std::string& statements) const {
    return shared_cluster().sql(statements, name_);
  }
  std::string value(const std::string& statement) const { return shared_cluster().value(statement, name_); }
  std::int64_t integer(const std::string& statement) const { return std::stoll(value(statement)); }
  /// All that the log holds, as a server would read it; keys and fields sorted.
  Recorder load() const;

 private:
  std::string name_;
};

/// A log on `url`, opened as a shared one.
std::unique_ptr<Log> open_shared(const std::string& url,
                                 std::chrono::seconds retention = std::chrono::seconds{600});

/// A log with its committing session connected. Fails the test if that cannot be.
std::unique_ptr<Log> open_connected(const std::string& url,
                                    std::chrono::seconds retention = std::chrono::seconds{600});

/// The row with which a server takes a lease.
Row lease_row(OriginId lease, OriginId server, std::string_view address);

/// What a feed tells of the origin of `make_row`.
struct Told : FeedSink {
  void row(const Row& row) override {
    if (row.origin != kOrigin) return;
    seqs.push_back(row.seq);
    keys.emplace_back(row.key);
    replies += row.reply.size();
  }
  void inbox(const InboxRow& /*row*/) override {}
  void reached(Position /*position*/) override {}
  std::vector<Seq> seqs;
  std::vector<std::string> keys;
  std::size_t replies = 0;
};

}  // namespace isthmus::backend::test
