#include "src/command/call.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "src/keyspace/dots.hpp"

namespace isthmus {

using backend::Row;
using backend::RowKind;

namespace {

// Rows that make a key live: an expired key of that name is deleted first, so that nothing of it can come
// back.
bool revives(RowKind kind) {
  return kind == RowKind::set || kind == RowKind::hcreate || kind == RowKind::screate;
}

}  // namespace

bool Evaluation::emit(Row& row, const Key& key) {
  Keyspace& keyspace = services_.keyspace;
  Shard& shard = keyspace.shard(key);
  const Node* node = keyspace.find_any(key);
  row.db = key.db;
  row.key = key.name;
  if (node != nullptr && revives(row.kind) && has_content(*node) && node->deadline() <= now_ms_) {
    delete_expired(key);
    node = keyspace.find_any(key);
  }
  const Version floor = keyspace.highest_version(key, node) + 1;
  const bool created = revives(row.kind) && (node == nullptr || !holds_value(*node));
  const backend::Seq place = group_.add(row, now_ms_, floor);
  keyspace.fold(row, key.hash, 0);
  if (place != 0) {
    shard.gate(key.hash) = place;
    raise_gate(place);
    emitted_bytes_ += row.key.size() + row.field.size() + row.value.size();
  }
  keyspace.touch(key);
  return created;
}

// Other servers may have told already that it expired, or may not: the row says it in any case.
void Evaluation::delete_expired(const Key& key) {
  const bool told = services_.keyspace.find_any(key)->told;
  Row row;
  row.kind = RowKind::del;
  emit(row, key);
  group_.add_event(key.db, key.name, "expired");
  if (told) return;
  services_.stats.expired_keys.fetch_add(1, std::memory_order_relaxed);
  raise(kEventExpired, "expired", key);
}

void Evaluation::tell_expired(const Key& key, bool is_news) {
  if (!services_.keyspace.tell_expired(key, now_ms_)) return;
  services_.keyspace.touch(key);
  services_.stats.expired_keys.fetch_add(1, std::memory_order_relaxed);
  if (is_news) raise(kEventExpired, "expired", key, Journal::Deferral::news);
}

bool Evaluation::expire_due(std::size_t shard_index, std::size_t limit, std::int64_t news_since_ms) {
  Shard& shard = services_.keyspace.shards()[shard_index];
  locks_.lock_one(shard);
  const bool linked = services_.keyspace.linked();
  if (!linked && services_.site != nullptr && !services_.site->is_writer()) return false;
  for (; limit > 0; --limit) {
    const auto expired = services_.keyspace.next_expired(shard, now_ms_);
    if (!expired) return false;
    const Key key(expired->db, expired->name);
    if (linked) {
      const Node* const node = services_.keyspace.find_any(key);
      tell_expired(key, node->deadline() >= news_since_ms);
    } else {
      delete_expired(key);
    }
  }
  return true;
}

void Evaluation::notify(EventClass event_class, std::string_view event, const Key& key) {
  group_.add_event(key.db, key.name, event);
  // A miss is no effect: it needs no commit while the backend is down.
  const bool miss = event_class == kEventKeyMiss;
  raise(event_class, event, key, miss ? Journal::Deferral::message : Journal::Deferral::effect);
}

// On this server only.
void Evaluation::raise(EventClass event_class, std::string_view event, const Key& key,
                       Journal::Deferral what) {
  const std::uint32_t wanted = services_.settings.notify_flags.load(std::memory_order_relaxed);
  if ((wanted & event_class) == 0 || !services_.pubsub.has_subscribers()) return;
  const auto send = [&](std::string_view channel, std::string_view payload) {
    const Journal& journal = services_.journal;
    if (!journal.durable() || (what == Journal::Deferral::news && journal.event_may_leave())) {
      services_.pubsub.publish(channel, payload);
      return;
    }
    group_.after_commit([&pubsub = services_.pubsub, to = std::string(channel),
                         text = std::string(payload)] { pubsub.publish(to, text); },
                        what);
  };
  for_each_event_channel(wanted, event, key.db, key.name, send);
}

bool Evaluation::fits(std::size_t more_bytes) const {
  return !services_.journal.durable() || emitted_bytes_ + more_bytes <= Journal::kGroupLimitBytes;
}

void Call::set(const Key& k, std::string_view value, std::optional<std::int64_t> deadline_ms) {
  Row row;
  row.kind = RowKind::set;
  row.value = value;
  row.expire_at = deadline_ms;
  if (evaluation_.emit(row, k)) notify(kEventNew, "new", k);
}

void Call::update(const Key& k, std::string_view value, bool piecewise) {
  Row row;
  row.kind = RowKind::update;
  row.value = value;
  evaluation_.emit(row, k);
  if (piecewise) services.keyspace.mark_piecewise(k);
}

void Call::hset(const Key& k, std::string_view field, std::string_view value, bool creates) {
  Row row;
  row.kind = creates ? RowKind::hcreate : RowKind::hset;
  row.field = field;
  row.value = value;
  if (evaluation_.emit(row, k)) notify(kEventNew, "new", k);
}

void Call::hdel(const Key& k, std::string_view field) {
  Row row;
  row.kind = RowKind::hdel;
  row.field = field;
  evaluation_.emit(row, k);
}

void Call::sadd(const Key& k, std::string_view member, bool creates) {
  Row row;
  row.kind = creates ? RowKind::screate : RowKind::sadd;
  row.field = member;
  if (evaluation_.emit(row, k)) notify(kEventNew, "new", k);
}

// Without peers there are no adds but the own ones, as a rule, and the row need not name one.
void Call::srem(const Key& k, std::string_view member) {
  Keyspace& keyspace = services.keyspace;
  for (const Dot& dot : Dots(keyspace, *hash_find(*keyspace.find_any(k), member))) {
    if (dot.removed) continue;
    Row row;
    row.kind = RowKind::srem;
    row.field = member;
    if (keyspace.linked() || dot.at.site != keyspace.site_id(0))
      row.count = {.base_version = dot.at.version, .base_site = dot.at.site};
    evaluation_.emit(row, k);
  }
}

void Call::del(const Key& k) {
  Row row;
  row.kind = RowKind::del;
  evaluation_.emit(row, k);
}

void Call::expire(const Key& k, std::optional<std::int64_t> deadline_ms) {
  Row row;
  row.kind = RowKind::expire;
  row.expire_at = deadline_ms;
  evaluation_.emit(row, k);
}

void Call::flush(std::uint8_t database) {
  Keyspace& keyspace = services.keyspace;
  keyspace.touch_database(database);
  Row row;
  row.kind = RowKind::flush;
  row.db = database;
  // A wild clock of another site may have written keys that are newer than now.
  const Version floor = keyspace.knows_other_sites() ? keyspace.highest_version(database) + 1 : 0;
  const backend::Seq place = evaluation_.group().add(row, now_ms(), floor);
  keyspace.fold(row, 0, 0);
  if (place == 0) return;
  for (Shard& shard : keyspace.shards()) shard.gates.fill(place);
  evaluation_.raise_gate(place);
}

bool Call::fits(std::size_t bytes) {
  if (evaluation_.fits(bytes)) return true;
  reply.error("ERR the effects of one command or transaction may not exceed 256 MiB");
  return false;
}

std::optional<std::int64_t> Call::integer(std::size_t index, std::string_view otherwise) {
  const auto value = parse_integer(args[index]);
  if (!value) reply.error(otherwise);
  return value;
}

std::optional<long double> Call::number(std::size_t index, std::string_view otherwise) {
  const auto value = parse_number(args[index]);
  if (!value) reply.error(otherwise);
  return value;
}

bool Call::is(std::size_t index, std::string_view word) const {
  return equals_ignoring_case(args[index], word);
}

void Call::wrong_arity() {
  std::string text = "ERR wrong number of arguments for '";
  text.append(command.name).append("' command");
  reply.error(text);
}

void Call::count_lookup(bool hit) {
  ThreadStats& stats = services.stats.thread(client.thread);
  ThreadStats::add(hit ? stats.keyspace_hits : stats.keyspace_misses, 1);
}

std::optional<std::int64_t> parse_integer(std::string_view text) {
  if (text.empty() || text.size() > 20) return std::nullopt;
  const bool negative = text[0] == '-';
  const char first = text[negative ? 1 : 0];  // a lone '-' fails below
  if (text.size() == 1 && negative) return std::nullopt;
  if (first == '0' && text.size() > 1) return std::nullopt;
  std::int64_t value = 0;
  const auto [end, problem] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (problem != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<long double> parse_number(std::string_view text) {
  constexpr std::size_t kMaxLength =
      5 * 1024 - 1;  // as long as Redis's own buffer for one (MAX_LONG_DOUBLE_CHARS)
  if (text.empty() || text.size() > kMaxLength || std::isspace(static_cast<unsigned char>(text[0])))
    return std::nullopt;
  const std::string copy(text);
  char* end = nullptr;
  errno = 0;
  const long double value = std::strtold(copy.c_str(), &end);
  if (end != copy.c_str() + copy.size() || std::isnan(value)) return std::nullopt;
  if (errno == ERANGE && (std::isinf(value) || value == 0)) return std::nullopt;
  return value;
}

std::string number_text(long double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::string text(5200, '\0');
  const int size = std::snprintf(text.data(), text.size(), "%.17Lf", value);
  text.resize(static_cast<std::size_t>(size));
  if (text.find('.') != std::string::npos) {
    text.erase(text.find_last_not_of('0') + 1);
    if (text.back() == '.') text.pop_back();
  }
  return text == "-0" ? "0" : text;
}

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

bool equals_ignoring_case(std::string_view text, std::string_view lower_case) {
  if (text.size() != lower_case.size()) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if ((c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c) != lower_case[i]) return false;
  }
  return true;
}

std::string log_refuses_writes(const Journal& journal) {
  return "CLUSTERDOWN The log refuses writes: " + journal.waiting_reason();
}

}  // namespace isthmus
