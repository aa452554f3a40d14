// The password of the database and the secret of the site are in no log line and in no answer to a client.
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/client.hpp"
#include "tests/support/postgres_cluster.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr const char* kPassword = "hush-4711";

/// Servers that must show a password to a database; it stands in the URL of their --backend.
class Secrets : public testing::Test {
 protected:
  void SetUp() override {
    ISTHMUS_ONLY();
    cluster_ = std::make_unique<PostgresCluster>();
    cluster_->sql(std::string("CREATE ROLE keeper LOGIN REPLICATION PASSWORD '") + kPassword + "'");
    cluster_->sql("CREATE DATABASE site OWNER keeper");
    const std::string rules = cluster_->value("SELECT current_setting('hba_file')");
    cluster_->sql(
        "COPY (VALUES ('host all keeper 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust'), "
        "('local all all trust')) TO '" +
        rules + "'");
    cluster_->reload();
  }

  std::string url(const std::string& password) const {
    return "postgresql://keeper:" + password + "@127.0.0.1:" + std::to_string(cluster_->port()) + "/site";
  }
  ServerOptions options() const { return {.backend = url(kPassword), .more = {"--log-level", "trace"}}; }
  std::string site_secret() const { return cluster_->value("SELECT secret FROM isthmus.site", "site"); }
  static std::string role(Server& server) {
    Client client(server.port());
    return info_field(client, "site", "site_role").value_or("");
  }

  /// All that a client may ask about the server, and what a connection in MONITOR sees of it.
  static std::string all_answers(Server& server) {
    Client client(server.port()), monitor(server.port());
    monitor.call({"MONITOR"});
    std::string answers;
    const std::vector<std::vector<std::string_view>> questions = {
        {"SET", "k", "v"},     {"INFO", "everything"},   {"CONFIG", "GET", "*"},     {"CLIENT", "LIST"},
        {"CLIENT", "INFO"},    {"SLOWLOG", "GET", "-1"}, {"MEMORY", "DOCTOR"},       {"DEBUG", "OBJECT", "k"},
        {"LATENCY", "DOCTOR"}, {"ACL", "LIST"},          {"COMMAND", "DOCS", "SET"}, {"ECHO", "the end"}};
    for (const auto& question : questions) answers += show(client.call(question)) + "\n";
    while (answers.find("\"ECHO\" \"the end\"") == std::string::npos) {
      answers += monitor.read().text + "\n";
    }
    return answers;
  }

  // A matcher would print all of it.
  static bool holds(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  }

  std::unique_ptr<PostgresCluster> cluster_;
};

TEST_F(Secrets, AreInNoLineAndNoAnswer) {
  Server writer(options());
  ASSERT_TRUE(eventually([&] { return role(writer) == "writer"; }));
  Server follower(options());
  std::string seen;
  for (Server* server : {&writer, &follower}) {
    Client(server->port()).call({"CONFIG", "SET", "slowlog-log-slower-than", "0"});
    seen += all_answers(*server);
  }
  EXPECT_TRUE(holds(seen, "/site")) << "the answers do name the database";
  seen += writer.log() + follower.log();
  EXPECT_FALSE(holds(seen, kPassword));
  EXPECT_FALSE(holds(seen, site_secret()));
}

TEST_F(Secrets, AreNotToldWhenTheDatabaseRefusesThem) {
  Server server(options());
  ASSERT_TRUE(eventually([&] { return role(server) == "writer"; }));
  const std::string secret = site_secret();
  cluster_->sql("ALTER ROLE keeper PASSWORD 'another'");
  cluster_->sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'keeper'");
  ASSERT_TRUE(server.process().await_output("authentication failed"));
  Client client(server.port());
  EXPECT_TRUE(eventually([&] { return info_field(client, "isthmus", "backend_available") == "0"; }));
  const std::string seen = all_answers(server) + server.log();
  EXPECT_FALSE(holds(seen, kPassword));
  EXPECT_FALSE(holds(seen, secret));
}

// As the tests of other refusals: one line, exit code 1.
TEST_F(Secrets, AreNotInTheLineOfAServerThatDoesNotStart) {
  for (const std::string& refused :
       {url("hush-wrong"), url("hush-@here"), url("hush-/there"), url("hush-%zz"), url("hush-#1") + "?hush-",
        std::string("host=127.0.0.1 password=hush- here"),
        std::string("postgresql://keeper:hush-@[::1]x/site"),
        std::string("postgresql://keeper:hush-@127.0.0.1:1/site")}) {
    Process process({server_binary(), "--port", "0", "--backend", refused});
    const auto status = process.wait();
    ASSERT_TRUE(status.has_value()) << process.output();
    EXPECT_EQ(status->code, 1) << process.output();
    EXPECT_THAT(process.output(), Not(HasSubstr("hush-")));
  }
}

}  // namespace
}  // namespace isthmus::test
