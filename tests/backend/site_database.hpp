// A site for tests of links: a cluster with an Isthmus schema in it, and this site's side of its links.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "backend/links.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {

/// The longest that anything of links may take.
inline constexpr std::chrono::seconds kLinkPatience{30};

/// Whether the condition becomes true in time.
inline testing::AssertionResult becomes(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kLinkPatience;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline)
      return testing::AssertionFailure() << "not in " << kLinkPatience.count() << " s";
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  return testing::AssertionSuccess();
}

/// The words of the LinkError that `body` throws, or "nothing".
inline std::string failure(const std::function<void()>& body) {
  try {
    body();
  } catch (const LinkError& error) {
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  return "nothing";
}

/// A site: a cluster with an Isthmus in it, and this site's side of its links.
class SiteDatabase {
 public:
  explicit SiteDatabase(const isthmus::test::PostgresCluster::Settings& more = {})
      : cluster_([&] {
          isthmus::test::PostgresCluster::Settings settings = {
              {"max_replication_slots", "20"},           {"max_wal_senders", "20"},
              {"max_logical_replication_workers", "10"}, {"max_worker_processes", "20"},
              {"max_slot_wal_keep_size", "1GB"},         {"wal_retrieve_retry_interval", "200ms"}};
          for (const auto& [name, value] : more) settings[name] = value;
          return settings;
        }()) {
    log = open_connected(cluster_.url());
    shared().open_feed()->begin();  // makes the permanent slot
    links = shared().open_links();
    write({lease_row(lease, 17, "here:1")});
  }
  SharedLog& shared() const { return *log->shared(); }
  SiteId site() const { return log->site(); }
  std::string url() const { return cluster_.url(); }
  PeerRow as_peer() const {
    PeerRow peer;
    peer.name = "site" + std::to_string(site());
    peer.id = site();
    peer.conninfo = url();
    return peer;
  }
  /// Commits rows as they are, but for their site if they have none of their own.
  void write(std::vector<Row> rows) {
    for (Row& row : rows) {
      if (row.site == kSite) row.site = site();
    }
    log->append(make_batch(rows));
  }
  /// Commits `count` rows of the lease behind those that are there.
  void write_sets(int count) {
    RowBatch batch;
    for (int i = 0; i < count; ++i) {
      Row row = make_row(++seq, RowKind::set, "key", "", "value");
      row.origin = lease;
      row.site = site();
      batch.append(row);
    }
    log->append(batch);
  }
  std::int64_t integer(const std::string& sql) const { return std::stoll(cluster_.value(sql)); }
  /// How many rows of `other` are here.
  std::int64_t rows_of(const SiteDatabase& other) const {
    return integer("SELECT count(*) FROM isthmus.log WHERE site = " + std::to_string(other.site()));
  }
  isthmus::test::PostgresCluster& cluster() { return cluster_; }

  static constexpr OriginId kFirstLease = 500;
  std::unique_ptr<Log> log;
  std::unique_ptr<Links> links;
  OriginId lease = next_lease++;
  Seq seq = 1;

 private:
  static inline OriginId next_lease = kFirstLease;
  isthmus::test::PostgresCluster cluster_;
};

/// From now on the rows of `from` come to `to`. Returns the slot.
inline std::string link(const SiteDatabase& from, const SiteDatabase& to) {
  const std::string slot = to.links->connect(from.url())->create_slot();
  to.links->create_subscription(from.as_peer(), slot);
  return slot;
}

/// Keeps the rows that a peer hands out, as a batch to append.
struct Copier : LoadSink {
  void key(const StoredKey& stored) override { keys.push_back(stored.key); }
  void field(const StoredField& /*stored*/) override { ++fields; }
  void row(const Row& row) override {
    Row copy = row;
    copy.copied = true;
    batch.append(copy);
  }
  void flushed(const StoredFlush& /*flush*/) override { ++flushes; }
  RowBatch batch;
  std::vector<std::string> keys;
  int fields = 0, flushes = 0;
};

}  // namespace isthmus::backend::test
