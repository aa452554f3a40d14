// What a role or a database says of its sessions, and which of it ours override.
#include <string>

#include <gtest/gtest.h>

#include "backend/postgresql_connection.hpp"
#include "tests/backend/postgresql_support.hpp"

namespace isthmus::backend::test {
namespace {

/// A role of the shared cluster that may log in, gone with the object.
class TestRole {
 public:
  explicit TestRole(std::string name) : name_(std::move(name)) {
    shared_cluster().sql("DROP ROLE IF EXISTS " + name_ + "; CREATE ROLE " + name_ + " LOGIN");
  }
  ~TestRole() {
    try {
      shared_cluster().sql("DROP ROLE " + name_);
    } catch (const std::exception& error) {
      ADD_FAILURE() << error.what();
    }
  }
  TestRole(const TestRole&) = delete;
  TestRole& operator=(const TestRole&) = delete;

  std::string url() const { return shared_cluster().url("postgres", name_); }
  /// From now on its sessions begin with this.
  void set(const std::string& setting) const {
    shared_cluster().sql("ALTER ROLE " + name_ + " SET " + setting);
  }

 private:
  std::string name_;
};

std::string shown(const std::string& url, const std::string& setting) {
  return PgConnection(url).exec("SHOW " + setting).string(0, 0);
}

// For which standbys a commit waits is its business.
TEST(PostgresqlSettingsTest, WaitsForTheDiskWhateverTheRoleSays) {
  const TestRole role("hasty");
  for (const std::string chosen : {"off", "local", "remote_write", "on", "remote_apply"}) {
    role.set("synchronous_commit = " + chosen);
    EXPECT_EQ(shown(role.url(), "synchronous_commit"), chosen == "off" ? "on" : chosen);
  }
}

TEST(PostgresqlSettingsTest, WaitsForTheDiskWhateverTheDatabaseSays) {
  const TestDatabase database;
  database.sql("ALTER DATABASE " + database.name() + " SET synchronous_commit = off");
  ASSERT_EQ(database.value("SHOW synchronous_commit"), "off") << "of others' sessions";
  EXPECT_EQ(shown(database.url(), "synchronous_commit"), "on");
}

TEST(PostgresqlSettingsTest, HasNoLimitOfTheRoleForTransactions) {
  constexpr int kFirstWithTheLimit = 170000;
  if (PgConnection(shared_cluster().url()).server_version() < kFirstWithTheLimit)
    GTEST_SKIP() << "PostgreSQL has it since version 17";
  const TestRole role("brief");
  role.set("transaction_timeout = '100ms'");
  PgConnection connection(role.url());
  EXPECT_EQ(connection.exec("SHOW transaction_timeout").string(0, 0), "0");
  EXPECT_NO_THROW(connection.exec("SELECT pg_sleep(0.3)"));
}

}  // namespace
}  // namespace isthmus::backend::test
