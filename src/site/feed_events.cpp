// What a feed tells subscribers of the rows that it reads: messages while they are young, and keyspace events
// of what the rows did here.
#include <algorithm>

#include "src/pubsub/keyspace_events.hpp"
#include "src/site/announcements.hpp"
#include "src/site/feed_reader.hpp"

namespace isthmus {
namespace {

using backend::Row;
using backend::RowKind;

// Whether the event says that the key is not there any more.
bool says_gone(std::string_view event) {
  return event == "del" || event == "expired" || event == "rename_from" || event == "move_from";
}

// The first of a list of events, which is taken from it.
std::string_view take_event(std::string_view& events) {
  const std::string_view event = events.substr(0, events.find(','));
  events.remove_prefix(std::min(events.size(), event.size() + 1));
  return event;
}

bool names_gone(std::string_view events) {
  while (!events.empty()) {
    if (says_gone(take_event(events))) return true;
  }
  return false;
}

}  // namespace

std::int64_t FeedReader::clock_offset_of(backend::SiteId site) const {
  return site == site_.log().site() ? 0 : site_.clock_offset_of(site);
}

// `then_ms` is by the clock of that site's database.
bool FeedReader::is_fresh(std::int64_t then_ms, backend::SiteId site) const {
  return then_ms >= fresh_since_ms(site);
}

std::int64_t FeedReader::fresh_since_ms(backend::SiteId site) const {
  return site_.database_now_ms() + clock_offset_of(site) - settings_.message_max_age_ms;
}

void FeedReader::publish(const Row& row) {
  if (row.kind == RowKind::subscribers) {
    const std::int64_t age_ms = site_.database_now_ms() + clock_offset_of(row.site) - row.sent_at;
    if (!row.copied && age_ms <= AnnouncementBook::kSilenceMs) hooks_.subscribers(row);
    return;
  }
  if (!is_fresh(row.sent_at, row.site)) {
    site_.stats().stale_messages.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  // Fetched after newer ones of its publisher have been delivered.
  if (row.copied && row.seq < last(row.origin)) return;
  deliver_message(row);
}

void FeedReader::deliver_message(const Row& row) {
  const auto send = [this, to_shard = row.kind == RowKind::spublish](std::string_view to,
                                                                     std::string_view text) {
    to_shard ? pubsub_.publish_to_shard(to, text) : pubsub_.publish(to, text);
  };
  if (may_leave()) {
    send(row.key, row.value);
    return;
  }
  put_behind(
      [this, send, to = std::string(row.key), text = std::string(row.value), sent_at = row.sent_at,
       site = row.site] {
        // What it stood behind may have taken long.
        if (is_fresh(sent_at, site)) {
          send(to, text);
        } else {
          site_.stats().stale_messages.fetch_add(1, std::memory_order_relaxed);
        }
      },
      Journal::Deferral::message);
}

// On the writer, events of own commands may still wait for their commit, and what other sites say stands
// behind them; then all that they say afterwards does, for it must not be overtaken either.
void FeedReader::put_behind(std::function<void()> send, Journal::Deferral what) {
  behind_.fetch_add(1);
  hooks_.in_order(
      [this, send = std::move(send)] {
        send();
        behind_.fetch_sub(1);
      },
      what);
}

// A row of another site which the writer folded after this one may stand in front of it in the log: then the
// key has been told to be gone, or to be there, already.
bool FeedReader::fits_own(std::string_view event, const Result& result) const {
  if (!keyspace_.linked()) return true;
  // These may have taken the last of the key.
  if (event == "hdel" || event == "srem" || event == "spop") return result.existed || result.exists;
  return says_gone(event) != result.exists;
}

// Whether the row did here what its event says. Another row may have won, or the key may have been gone.
bool FeedReader::deserves(std::string_view event, std::size_t index) const {
  const Result& result = results_[index];
  // Of this site's own rows the writer has judged; one that changes nothing here came with a state that was
  // read anew, and nobody has been told. What has expired each server may have told by itself.
  const bool may_have_told = event == "expired" && keyspace_.linked();
  if (!is_of_other_site(group_[index]) && !may_have_told) return fits_own(event, result);
  // Who counts on an expired key makes it anew in the same row.
  if (event == "expired" && group_[index].kind == RowKind::expire) return result.existed && result.won;
  if (says_gone(event)) return result.existed && !result.exists;
  if (!result.existed && !result.exists) return false;
  // That it has expired is told elsewhere, and must be the last word.
  if (result.dead_on_arrival) return false;
  // A command's event stands at its last row of the key, and any of them may be the one that won.
  const Row row = group_[index];
  for (std::size_t i = 0; i <= index; ++i) {
    if (results_[i].won && group_[i].key == row.key && group_[i].db == row.db) return true;
  }
  return false;
}

// Whether the group ends the key with this row and does not say so: what it took was all that was left here,
// as a row that its writer had not seen had taken the rest.
bool FeedReader::took_away(std::size_t index) const {
  const Row row = group_[index];
  if (!backend::is_of_key(row.kind) || results_[index].exists || names_gone(row.event)) return false;
  bool existed = false;
  for (std::size_t i = group_.size(); i-- > 0;) {
    const Row other = group_[i];
    if (other.key != row.key || other.db != row.db) continue;
    if (i > index || names_gone(other.event)) return false;
    existed = results_[i].existed;
  }
  return existed;
}

void FeedReader::raise_events(std::size_t index) {
  const Row row = group_[index];
  if (!pubsub_.has_subscribers() || !results_[index].fresh) return;
  std::string_view events = row.event;
  while (!events.empty()) {
    const std::string_view event = take_event(events);
    if (deserves(event, index)) raise(event, row.db, row.key);
  }
  if (took_away(index)) raise("del", row.db, row.key);
}

void FeedReader::raise(std::string_view event, std::uint8_t db, std::string_view key) {
  const std::uint32_t wanted = settings_.notify_flags();
  if ((wanted & event_class(event)) == 0) return;
  for_each_event_channel(wanted, event, db, key, [this](std::string_view channel, std::string_view payload) {
    if (may_leave()) {
      pubsub_.publish(channel, payload);
      return;
    }
    put_behind([this, to = std::string(channel), text = std::string(payload)] { pubsub_.publish(to, text); },
               Journal::Deferral::news);
  });
}

// Once a site's rows are young again, or there are no more.
void FeedReader::tell_net_change() {
  for (auto it = late_.begin(); it != late_.end();) {
    if (!it->second.fresh) {
      ++it;
      continue;
    }
    it->second.keys.tell(
        keyspace_, wall_clock_ms(),
        [this](std::string_view event, std::uint8_t db, std::string_view key) { raise(event, db, key); });
    it = late_.erase(it);
  }
}

}  // namespace isthmus
