// Log lines as text and JSON, and that lines stay whole when many threads write.
#include "src/observe/logging.hpp"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

namespace isthmus {
namespace {

constexpr std::int64_t kTimeMs = 1'767'323'045'067;  // 2026-01-02T03:04:05.067Z

std::string text(std::string_view message, LogFields fields = {}) {
  const std::string line = format_log_line(LogFormat::text, kTimeMs, LogLevel::info, message, fields);
  const std::string head = "2026-01-02T03:04:05.067Z info ";
  EXPECT_EQ(line.substr(0, head.size()), head);
  return line.substr(head.size());
}

std::string json(std::string_view message, LogFields fields = {}) {
  return format_log_line(LogFormat::json, kTimeMs, LogLevel::warning, message, fields);
}

TEST(Logging, TextHasTimeLevelMessageAndFields) {
  EXPECT_EQ(text("Ready to accept connections", {{"port", 6379}, {"backend", "memory:"}}),
            "Ready to accept connections port=6379 backend=memory:");
  EXPECT_EQ(text("numbers", {{"a", -1}, {"b", 18446744073709551615ULL}, {"c", 0.5}, {"d", true}}),
            "numbers a=-1 b=18446744073709551615 c=0.5 d=true");
}

TEST(Logging, TextQuotesValuesThatCouldBeMisread) {
  EXPECT_EQ(text("m", {{"a", ""}, {"b", "x y"}, {"c", "k=v"}, {"d", "say \"hi\""}, {"e", "back\\slash"}}),
            R"(m a="" b="x y" c="k=v" d="say \"hi\"" e="back\\slash")");
  EXPECT_EQ(text("m", {{"a", "gr\xc3\xbc\xc3\x9f"}}), "m a=gr\xc3\xbc\xc3\x9f");
}

TEST(Logging, NoInputForgesALine) {
  EXPECT_EQ(text("a\nb\r\t\x1b[0m", {{"k", "x\ny\x01\xff"}}), R"(a\nb\r\t\x1b[0m k="x\ny\x01\xff")");
  EXPECT_EQ(
      json("a\nb", {{"k", std::string("x\0\"\\\x1f", 5)}}),
      R"({"time":"2026-01-02T03:04:05.067Z","level":"warning","message":"a\nb","k":"x\u0000\"\\\u001f"})");
}

TEST(Logging, JsonHasTypedFields) {
  EXPECT_EQ(
      json("m", {{"port", 6379}, {"ok", false}, {"ratio", 1.25}, {"name", "x"}}),
      R"({"time":"2026-01-02T03:04:05.067Z","level":"warning","message":"m","port":6379,"ok":false,"ratio":1.25,)"
      R"("name":"x"})");
  EXPECT_NE(json("m", {{"a", std::numeric_limits<double>::infinity()}}).find(R"("a":null)"),
            std::string::npos);
}

TEST(Logging, JsonReplacesInvalidUtf8AndKeepsTheRest) {
  const std::map<std::string, std::string> cases = {
      {"\xc3\xa9", "\xc3\xa9"},                             // two bytes
      {"\xe2\x82\xac", "\xe2\x82\xac"},                     // three
      {"\xf0\x9f\x8c\x8a", "\xf0\x9f\x8c\x8a"},             // four
      {"\xff", R"(\ufffd)"},                                // never a first byte
      {"\x80", R"(\ufffd)"},                                // a continuation alone
      {"\xc3", R"(\ufffd)"},                                // cut short
      {"\xe2\x82", R"(\ufffd\ufffd)"},                      // cut short
      {"\xc0\x80", R"(\ufffd\ufffd)"},                      // overlong
      {"\xe0\x80\x80", R"(\ufffd\ufffd\ufffd)"},            // overlong
      {"\xed\xa0\x80", R"(\ufffd\ufffd\ufffd)"},            // a surrogate
      {"\xf4\x90\x80\x80", R"(\ufffd\ufffd\ufffd\ufffd)"},  // beyond the last code point
      {"\xf0\x80\x80\x80", R"(\ufffd\ufffd\ufffd\ufffd)"},  // overlong
  };
  for (const auto& [value, expected] : cases) {
    EXPECT_NE(json("m", {{"k", value}}).find("\"k\":\"" + expected + "\"}"), std::string::npos) << expected;
  }
}

TEST(Logging, TimesBeforeTheEpochAreRight) {
  EXPECT_EQ(format_log_line(LogFormat::text, -1, LogLevel::error, "m", {}),
            "1969-12-31T23:59:59.999Z error m");
}

TEST(Logging, LevelsHaveNames) {
  for (const char* name : {"trace", "debug", "info", "warning", "error"}) {
    const auto level = log_level_from_name(name);
    ASSERT_TRUE(level.has_value()) << name;
    EXPECT_EQ(log_level_name(*level), name);
  }
  EXPECT_FALSE(log_level_from_name("INFO").has_value());
}

// Writes to a file of its own, and puts the log back to stderr at the end.
class LoggingFile : public testing::Test {
 protected:
  LoggingFile() {
    std::string name = (std::filesystem::temp_directory_path() / "isthmus-log-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder_ = name;
  }
  ~LoggingFile() override {
    init_logging({});
    std::filesystem::remove_all(folder_);
  }
  std::string path() const { return folder_ / "isthmus.log"; }
  std::vector<std::string> lines() const {
    std::ifstream file(path());
    std::vector<std::string> all;
    for (std::string line; std::getline(file, line);) all.push_back(line);
    return all;
  }

  std::filesystem::path folder_;
};

TEST_F(LoggingFile, WritesFromTheGivenLevelOn) {
  init_logging({LogLevel::warning, LogFormat::text, path()});
  EXPECT_FALSE(log_enabled(LogLevel::info));
  EXPECT_TRUE(log_enabled(LogLevel::error));
  log_info("left out");
  log_warning("kept", {{"n", 1}});
  set_log_level(LogLevel::trace);
  log_trace("kept too");
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_NE(all[0].find(" warning kept n=1"), std::string::npos) << all[0];
  EXPECT_NE(all[1].find(" trace kept too"), std::string::npos) << all[1];
}

TEST_F(LoggingFile, AppendsToWhatIsThere) {
  std::ofstream(path()) << "old\n";
  init_logging({LogLevel::info, LogFormat::json, path()});
  log_info("100 % new {}");
  const auto all = lines();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0], "old");
  EXPECT_NE(all[1].find(R"("level":"info","message":"100 % new {}"})"), std::string::npos) << all[1];
}

TEST_F(LoggingFile, ThrowsOneLineWhenTheFileCannotBeOpened) {
  try {
    init_logging({LogLevel::info, LogFormat::text, folder_});
    FAIL() << "opened a folder";
  } catch (const std::runtime_error& error) {
    const std::string line = error.what();
    EXPECT_NE(line.find("cannot open the log file"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), std::string::npos) << line;
  }
}

TEST_F(LoggingFile, LinesOfManyThreadsStayWhole) {
  constexpr int kThreads = 4;
  constexpr int kLines = 500;
  init_logging({LogLevel::info, LogFormat::text, path()});
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([t] {
      for (int i = 0; i < kLines; ++i) log_info("line", {{"thread", t}, {"i", i}, {"tail", "end"}});
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::map<std::string, int> next;
  const auto all = lines();
  ASSERT_EQ(all.size(), static_cast<std::size_t>(kThreads) * kLines);
  for (const std::string& line : all) {
    const std::size_t at = line.find(" info line thread=");
    ASSERT_NE(at, std::string::npos) << line;
    const std::string thread = line.substr(at + 18, 1);
    // In order for each thread, and complete to the end.
    ASSERT_EQ(line.substr(at + 19), " i=" + std::to_string(next[thread]++) + " tail=end");
  }
}

}  // namespace
}  // namespace isthmus
