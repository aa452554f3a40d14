// What is remembered of counters: who has added how much to which base. See MERGE.md, "Counters".
#pragma once

#include <compare>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include <boost/unordered/unordered_flat_map.hpp>

#include "src/keyspace/node.hpp"

namespace isthmus {

/// Stands for whatever site: with a version it means "after everything at this version".
inline constexpr backend::SiteId kEverySite = std::numeric_limits<backend::SiteId>::max();

/// Where something stands in the order of all writes.
struct Point {
  Version version = 0;
  backend::SiteId site = 0;
  friend auto operator<=>(const Point&, const Point&) = default;
};

/// What one lease has added to a base.
struct Total {
  std::int64_t total = 0;
  Point stamp;  ///< version and site of the row that said so
  /// The write that was counted on. Of a site that found nothing and remembered nothing it is (version,
  /// kEverySite): a *mark*, "nothing was there, as of everything up to this version".
  Point base;
  bool is_mark() const { return base.site == kEverySite; }
};

/// A string or a field that is counted on.
struct Counter {
  /// The value that was counted on; none if there was none (deleted, expired, never there).
  std::optional<std::string> base;
  std::map<backend::OriginId, Total> totals;  ///< by the lease that counts; never empty

  /// base and totals together; it stops at the limits of 64 bits.
  std::int64_t sum() const;
  /// The highest base of a total.
  Point highest_base() const;
  /// The highest base that is no mark; 0 if all are marks.
  Point highest_write() const;
  /// The highest version of a row in it.
  Version highest_stamp() const;
  /// Forgets the totals whose base is older than `at` (or stands there, if `inclusive`). False if none is
  /// left.
  bool drop_older(const Point& at, bool inclusive = false);
  /// Puts a total in unless a newer one of its lease, or a mark that has seen it, is there. A mark drops what
  /// it has seen. True if something changed.
  bool add(backend::OriginId lease, const Total& total);
};

/// The totals as text for a checkpoint: "lease=total@version,site,base_version,base_site …".
std::string totals_text(const Counter& counter);
/// Reads that; what is no such item is left out.
std::map<backend::OriginId, Total> parse_totals(std::string_view text);

/// What a shard knows of the counters of one key.
struct KeyCounters {
  std::optional<Counter> value;                        ///< of a string
  std::map<std::string, Counter, std::less<>> fields;  ///< of a hash
  bool empty() const { return !value && fields.empty(); }
};

/// All counters of a shard. Who looks first sees at Node::counted whether there is anything to find.
class CounterTable {
 public:
  KeyCounters* find(std::uint8_t db, std::string_view key);
  KeyCounters& make(std::uint8_t db, std::string_view key);
  void erase(std::uint8_t db, std::string_view key);
  void clear(std::uint8_t db);
  void swap(CounterTable& other) noexcept { keys_.swap(other.keys_); }

 private:
  boost::unordered_flat_map<std::string, KeyCounters> keys_;  // the database's number as one byte, the key
};

}  // namespace isthmus
