// What servers tell each other of their subscribers: the text of a log row of kind `subscribers`, and who has
// said what. No I/O, no clock. See ARCHITECTURE.md, "Counts of subscribers".
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backend/row.hpp"
#include "src/pubsub/remote_subscribers.hpp"

namespace isthmus {

/// One announcement. As text it is a line with its kind and numbers, and then a line for each name, as
/// "channel 3 4 news": kind, number of subscribers, bytes of the name, name.
struct Announcement {
  enum class What : std::uint8_t {
    changes,  ///< of names that have changed, the counts as they are now
    all,      ///< every name with subscribers; what is not there has none
    alive,    ///< nothing new; I am still here
    asks,     ///< somebody is to tell all that he has
    gone,     ///< count me no more
  };
  What what = What::alive;
  std::uint64_t number = 0;          ///< of the last `changes` of this server, this one included
  std::uint32_t part = 1, parts = 1; /**< `all` may need several rows: 1 … parts */
  backend::OriginId asked = 0;       ///< `asks`: who; 0 is everybody
  std::string_view counts;           ///< the lines of names

  /// The text, with these lines of names.
  std::string text() const;
};

void append_count(std::string& lines, const SubscriberCount& count);
/// Nothing if the text is no announcement. Views point into the text.
std::optional<Announcement> parse_announcement(std::string_view text);
/// Calls `visit` for each line. False if what comes is no such line; then it stops there.
bool for_each_count(std::string_view lines, const std::function<void(const SubscriberCount&)>& visit);

/// Keeps a table up to date with what other servers announce. A server that skips a number, or begins in the
/// middle, is to be asked for all it has; one that says nothing for a while counts no more. Times are
/// milliseconds of any monotonic clock. Not thread-safe.
class AnnouncementBook {
 public:
  /// A server that is alive says so every second; several may be late on a busy machine.
  static constexpr std::int64_t kSilenceMs = 5000;
  /// Who has not answered is asked again.
  static constexpr std::int64_t kAskAgainMs = 1000;

  AnnouncementBook(RemoteSubscribers& table, backend::OriginId self) : table_(table), self_(self) {}

  /// What `server` says. True if somebody wants to know all of this server's own.
  bool take(backend::OriginId server, std::string_view text, std::int64_t now_ms);
  /// Servers that have been silent for too long count no more.
  void expire(std::int64_t now_ms);
  /// Who is to be asked now.
  std::vector<backend::OriginId> to_ask(std::int64_t now_ms);
  /// Servers that count.
  std::size_t servers() const { return servers_.size(); }
  /// Names that were left out because the table is full.
  std::uint64_t refused() const { return refused_; }

 private:
  struct Server {
    std::uint64_t number = 0;  // of the last announcement that was taken
    bool complete = true;      // nothing was missed up to there
    std::uint64_t collecting = 0;
    std::uint32_t next_part = 1;
    std::int64_t heard_ms = 0;
    std::optional<std::int64_t> asked_ms;
  };
  void take_changes(backend::OriginId id, Server& server, const Announcement& announcement);
  void take_all(backend::OriginId id, Server& server, const Announcement& announcement);
  bool put(backend::OriginId id, std::string_view lines);

  RemoteSubscribers& table_;
  const backend::OriginId self_;
  std::map<backend::OriginId, Server> servers_;
  std::uint64_t refused_ = 0;
};

}  // namespace isthmus
