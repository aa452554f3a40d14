// How the process starts, refuses to start, and ends.
#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>

#include "tests/support/client.hpp"
#include "tests/support/database.hpp"
#include "tests/support/server.hpp"

namespace isthmus::test {
namespace {

// ---- ending ----

class Ending : public ::testing::TestWithParam<int> {};

INSTANTIATE_TEST_SUITE_P(Signals, Ending, ::testing::Values(SIGTERM, SIGINT),
                         [](const auto& suite) { return suite.param == SIGTERM ? "Term" : "Int"; });

TEST_P(Ending, ExitsWithZeroThoughClientsAreConnected) {
  Server server({.backend = "sqlite:"});
  Client idle(server.port()), subscriber(server.port(), 3), half(server.port()), deaf(server.port(), 2, 4096);
  subscriber.subscribe("SUBSCRIBE", {"c"});
  half.send_raw("*3\r\n$3\r\nSET\r\n$1");
  ASSERT_EQ(idle.call({"SET", "big", std::string(1 << 20, 'b')}).text, "OK");
  std::string gets;
  for (int i = 0; i < 50; ++i) gets += resp::encode_request({"GET", "big"});
  deaf.push_raw(gets, seconds(1));
  server.process().signal(GetParam());
  const auto status = server.process().wait(kSanitized ? seconds(30) : seconds(10));
  ASSERT_TRUE(status.has_value()) << "still running:\n" << server.log();
  EXPECT_EQ(status->code, 0) << server.log();
  EXPECT_TRUE(idle.closed_within());
  EXPECT_TRUE(subscriber.closed_within());
}

TEST(Shutdown, ByShutdownCommandIsTheSame) {
  Server server({.backend = "sqlite:"});
  Client client(server.port());
  ASSERT_EQ(client.call({"SET", "k", "v"}).text, "OK");
  client.send({"SHUTDOWN"});
  EXPECT_TRUE(client.closed_within());
  const auto status = server.process().wait();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 0);
  server.start();
  EXPECT_EQ(Client(server.port()).call({"GET", "k"}).text, "v");
}

// What was answered before the end is there afterwards; a pipeline that the end cuts is answered up to some
// command.
TEST(Shutdown, KeepsWhatWasAnswered) {
  Server server({.backend = "sqlite:"});
  Client client(server.port());
  std::string pipeline;
  for (int i = 0; i < 20'000; ++i) pipeline += resp::encode_request({"SET", "k" + std::to_string(i), "v"});
  client.push_raw(pipeline, seconds(5));
  ASSERT_EQ(client.read().text, "OK");
  server.process().signal(SIGTERM);
  int answered = 1;
  try {
    while (client.read().text == "OK") ++answered;
  } catch (const Closed&) {
  }
  const auto status = server.process().wait();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(status->code, 0);
  server.start();
  Client again(server.port());
  for (int i = 0; i < answered; ++i)
    ASSERT_EQ(again.call({"EXISTS", "k" + std::to_string(i)}).integer, 1) << i;
}

// ---- refusing ----

struct Outcome {
  std::optional<ExitStatus> status;
  std::string output;
};

Outcome run(const std::vector<std::string>& options, const std::string& folder = "/") {
  std::vector<std::string> line{server_binary()};
  line.insert(line.end(), options.begin(), options.end());
  Process process(line, folder);
  const auto status = process.wait(seconds(20));
  return {status, process.output()};
}

// Exit code 1 and one line that a person can read, with `hint` in it.
void expect_refusal(const Outcome& outcome, const std::string& hint) {
  ASSERT_TRUE(outcome.status.has_value()) << "it runs:\n" << outcome.output;
  EXPECT_EQ(outcome.status->code, 1) << "signal " << outcome.status->signal;
  EXPECT_EQ(std::count(outcome.output.begin(), outcome.output.end(), '\n'), 1) << outcome.output;
  EXPECT_NE(outcome.output.find(hint), std::string::npos) << outcome.output;
}

class Refusal : public ::testing::Test {
 protected:
  void SetUp() override { ISTHMUS_ONLY(); }
  Outcome run_on(const std::string& backend) {
    return run({"--port", std::to_string(free_port()), "--backend", backend}, folder_.path().string());
  }
  std::vector<std::string> files() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename());
    std::sort(names.begin(), names.end());
    return names;
  }
  TempFolder folder_;
};

TEST_F(Refusal, OfWrongOptions) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> cases{
      {{"--prot", "1"}, "--prot"},
      {{"--port", "seventy"}, "port"},
      {{"--port", "70000"}, "port"},
      {{"--port", "-1"}, "port"},
      {{"--threads", "0"}, "threads"},
      {{"--maxmemory", "much"}, "maxmemory"},
      {{"--maxclients", "x"}, "maxclients"},
      {{"--commit-timeout", "soon"}, "commit-timeout"},
      {{"--log-level", "loud"}, "log-level"},
      {{"--log-format", "xml"}, "log-format"},
      {{"--bind", "300.1.2.3"}, "300.1.2.3"},
      {{"--backend", "oracle:x"}, "sqlite:PATH"},
      {{"--config", "/no/such/file"}, "/no/such/file"},
      {{"stray"}, "command line"},
  };
  for (const auto& [options, hint] : cases) {
    SCOPED_TRACE(options.front() + " " + options.back());
    auto line = options;
    if (options.front() != "--backend") line.insert(line.end(), {"--backend", "memory:"});
    if (options.front() != "--port") line.insert(line.end(), {"--port", "0"});
    expect_refusal(run(line, folder_.path().string()), hint);
  }
  EXPECT_TRUE(files().empty());
}

TEST_F(Refusal, OfATakenPort) {
  Server first;
  const auto outcome =
      run({"--port", std::to_string(first.port()), "--backend", "sqlite:" + folder_.file("new.db")});
  expect_refusal(outcome, std::to_string(first.port()));
  EXPECT_TRUE(files().empty()) << "a server that could not serve left files";
  EXPECT_EQ(Client(first.port()).call({"PING"}).text, "PONG");
}

TEST_F(Refusal, OfPathsThatCannotBe) {
  expect_refusal(run_on("sqlite:" + folder_.file("missing/isthmus.db")), "missing");
  expect_refusal(run_on("sqlite:" + folder_.path().string()), folder_.path().string());
  expect_refusal(run_on("sqlite:"), "sqlite:");
  EXPECT_TRUE(files().empty());
}

TEST_F(Refusal, OfAFileThatIsNoDatabase) {
  const auto path = folder_.file("letter.txt");
  const std::string letter = "Dear Sir or Madam,\n" + std::string(5000, '.') + "\n";
  write_file(path, letter);
  expect_refusal(run_on("sqlite:" + path), path);
  EXPECT_EQ(read_file(path), letter);
}

TEST_F(Refusal, OfAForeignDatabase) {
  const auto path = folder_.file("foreign.db");
  Database(path, true)
      .run("CREATE TABLE accounts(id INTEGER PRIMARY KEY, owner TEXT); INSERT INTO accounts VALUES(1, 'x')");
  const auto before = read_file(path);
  expect_refusal(run_on("sqlite:" + path), path);
  EXPECT_TRUE(read_file(path) == before);
}

TEST_F(Refusal, OfANewerSchema) {
  Server server({.backend = "sqlite:"});
  ASSERT_EQ(Client(server.port()).call({"SET", "k", "v"}).text, "OK");
  ASSERT_TRUE(server.stop().has_value());
  Database(server.database(), true).run("PRAGMA user_version = 1000000; PRAGMA wal_checkpoint(TRUNCATE)");
  const auto before = read_file(server.database());
  expect_refusal(run_on("sqlite:" + server.database()), "newer");
  EXPECT_TRUE(read_file(server.database()) == before);
}

TEST_F(Refusal, OfADatabaseThatAnotherServerHolds) {
  Server server({.backend = "sqlite:"});
  Client client(server.port());
  ASSERT_EQ(client.call({"SET", "k", "v"}).text, "OK");
  expect_refusal(run_on("sqlite:" + server.database()), server.database());
  EXPECT_EQ(client.call({"SET", "k", "w"}).text, "OK");
}

// ---- options from everywhere ----

TEST(Options, HelpAndVersionEndWithZero) {
  ISTHMUS_ONLY();
  const auto help = run({"--help"});
  ASSERT_TRUE(help.status.has_value());
  EXPECT_EQ(help.status->code, 0);
  for (const auto* name : {"--port", "--bind", "--backend", "--requirepass", "--threads", "--maxclients",
                           "--maxmemory", "--commit-timeout", "--log-level", "--log-format", "--config"})
    EXPECT_NE(help.output.find(name), std::string::npos) << name;
  const auto version = run({"--version"});
  ASSERT_TRUE(version.status.has_value());
  EXPECT_EQ(version.status->code, 0);
}

// Starts a server by `line`, which must leave the port to it, and awaits that a client needs a password
// there.
void expect_password_wanted(const std::vector<std::string>& line, int port) {
  Process process(line);
  ASSERT_TRUE(process.await_output("Ready to accept connections")) << process.output();
  EXPECT_EQ(Client(port).call({"PING"}).text, "NOAUTH Authentication required.");
}

TEST(Options, ComeFromTheEnvironmentAndFromAFile) {
  ISTHMUS_ONLY();
  TempFolder folder;
  const auto port = free_port();
  expect_password_wanted({"env", "ISTHMUS_REQUIREPASS=secret",
                          "ISTHMUS_BACKEND=memory:", "ISTHMUS_PORT=" + std::to_string(port), server_binary()},
                         port);
  write_file(folder.file("isthmus.conf"),
             "port = " + std::to_string(port) + "\nbackend = \"memory:\"\nrequirepass = \"secret\"\n");
  expect_password_wanted({server_binary(), "--config", folder.file("isthmus.conf")}, port);
}

TEST(Options, PortZeroTakesAFreePortAndNamesIt) {
  ISTHMUS_ONLY();
  Process process({server_binary(), "--port", "0", "--backend", "memory:"});
  const auto ready = process.await_output("Ready to accept connections");
  ASSERT_TRUE(ready) << process.output();
  const auto named = process.await_output("port=", *ready);
  ASSERT_TRUE(named) << process.output();
  ASSERT_TRUE(process.await_output("\n", *named));
  EXPECT_EQ(Client(std::stoi(process.output().substr(*named))).call({"PING"}).text, "PONG");
}

TEST(Options, JsonLogLinesAreObjects) {
  ISTHMUS_ONLY();
  Server server({.more = {"--log-format", "json"}});
  ASSERT_TRUE(server.stop().has_value());
  const auto log = server.log();
  std::size_t begin = 0, lines = 0;
  for (std::size_t end = 0; (end = log.find('\n', begin)) != std::string::npos; begin = end + 1, ++lines) {
    const auto line = log.substr(begin, end - begin);
    EXPECT_TRUE(line.starts_with("{\"time\":\"") && line.ends_with("}")) << line;
  }
  EXPECT_GE(lines, 1u);
}

}  // namespace
}  // namespace isthmus::test
