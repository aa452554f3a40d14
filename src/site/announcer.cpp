#include "src/site/announcer.hpp"

#include <algorithm>

#include "src/keyspace/clock.hpp"
#include "src/observe/logging.hpp"

namespace isthmus {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kRound{250};
constexpr milliseconds kAlivePeriod{1000};
// A server that many ask at once, after a link has come back, answers them together.
constexpr milliseconds kBetweenAll{500};
// A row that PostgreSQL and every feed handle in passing; and what one round may put into the log.
constexpr std::size_t kRowBytes = 256 << 10;
constexpr std::size_t kRoundBytes = 4 << 20;
// What a server tells of itself at once: some hundred thousand names. More is not counted elsewhere.
constexpr std::size_t kAllBytes = 16 << 20;
// Channels are counted everywhere by names of up to this length; longer ones only where they are.
constexpr std::size_t kLongestName = 16 << 10;

std::vector<std::string> pages(const std::vector<PubSub::NamedCount>& counts) {
  std::vector<std::string> all(1);
  for (const PubSub::NamedCount& one : counts) {
    if (one.name.size() > kLongestName) continue;
    if (all.back().size() + one.name.size() > kRowBytes) all.emplace_back();
    append_count(all.back(), {one.kind, one.name, one.count});
  }
  return all;
}

}  // namespace

Announcer::Announcer(Site& site, Journal& journal, PubSub& pubsub)
    : site_(site), journal_(journal), pubsub_(pubsub), book_(pubsub.others(), site.server()) {}

void Announcer::start() {
  pubsub_.note_changes();
  thread_ = std::thread([this] { run(); });
}

void Announcer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (!thread_.joinable()) return;
  thread_.join();
  if (active_ && journal_.available()) append({.what = Announcement::What::gone});
}

void Announcer::take(const backend::Row& row) {
  {
    const std::lock_guard lock(mutex_);
    const bool asked = book_.take(row.origin, row.value, steady_clock_ms());
    if (!asked) return;
    wanted_ = true;
  }
  changed_.notify_all();
}

void Announcer::run() {
  Clock::time_point next = Clock::now();
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_until(lock, next, [this] { return stopping_ || wanted_; });
      if (stopping_) return;
    }
    const Clock::time_point now = Clock::now();
    round(now);
    next = now + kRound;
    // Somebody asks again, too soon: answered in the next round.
    std::unique_lock lock(mutex_);
    if (wanted_) changed_.wait_until(lock, next, [this] { return stopping_; });
  }
}

// Everybody who reads this server's log rows: others of the site that have given a sign of life, and peers.
bool Announcer::has_listeners() const { return site_.linked() || site_.report().servers.size() > 1; }

void Announcer::round(Clock::time_point now) {
  listen(steady_clock_ms());
  warn_of_limits();
  if (!journal_.available()) return;  // what changes meanwhile is told later
  bool asked = false, answers = false;
  {
    const std::lock_guard lock(mutex_);
    asked = wanted_;
    answers = asked && now - last_all_ >= kBetweenAll;
    if (answers) wanted_ = false;
  }
  // Who asks listens, although it may not have given a sign of life yet.
  if (!has_listeners() && !asked) {
    listened_ = active_ = false;
    return;
  }
  if (!std::exchange(listened_, true)) append({.what = Announcement::What::asks, .asked = 0});
  const bool has_names = pubsub_.has_names();
  if (has_names && !active_) {
    // Others may have forgotten this server since it last had a subscription.
    active_ = true;
    pubsub_.take_changes(std::numeric_limits<std::size_t>::max());
    ++number_;
    tell_all();
  } else if (active_) {
    tell_changes();
    if (answers) tell_all();
  }
  if (active_ && !has_names) {
    active_ = pubsub_.has_names();
  } else if (active_ && now - last_row_ >= kAlivePeriod) {
    append({.what = Announcement::What::alive, .number = number_});
  }
}

void Announcer::listen(std::int64_t now_ms) {
  std::vector<backend::OriginId> ask;
  {
    const std::lock_guard lock(mutex_);
    book_.expire(now_ms);
    ask = book_.to_ask(now_ms);
  }
  if (!journal_.available()) return;
  for (const backend::OriginId server : ask) append({.what = Announcement::What::asks, .asked = server});
}

void Announcer::tell_changes() {
  const auto changes = pubsub_.take_changes(kRoundBytes);
  if (!changes) {
    ++number_;
    tell_all();
    return;
  }
  if (changes->empty()) return;
  for (const std::string& page : pages(*changes)) {
    append({.what = Announcement::What::changes, .number = ++number_, .counts = page});
  }
}

void Announcer::tell_all() {
  last_all_ = Clock::now();
  const std::vector<std::string> all = pages(pubsub_.all_counts(kAllBytes));
  Announcement announcement{.what = Announcement::What::all, .number = number_};
  announcement.parts = static_cast<std::uint32_t>(all.size());
  for (const std::string& page : all) {
    announcement.counts = page;
    append(announcement);
    ++announcement.part;
  }
}

void Announcer::append(const Announcement& announcement) {
  const std::string text = announcement.text();
  {
    Journal::Group group(journal_);
    backend::Row row;
    row.kind = backend::RowKind::subscribers;
    row.value = text;
    row.sent_at = site_.database_now_ms();
    group.add_message(row);
  }
  journal_.commit_soon();
  last_row_ = Clock::now();
}

void Announcer::warn_of_limits() {
  std::uint64_t refused = 0;
  {
    const std::lock_guard lock(mutex_);
    refused = book_.refused();
  }
  if (refused == warned_) return;
  if (warned_ == 0) {
    log_warning("Other servers have more subscribed channels than are counted here",
                {{"names", pubsub_.others().names()}});
  }
  warned_ = refused;
}

}  // namespace isthmus
