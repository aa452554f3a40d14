// The function by which a role that is no superuser subscribes before PostgreSQL 16, after a restore.
#include <memory>
#include <sstream>
#include <stdexcept>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "backend/postgresql_admin_sql.hpp"
#include "backend/postgresql_links.hpp"
#include "tests/backend/site_database.hpp"

namespace isthmus::backend::test {
namespace {

using isthmus::test::PostgresCluster;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

/// What psql makes of the script with the variable `role`.
std::string script_for(const std::string& role) {
  std::string sql;
  std::istringstream lines{std::string(postgresql_admin_sql())};
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("\\")) continue;
    constexpr std::string_view kVariable = ":\"role\"";
    if (const std::size_t at = line.find(kVariable); at != std::string::npos)
      line.replace(at, kVariable.size(), role);
    sql += line + "\n";
  }
  return sql;
}

std::string refusal(PostgresCluster& cluster, const std::string& sql, const std::string& role) {
  try {
    cluster.sql(sql, "postgres", role);
  } catch (const std::runtime_error& error) {
    return error.what();
  }
  return "";
}

// A dump does not keep the owner where it is restored by somebody who may not give things away.
TEST(PostgresqlAdminTest, TheFunctionIsMendedAfterARestoreByTheRole) {
  SiteDatabase site;
  PostgresCluster& cluster = site.cluster();
  if (site.integer("SHOW server_version_num") >= 160000) GTEST_SKIP() << "roles may subscribe by themselves";
  // Owns what postgres owns, and is no superuser.
  cluster.sql("CREATE ROLE linker LOGIN REPLICATION PASSWORD 'secret'; GRANT postgres TO linker");
  const std::unique_ptr<Links> links = open_postgresql_links(cluster.url("postgres", "linker"), site.site());
  cluster.sql(script_for("linker"));
  EXPECT_THAT(links->check(), IsEmpty());
  cluster.sql(
      "ALTER SCHEMA isthmus_admin OWNER TO linker; ALTER FUNCTION "
      "isthmus_admin.create_subscription(text, text, text) OWNER TO linker");
  EXPECT_THAT(links->check(), ElementsAre(HasSubstr("isthmus --print-admin-sql | psql")));
  cluster.sql(script_for("linker"));
  EXPECT_THAT(links->check(), IsEmpty());
  EXPECT_EQ(
      cluster.value("SELECT nspowner::regrole || ' ' || proowner::regrole FROM pg_proc JOIN pg_namespace "
                    "ON pronamespace = pg_namespace.oid WHERE nspname = 'isthmus_admin'"),
      "postgres postgres");
}

TEST(PostgresqlAdminTest, OnlyASuperuserCanInstallTheFunction) {
  PostgresCluster cluster;
  cluster.sql("CREATE ROLE linker LOGIN; GRANT CREATE ON DATABASE postgres TO linker");
  EXPECT_THAT(refusal(cluster, script_for("linker"), "linker"), HasSubstr("a superuser must run this"));
  EXPECT_EQ(cluster.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'isthmus_admin'"), "0");
}

}  // namespace
}  // namespace isthmus::backend::test
