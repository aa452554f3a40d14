// What a client and a subscriber see while the backend refuses writes.
#include <chrono>
#include <memory>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/command/command_runner.hpp"
#include "tests/unit/site/refusing_log.hpp"

namespace isthmus {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class BackendDown : public testing::Test {
 protected:
  BackendDown() {
    run_.hear_events(kEventKeyevent | kEventAll | kEventKeyMiss);
    run_("SET waits 1");
  }
  // The backend refuses what has gathered; it is not asked again.
  void go_down() {
    Journal::Hooks hooks;
    hooks.after_commit = [] {};
    run_.journal().start(nullptr, nullptr, std::move(hooks));
    run_.journal().stop(std::chrono::milliseconds{0});
    ASSERT_FALSE(run_.journal().available());
  }
  CommandRunner run_{std::make_unique<RefusingLog>()};
};

TEST_F(BackendDown, RefusesWritesAndGoesOnReading) {
  go_down();
  EXPECT_EQ(run_("SET more 1"), "-CLUSTERDOWN The log refuses writes: the disk is full\r\n");
  EXPECT_EQ(run_("GET none"), "$-1\r\n");
}

TEST_F(BackendDown, TellsAMissAtOnceAndNoWriteThatIsNotCommitted) {
  go_down();
  run_("GET none");
  EXPECT_THAT(run_.events(), ElementsAre("keymiss none"));
}

TEST_F(BackendDown, TellsAMissThatWaitedForACommit) {
  run_("GET none");
  EXPECT_THAT(run_.events(), IsEmpty()) << "it came behind a write";
  go_down();
  EXPECT_THAT(run_.events(), ElementsAre("keymiss none"));
}

}  // namespace
}  // namespace isthmus
