#include "src/site/announcements.hpp"

#include <array>
#include <charconv>

namespace isthmus {
namespace {

using backend::OriginId;
using What = Announcement::What;

constexpr std::array<std::string_view, 5> kWhatNames = {"changes", "all", "alive", "asks", "gone"};
constexpr std::array<std::string_view, 3> kKindNames = {"channel", "pattern", "shard"};

// Takes words off the front of a text. A word ends at a space or at the end of its line.
class Words {
 public:
  explicit Words(std::string_view text) : rest_(text) {}
  bool good() const { return good_; }
  std::string_view rest() const { return rest_; }

  std::string_view word() {
    const std::size_t end = rest_.find_first_of(" \n");
    good_ &= end != std::string_view::npos && end != 0;
    if (!good_) return {};
    const std::string_view word = rest_.substr(0, end);
    rest_.remove_prefix(end + (rest_[end] == ' ' ? 1 : 0));
    return word;
  }
  template <typename Number>
  Number number() {
    const std::string_view digits = word();
    Number value{};
    const auto [end, problem] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    good_ &= problem == std::errc{} && end == digits.data() + digits.size();
    return value;
  }
  template <std::size_t N>
  std::size_t one_of(const std::array<std::string_view, N>& names) {
    const std::string_view name = word();
    for (std::size_t i = 0; i < N; ++i) {
      if (names[i] == name) return i;
    }
    good_ = false;
    return 0;
  }
  std::string_view bytes(std::size_t size) {
    good_ &= size <= rest_.size();
    if (!good_) return {};
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  void end_line() {
    good_ &= !rest_.empty() && rest_.front() == '\n';
    if (good_) rest_.remove_prefix(1);
  }

 private:
  std::string_view rest_;
  bool good_ = true;
};

}  // namespace

std::string Announcement::text() const {
  std::string line(kWhatNames.at(static_cast<std::size_t>(what)));
  if (what == What::asks) {
    line.append(" ").append(std::to_string(asked));
  } else {
    line.append(" ").append(std::to_string(number));
  }
  if (what == What::all)
    line.append(" ").append(std::to_string(part)).append(" ").append(std::to_string(parts));
  return line.append("\n").append(counts);
}

void append_count(std::string& lines, const SubscriberCount& count) {
  lines.append(kKindNames.at(static_cast<std::size_t>(count.kind))).append(" ");
  lines.append(std::to_string(count.count)).append(" ").append(std::to_string(count.name.size()));
  lines.append(" ").append(count.name).append("\n");
}

std::optional<Announcement> parse_announcement(std::string_view text) {
  Words words(text);
  Announcement announcement;
  announcement.what = static_cast<What>(words.one_of(kWhatNames));
  if (announcement.what == What::asks) {
    announcement.asked = words.number<OriginId>();
  } else {
    announcement.number = words.number<std::uint64_t>();
  }
  if (announcement.what == What::all) {
    announcement.part = words.number<std::uint32_t>();
    announcement.parts = words.number<std::uint32_t>();
  }
  words.end_line();
  if (!words.good() || announcement.part == 0 || announcement.part > announcement.parts) return std::nullopt;
  announcement.counts = words.rest();
  return announcement;
}

bool for_each_count(std::string_view lines, const std::function<void(const SubscriberCount&)>& visit) {
  Words words(lines);
  while (!words.rest().empty()) {
    SubscriberCount count;
    count.kind = static_cast<ChannelKind>(words.one_of(kKindNames));
    count.count = words.number<std::uint32_t>();
    const auto size = words.number<std::size_t>();
    count.name = words.bytes(size);
    words.end_line();
    if (!words.good()) return false;
    visit(count);
  }
  return true;
}

bool AnnouncementBook::take(OriginId id, std::string_view text, std::int64_t now_ms) {
  const std::optional<Announcement> announcement = parse_announcement(text);
  if (!announcement || id == self_) return false;
  if (announcement->what == What::asks) return announcement->asked == 0 || announcement->asked == self_;
  if (announcement->what == What::gone) {
    table_.clear(id);
    servers_.erase(id);
    return false;
  }
  Server& server = servers_[id];
  server.heard_ms = now_ms;
  switch (announcement->what) {
    case What::changes:
      take_changes(id, server, *announcement);
      break;
    case What::all:
      take_all(id, server, *announcement);
      break;
    default:
      if (announcement->number > server.number) server.complete = false;
      break;
  }
  return false;
}

void AnnouncementBook::take_changes(OriginId id, Server& server, const Announcement& announcement) {
  if (announcement.number <= server.number) return;
  server.complete = server.complete && announcement.number == server.number + 1;
  if (!server.complete) return;  // what is known stays, and may be wrong, until it has told all
  server.complete = put(id, announcement.counts);
  server.number = announcement.number;
}

void AnnouncementBook::take_all(OriginId id, Server& server, const Announcement& announcement) {
  if (server.complete && announcement.number <= server.number) return;
  if (announcement.part == 1) {
    table_.clear(id);
    server.collecting = announcement.number;
    server.next_part = 1;
  }
  const bool fits = announcement.number == server.collecting && announcement.part == server.next_part;
  server.complete = false;
  if (!fits || !put(id, announcement.counts)) return;
  ++server.next_part;
  if (announcement.part != announcement.parts) return;
  server.complete = true;
  server.number = announcement.number;
  server.asked_ms.reset();
}

bool AnnouncementBook::put(OriginId id, std::string_view lines) {
  return for_each_count(lines, [&](const SubscriberCount& count) {
    if (!table_.set(id, count)) ++refused_;
  });
}

void AnnouncementBook::expire(std::int64_t now_ms) {
  std::erase_if(servers_, [&](const auto& item) {
    if (now_ms - item.second.heard_ms < kSilenceMs) return false;
    table_.clear(item.first);
    return true;
  });
}

std::vector<OriginId> AnnouncementBook::to_ask(std::int64_t now_ms) {
  std::vector<OriginId> ids;
  for (auto& [id, server] : servers_) {
    if (server.complete || (server.asked_ms && now_ms - *server.asked_ms < kAskAgainMs)) continue;
    server.asked_ms = now_ms;
    ids.push_back(id);
  }
  return ids;
}

}  // namespace isthmus
