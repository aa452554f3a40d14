// The thread that tells other servers who subscribes at this one, and keeps what they tell.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string_view>
#include <thread>

#include "src/pubsub/pubsub.hpp"
#include "src/site/announcements.hpp"
#include "src/site/journal.hpp"
#include "src/site/site.hpp"

namespace isthmus {

/// Gathers what has changed and appends it to the log as few rows, four times a second at most; with
/// subscribers, and nothing to say, a row each second. Says nothing while nobody listens: with no other
/// server at this site, and no peer.
class Announcer {
 public:
  Announcer(Site& site, Journal& journal, PubSub& pubsub);
  ~Announcer() { stop(); }
  void start();
  /// Says goodbye, as long as the journal takes it.
  void stop();
  /// What the feed shows. The feed's thread.
  void take(const backend::Row& row);

 private:
  using Clock = std::chrono::steady_clock;
  void run();
  void round(Clock::time_point now);
  void listen(std::int64_t now_ms);
  void tell_changes();
  void tell_all();
  void append(const Announcement& announcement);
  bool has_listeners() const;
  void warn_of_limits();

  Site& site_;
  Journal& journal_;
  PubSub& pubsub_;

  // The announcing thread.
  std::uint64_t number_ = 0;
  bool active_ = false;    // others know of a subscription here
  bool listened_ = false;  // there was somebody to listen in the last round
  Clock::time_point last_row_, last_all_;
  std::uint64_t warned_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  AnnouncementBook book_;
  bool wanted_ = false;  // somebody asks for all of ours
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace isthmus
