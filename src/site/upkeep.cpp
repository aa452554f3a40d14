#include "src/site/upkeep.hpp"

#include <utility>

#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;

constexpr milliseconds kRound{1000};
constexpr milliseconds kLook{20};
// While commits go on, or rows of other sites come in, the checkpoint takes one part in so many of the time,
// so that writers keep the database.
constexpr int kShareOfTime = 4;

// Tells the checkpointer what a former writer left for the checkpoint.
class UncoveredRows final : public backend::LoadSink {
 public:
  // How far the rows of other sites are complete the feed knows, which knows of gaps.
  UncoveredRows(Checkpointer& checkpointer, backend::SiteId own) : checkpointer_(checkpointer), own_(own) {}
  void key(const backend::StoredKey&) override {}
  void field(const backend::StoredField&) override {}
  void row(const backend::Row& row) override {
    backend::Row noted = row;
    if (row.site != own_) noted.seq = 0;
    checkpointer_.note(noted);
  }

 private:
  Checkpointer& checkpointer_;
  const backend::SiteId own_;
};

}  // namespace

Upkeep::Upkeep(Site& site, Journal& journal, Checkpointer& checkpointer,
               std::function<backend::Vector()> foreign_vector)
    : site_(site),
      journal_(journal),
      checkpointer_(checkpointer),
      foreign_vector_(std::move(foreign_vector)) {}

void Upkeep::start() {
  round();
  thread_ = std::thread([this] { run(); });
}

void Upkeep::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  stop_asked_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  try {
    site_.log().sign_off(site_.server());
  } catch (const backend::AppendError& error) {
    // Others see soon that it gives no sign of life any more.
    log_debug("This server could not sign off", {{"cause", error.what()}});
  }
}

bool Upkeep::pause(microseconds time) {
  std::unique_lock lock(mutex_);
  return !stop_asked_.wait_for(lock, time, [this] { return stopping_; });
}

void Upkeep::run() {
  while (pause(kLook)) {
    if (Clock::now() >= next_round_) round();
    follow_role();
    if (guarded_ != 0) checkpoint();
  }
}

void Upkeep::round() {
  next_round_ = Clock::now() + kRound;
  try {
    backend::ServerRow self;
    self.id = site_.server();
    self.address = site_.address();
    self.version = site_.version();
    self.writer = site_.is_writer();
    site_.set_report(site_.log().upkeep(self, self.writer ? journal_.lease_stamp().lease : 0));
    if (!trouble_.empty()) log_info("The upkeep of the log works again");
    trouble_.clear();
  } catch (const backend::AppendError& error) {
    if (trouble_.empty() && !site_.ending())
      log_warning("The upkeep of the log has to wait", {{"cause", error.what()}});
    trouble_ = error.what();
  }
}

// A new lease: what is not in the checkpoint is asked of the log, beside what comes in from now on.
void Upkeep::follow_role() {
  const bool writer = site_.is_writer();
  const backend::OriginId lease = writer ? journal_.lease_stamp().lease : 0;
  if (lease == guarded_) return;
  if (guarded_ != 0) checkpointer_.reset();
  guarded_ = 0;
  if (!writer) return;
  try {
    site_.log().guard_checkpoint(lease);
    UncoveredRows uncovered(checkpointer_, site_.log().site());
    const backend::Vector foreign = foreign_vector_();
    site_.log().read_uncovered(uncovered);
    checkpointer_.note_seen(foreign);
    checkpointer_.hurry();
    guarded_ = lease;
    checkpoint_trouble_.clear();
  } catch (const backend::AppendError& error) {
    // Tried again at once, so it is said once.
    if (checkpoint_trouble_.empty() && !site_.ending())
      log_warning("The checkpoint has to wait", {{"cause", error.what()}});
    checkpoint_trouble_ = error.what();
  }
}

// Not while the feed is down: what came meanwhile from other sites is not folded here, and the mark would
// speak of a time at which it had arrived.
void Upkeep::checkpoint() {
  while (site_.feed_healthy() && checkpointer_.busy()) {
    const auto begin = Clock::now();
    if (!checkpointer_.step(journal_)) {
      // The database may have lost what it had last of this checkpoint: what is missing the log tells.
      checkpointer_.reset();
      guarded_ = 0;
      return;
    }
    const auto took = std::chrono::duration_cast<microseconds>(Clock::now() - begin);
    if (begin >= next_round_ || !site_.is_writer()) return;
    const std::uint64_t foreign = site_.stats().foreign_rows.load(std::memory_order_relaxed);
    const bool idle = journal_.backlog_bytes() == 0 && foreign == std::exchange(foreign_rows_, foreign);
    if (!pause(idle ? microseconds{0} : took * (kShareOfTime - 1))) return;
  }
}

}  // namespace isthmus
