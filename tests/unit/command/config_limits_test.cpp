// CONFIG SET of what the system and the options limit.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include "src/command/config_parameters.hpp"
#include "tests/unit/command/command_runner.hpp"

namespace isthmus {
namespace {

using testing::HasSubstr;
using testing::StartsWith;

class ConfigLimits : public testing::Test {
 protected:
  std::string get(std::string_view name) { return find_parameter(name)->show(run_.services()); }
  CommandRunner run_;
};

// The soft limit of open files is this process's own, and put back.
class FileLimit {
 public:
  FileLimit() { getrlimit(RLIMIT_NOFILE, &before_); }
  ~FileLimit() { setrlimit(RLIMIT_NOFILE, &before_); }
  rlim_t highest() const { return before_.rlim_max; }
  static rlim_t now() {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    return limit.rlim_cur;
  }
  void set(rlim_t soft) const {
    rlimit limit = before_;
    limit.rlim_cur = soft;
    setrlimit(RLIMIT_NOFILE, &limit);
  }

 private:
  rlimit before_{};
};

TEST_F(ConfigLimits, MaxclientsRaisesTheLimitOfOpenFiles) {
  const FileLimit limit;
  if (limit.highest() < 1000) GTEST_SKIP() << "the limit of open files is too low here";
  limit.set(300);
  run_.settings().maxclients = 100;
  EXPECT_EQ(run_("CONFIG SET maxclients 500"), "+OK\r\n");
  EXPECT_GE(FileLimit::now(), 500U);
  EXPECT_EQ(get("maxclients"), "500");
}

TEST_F(ConfigLimits, MaxclientsAboveTheLimitOfOpenFilesIsRefused) {
  const FileLimit limit;
  if (limit.highest() > 4'000'000'000U) GTEST_SKIP() << "there is no limit of open files here";
  run_.settings().maxclients = 100;
  const std::string reply = run_("CONFIG SET maxclients 4294967295");
  EXPECT_THAT(reply, StartsWith("-ERR CONFIG SET failed (possibly related to argument 'maxclients') - The "
                                "operating system is not able to handle the specified number of clients, try "
                                "with "));
  EXPECT_EQ(get("maxclients"), "100");
  const std::string possible = reply.substr(reply.rfind(' ') + 1);
  EXPECT_EQ(run_("CONFIG SET maxclients " + possible.substr(0, possible.find('\r'))), "+OK\r\n");
}

TEST_F(ConfigLimits, CommitTimeoutHasTheBoundsOfItsOption) {
  for (const char* value : {"0", "-1", "3600001"}) {
    EXPECT_THAT(run_(std::string("CONFIG SET commit-timeout ") + value),
                HasSubstr("argument must be between 1 and 3600000 inclusive"));
    EXPECT_EQ(get("commit-timeout"), "5000");
  }
  for (const char* value : {"1", "3600000"}) {
    EXPECT_EQ(run_(std::string("CONFIG SET commit-timeout ") + value), "+OK\r\n");
    EXPECT_EQ(get("commit-timeout"), value);
  }
}

}  // namespace
}  // namespace isthmus
