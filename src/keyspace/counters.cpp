#include "src/keyspace/counters.hpp"

#include <algorithm>
#include <charconv>

namespace isthmus {
namespace {

__extension__ using Wide = __int128;

std::string name_of(std::uint8_t db, std::string_view key) {
  std::string name(1, static_cast<char>(db));
  name.append(key);
  return name;
}

// Reads a number up to `end_mark` (or the end of the text, if it is 0) and takes both away.
template <class Number>
bool take(std::string_view& text, char end_mark, Number& number) {
  const char* const end = text.data() + text.size();
  const auto [after, problem] = std::from_chars(text.data(), end, number);
  if (problem != std::errc{}) return false;
  if (end_mark == 0) return after == end;
  if (after == end || *after != end_mark) return false;
  text.remove_prefix(static_cast<std::size_t>(after - text.data()) + 1);
  return true;
}

}  // namespace

std::int64_t Counter::sum() const {
  using Limits = std::numeric_limits<std::int64_t>;
  Wide sum = 0;
  if (base) {
    std::int64_t number = 0;
    std::from_chars(base->data(), base->data() + base->size(), number);
    sum = number;
  }
  for (const auto& [lease, total] : totals) sum += total.total;
  return static_cast<std::int64_t>(std::clamp<Wide>(sum, Limits::min(), Limits::max()));
}

Point Counter::highest_base() const {
  Point highest;
  for (const auto& [lease, total] : totals) highest = std::max(highest, total.base);
  return highest;
}

Point Counter::highest_write() const {
  Point highest;
  for (const auto& [lease, total] : totals) {
    if (!total.is_mark()) highest = std::max(highest, total.base);
  }
  return highest;
}

Version Counter::highest_stamp() const {
  Version highest = 0;
  for (const auto& [lease, total] : totals) highest = std::max(highest, total.stamp.version);
  return highest;
}

bool Counter::drop_older(const Point& at, bool inclusive) {
  std::erase_if(totals, [&](const auto& entry) {
    return entry.second.base < at || (inclusive && entry.second.base == at);
  });
  return !totals.empty();
}

bool Counter::add(backend::OriginId lease, const Total& total) {
  const auto seen_by = [&](const auto& entry) {
    return entry.second.is_mark() && total.stamp.version <= entry.second.base.version;
  };
  if (std::any_of(totals.begin(), totals.end(), seen_by)) return false;
  Total& known = totals[lease];
  if (known.stamp.version >= total.stamp.version) return false;
  known = total;
  if (total.is_mark()) {
    std::erase_if(totals, [&](const auto& e) { return e.second.stamp.version <= total.base.version; });
  }
  return true;
}

std::string totals_text(const Counter& counter) {
  std::string text;
  for (const auto& [lease, total] : counter.totals) {
    if (!text.empty()) text.push_back(' ');
    text.append(std::to_string(lease)).append("=").append(std::to_string(total.total));
    text.append("@").append(std::to_string(total.stamp.version));
    text.append(",").append(std::to_string(total.stamp.site));
    text.append(",").append(std::to_string(total.base.version));
    text.append(",").append(std::to_string(total.base.site));
  }
  return text;
}

std::map<backend::OriginId, Total> parse_totals(std::string_view text) {
  std::map<backend::OriginId, Total> totals;
  while (!text.empty()) {
    std::string_view item = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    backend::OriginId lease = 0;
    Total total;
    const bool whole = take(item, '=', lease) && take(item, '@', total.total) &&
                       take(item, ',', total.stamp.version) && take(item, ',', total.stamp.site) &&
                       take(item, ',', total.base.version) && take(item, 0, total.base.site);
    if (whole) totals[lease] = total;
  }
  return totals;
}

KeyCounters* CounterTable::find(std::uint8_t db, std::string_view key) {
  if (keys_.empty()) return nullptr;
  const auto it = keys_.find(name_of(db, key));
  return it == keys_.end() ? nullptr : &it->second;
}

KeyCounters& CounterTable::make(std::uint8_t db, std::string_view key) { return keys_[name_of(db, key)]; }

void CounterTable::erase(std::uint8_t db, std::string_view key) { keys_.erase(name_of(db, key)); }

void CounterTable::clear(std::uint8_t db) {
  if (keys_.empty()) return;
  boost::unordered::erase_if(keys_,
                             [db](const auto& entry) { return entry.first[0] == static_cast<char>(db); });
}

}  // namespace isthmus
