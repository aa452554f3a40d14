#include "src/site/reach.hpp"

#include <algorithm>
#include <charconv>
#include <limits>

#include "src/keyspace/clock.hpp"
#include "src/site/lease_history.hpp"

namespace isthmus {

using backend::OriginId;
using backend::Row;
using backend::RowKind;
using backend::Seq;
using backend::SiteId;
using backend::Version;

std::string pairs_text(const std::map<std::int64_t, std::uint64_t>& pairs) {
  std::string text;
  for (const auto& [name, value] : pairs) {
    if (!text.empty()) text.push_back(' ');
    text.append(std::to_string(name)).append(1, '=').append(std::to_string(value));
  }
  return text;
}

std::map<std::int64_t, std::uint64_t> parse_pairs(std::string_view text) {
  std::map<std::int64_t, std::uint64_t> pairs;
  while (!text.empty()) {
    const std::string_view pair = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), pair.size() + 1));
    const char* end = pair.data() + pair.size();
    std::int64_t name = 0;
    std::uint64_t value = 0;
    const auto [equals, problem] = std::from_chars(pair.data(), end, name);
    if (problem != std::errc{} || equals == end || *equals != '=') continue;
    const auto [stop, value_problem] = std::from_chars(equals + 1, end, value);
    if (value_problem == std::errc{} && stop == end) pairs[name] = value;
  }
  return pairs;
}

bool Reach::take(const Row& row) {
  if (!take_seq(row)) return false;
  switch (row.kind) {
    case RowKind::lease:
      take_lease(row);
      break;
    case RowKind::frontier:
      take_frontier(row);
      break;
    case RowKind::reach:
      take_reach(row);
      break;
    default:
      break;
  }
  return true;
}

// The origin, remembered as it is in case the group comes again.
Reach::Origin& Reach::change(OriginId id) {
  Origin& origin = origins_[id];
  before_.emplace_back(id, origin);
  return origin;
}

bool Reach::take_seq(const Row& row) {
  const auto it = origins_.find(row.origin);
  const Seq last = it == origins_.end() ? 0 : it->second.last;
  if (row.seq > last) {
    Origin& origin = change(row.origin);
    origin.site = row.site;
    // Copied rows come as far as there are any; what they leave out does not exist.
    if (row.seq > last + 1 && row.site != own_ && !row.copied) {
      if (origin.missing.empty()) ++with_gaps_;
      origin.missing.push_back({last + 1, row.seq - 1});
      ++gaps_found_;
    }
    origin.last = origin.shown = row.seq;
    return true;
  }
  const auto holds = [&](const Span& span) { return span.from <= row.seq && row.seq <= span.to; };
  const auto& missing = it->second.missing;
  if (std::none_of(missing.begin(), missing.end(), holds)) return false;
  Origin& origin = change(row.origin);
  origin.shown = std::max(origin.shown, row.seq);
  const auto span = std::find_if(origin.missing.begin(), origin.missing.end(), holds);
  const Span old = *span;
  std::vector<Span> rest;
  if (old.from < row.seq) rest.push_back({old.from, row.seq - 1});
  if (row.seq < old.to) rest.push_back({row.seq + 1, old.to});
  origin.missing.insert(origin.missing.erase(span), rest.begin(), rest.end());
  if (origin.missing.empty()) --with_gaps_;
  return true;
}

// A lease says how far its holder had seen the one before, so that a lost end of that one is noticed too.
void Reach::take_lease(const Row& row) {
  if (row.site == own_) return;
  const LeaseStamp before = parse_lease_value(row.value);
  if (before.lease != 0) expect(row.site, before.lease, before.seq);
}

// The site has rows of this origin up to there.
void Reach::expect(SiteId site, OriginId id, Seq seq) {
  if (last(id) >= seq) return;
  Origin& origin = change(id);
  origin.site = site;
  if (origin.missing.empty()) ++with_gaps_;
  origin.missing.push_back({origin.last + 1, seq});
  origin.last = seq;
  ++gaps_found_;
}

void Reach::take_frontier(const Row& row) {
  if (row.copied || (row.site != own_ && has_gap(row.site))) return;
  Frontier said = parse_pairs(row.value);
  said[row.site] = row.version;
  Frontier& known = said_[row.site];
  for (const auto& [site, version] : said) known[site] = std::max(known[site], version);
  if (row.site != own_) folded_[row.site] = std::max(folded_[row.site], row.version);
}

// Copied, with a version: a copy of all of a site's rows, up to its frontier; without: of what was missing.
// In a site's own stream: rows that its database had lost are back.
void Reach::take_reach(const Row& row) {
  if (!row.copied) {
    if (row.site == own_) return;
    for (const auto& [id, seq] : parse_pairs(row.value)) expect(row.site, id, seq);
    return;
  }
  for (const auto& [id, seq] : parse_pairs(row.value)) {
    Origin& origin = change(id);
    origin.site = row.site;
    const bool had_gap = !origin.missing.empty();
    close_up_to(origin, seq);
    if (had_gap && origin.missing.empty()) --with_gaps_;
  }
  if (row.version == 0) return;
  for (auto& [id, origin] : origins_) {
    if (origin.site != row.site || origin.missing.empty()) continue;
    before_.emplace_back(id, origin);
    origin.missing.clear();
    --with_gaps_;
  }
  folded_[row.site] = std::max(folded_[row.site], row.version);
}

void Reach::close_up_to(Origin& origin, Seq seq) {
  origin.last = std::max(origin.last, seq);
  std::erase_if(origin.missing, [seq](const Span& span) { return span.to <= seq; });
  for (Span& span : origin.missing) span.from = std::max(span.from, seq + 1);
}

void Reach::forget_group() {
  for (auto it = before_.rbegin(); it != before_.rend(); ++it) {
    Origin& origin = origins_[it->first];
    with_gaps_ += it->second.missing.empty() ? 0 : 1;
    with_gaps_ -= origin.missing.empty() ? 0 : 1;
    origin = it->second;
  }
  before_.clear();
}

void Reach::covered(OriginId id, SiteId site, Seq seq) {
  Origin& origin = origins_[id];
  origin.site = site;
  origin.last = std::max(origin.last, seq);
  origin.shown = std::max(origin.shown, seq);
}

void Reach::restore(const backend::StoredFrontier& frontier) {
  Version& said = said_[frontier.site][frontier.of];
  said = std::max(said, frontier.version);
  if (frontier.site != own_ && frontier.site == frontier.of) {
    folded_[frontier.site] = std::max(folded_[frontier.site], frontier.version);
  }
}

void Reach::merge(const Reach& newer) {
  for (const auto& [id, theirs] : newer.origins_) {
    Origin& mine = origins_[id];
    if (theirs.last < mine.last) continue;
    with_gaps_ += theirs.missing.empty() ? 0 : 1;
    with_gaps_ -= mine.missing.empty() ? 0 : 1;
    mine = theirs;
  }
  for (const auto& [site, version] : newer.folded_) folded_[site] = std::max(folded_[site], version);
  for (const auto& [site, said] : newer.said_) {
    for (const auto& [of, version] : said) said_[site][of] = std::max(said_[site][of], version);
  }
}

void Reach::lower(OriginId id, Seq seq) {
  const auto it = origins_.find(id);
  if (it == origins_.end() || it->second.last <= seq) return;
  Origin& origin = it->second;
  const bool had_gap = !origin.missing.empty();
  Seq& lost = lost_[id];
  lost = std::max(lost, origin.shown);
  origin.last = seq;
  origin.shown = std::min(origin.shown, seq);
  std::erase_if(origin.missing, [seq](const Span& span) { return span.from > seq; });
  for (Span& span : origin.missing) span.to = std::min(span.to, seq);
  if (had_gap && origin.missing.empty()) --with_gaps_;
}

Seq Reach::lost(OriginId id) const {
  const auto it = lost_.find(id);
  return it == lost_.end() ? 0 : it->second;
}

Seq Reach::last(OriginId id) const {
  const auto it = origins_.find(id);
  return it == origins_.end() ? 0 : it->second.last;
}

Seq Reach::shown(OriginId id) const {
  const auto it = origins_.find(id);
  return it == origins_.end() ? 0 : it->second.shown;
}

Seq Reach::whole(OriginId id) const {
  const auto it = origins_.find(id);
  return it == origins_.end() ? 0 : whole(it->second);
}

Seq Reach::whole(const Origin& origin) {
  Seq seq = origin.last;
  for (const Span& span : origin.missing) seq = std::min(seq, span.from - 1);
  return seq;
}

backend::Vector Reach::vector() const {
  backend::Vector known;
  for (const auto& [id, origin] : origins_) known[id] = origin.missing.empty() ? origin.last : whole(id);
  return known;
}

backend::Vector Reach::foreign_vector() const {
  backend::Vector known;
  for (const auto& [id, origin] : origins_) {
    if (origin.site != own_ && origin.site != 0) known[id] = whole(origin);
  }
  return known;
}

backend::Vector Reach::folded_vector() const {
  backend::Vector known = foreign_vector();
  for (auto it = before_.rbegin(); it != before_.rend(); ++it) {
    if (const auto found = known.find(it->first); found != known.end()) found->second = whole(it->second);
  }
  return known;
}

bool Reach::has_gap(SiteId site) const {
  if (with_gaps_ == 0) return false;
  return std::any_of(origins_.begin(), origins_.end(), [site](const auto& entry) {
    return entry.second.site == site && !entry.second.missing.empty();
  });
}

std::vector<Gap> Reach::gaps() const {
  std::vector<Gap> all;
  if (with_gaps_ == 0) return all;
  for (const auto& [id, origin] : origins_) {
    for (const Span& span : origin.missing) all.push_back({origin.site, id, span.from, span.to});
  }
  return all;
}

std::vector<backend::StoredFrontier> Reach::frontiers() const {
  std::map<SiteId, Frontier> known = said_;
  for (const auto& [site, version] : folded_) known[site][site] = std::max(known[site][site], version);
  std::vector<backend::StoredFrontier> all;
  for (const auto& [site, said] : known) {
    for (const auto& [of, version] : said) all.push_back({site, of, version});
  }
  return all;
}

Version Reach::said(SiteId site, SiteId of) const {
  const auto reporter = said_.find(site);
  if (reporter == said_.end()) return 0;
  const auto version = reporter->second.find(of);
  return version == reporter->second.end() ? 0 : version->second;
}

Version Reach::stable(const std::vector<SiteId>& peers, std::int64_t retention_ms) const {
  std::vector<SiteId> sites = peers;
  sites.push_back(own_);
  Version lowest = std::numeric_limits<Version>::max();
  for (const SiteId site : sites) {
    const auto said = said_.find(site);
    if (said == said_.end()) return 0;
    // By both clocks, as one of the two may be wild.
    const Version latest = std::min(this->said(site, site), this->said(own_, own_));
    for (const SiteId of : sites) {
      const auto version = said->second.find(of);
      if (version == said->second.end()) return 0;
      if (HybridClock::milliseconds(latest) - HybridClock::milliseconds(version->second) > retention_ms)
        continue;
      lowest = std::min(lowest, version->second);
    }
  }
  return lowest;
}

std::vector<OriginId> Reach::give_up_gaps(const std::vector<SiteId>& peers) {
  std::vector<OriginId> given_up;
  if (with_gaps_ == 0 || !before_.empty()) return given_up;
  for (auto& [id, origin] : origins_) {
    if (origin.missing.empty() || origin.site == own_) continue;
    if (std::find(peers.begin(), peers.end(), origin.site) != peers.end()) continue;
    origin.missing.clear();
    --with_gaps_;
    given_up.push_back(id);
  }
  return given_up;
}

}  // namespace isthmus
