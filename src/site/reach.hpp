// How far a server has the rows of every origin, where rows are missing, and how far each site says it has
// folded the others. No I/O. See ARCHITECTURE.md, "Data centers".
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <boost/unordered/unordered_flat_map.hpp>

#include "backend/log.hpp"

namespace isthmus {

/// For each site the highest version up to which everything of it has been folded.
using Frontier = std::map<backend::SiteId, backend::Version>;

/// What a row of kind `frontier` says: "site=version site=version …" with the numbers in decimal; and the
/// same for the origins and seqs of a row of kind `reach`. Reading leaves out what is no such pair.
std::string pairs_text(const std::map<std::int64_t, std::uint64_t>& pairs);
std::map<std::int64_t, std::uint64_t> parse_pairs(std::string_view text);

/// Rows of an origin that are missing: from <= seq <= to.
struct Gap {
  backend::SiteId site = 0;
  backend::OriginId origin = 0;
  backend::Seq from = 0, to = 0;
};

/// Fed with every row that a server reads, in the order in which it reads them. Rows of other sites come in a
/// stream that loses nothing unless one of the two databases went back in time; then a jump of seq tells. A
/// frontier never passes a gap, and nothing is learned from a stream that has one.
class Reach {
 public:
  explicit Reach(backend::SiteId own) : own_(own) {}

  /// Notes the row. False if it has been noted before: a repeat.
  bool take(const backend::Row& row);
  /// The group of the last rows is complete, and folded: they stay noted.
  void end_group() { before_.clear(); }
  /// The rows since the last end of a group come again: they are forgotten.
  void forget_group();

  /// What a checkpoint says.
  void covered(backend::OriginId origin, backend::SiteId site, backend::Seq seq);
  void restore(const backend::StoredFrontier& frontier);
  /// What another server's state, or a later one of this server, knows more. Where both have the rows of an
  /// origin, the one that is further counts.
  void merge(const Reach& newer);
  /// The database lacks what is above `seq`.
  void lower(backend::OriginId origin, backend::Seq seq);
  /// The highest seq of which a row was read before the database lost it; 0 if it lost none. Rows up to there
  /// that come back are taken, for the log lacked them, but they are no news.
  backend::Seq lost(backend::OriginId origin) const;

  backend::Seq last(backend::OriginId origin) const;
  /// The highest seq of which a row was read, or that a checkpoint covers: what the database has shown. A
  /// copy stands for rows of a peer that are not in this log, so `last` may be higher.
  backend::Seq shown(backend::OriginId origin) const;
  /// The highest seq up to which nothing is missing.
  backend::Seq whole(backend::OriginId origin) const;
  /// `whole` of every origin.
  backend::Vector vector() const;
  /// The same of other sites' origins only; and without the rows of a group that has not ended.
  backend::Vector foreign_vector() const;
  backend::Vector folded_vector() const;
  /// All gaps of other sites' rows.
  std::vector<Gap> gaps() const;
  std::uint64_t gaps_found() const { return gaps_found_; }

  /// What this server has folded of each other site.
  const Frontier& folded() const { return folded_; }
  /// What each site has said last, its own included, for a checkpoint.
  std::vector<backend::StoredFrontier> frontiers() const;
  /// What `site` has said of `of`; 0 if nothing.
  backend::Version said(backend::SiteId site, backend::SiteId of) const;
  /// Below this nothing new can arrive from any of these sites or this one; 0 while one of them has said
  /// nothing. Who has not heard of another one for longer than `retention_ms` has given that one up, and will
  /// copy its state as a whole.
  backend::Version stable(const std::vector<backend::SiteId>& peers, std::int64_t retention_ms) const;
  bool has_gap(backend::SiteId site) const;
  /// Rows that are missing of sites other than this one and these will not come: nobody has them. Gives the
  /// origins of which they were missing.
  std::vector<backend::OriginId> give_up_gaps(const std::vector<backend::SiteId>& peers);

 private:
  struct Span {
    backend::Seq from, to;
  };
  struct Origin {
    backend::SiteId site = 0;
    backend::Seq last = 0, shown = 0;
    std::vector<Span> missing;
  };
  Origin& change(backend::OriginId origin);
  bool take_seq(const backend::Row& row);
  void take_lease(const backend::Row& row);
  void take_frontier(const backend::Row& row);
  void take_reach(const backend::Row& row);
  void expect(backend::SiteId site, backend::OriginId id, backend::Seq seq);
  static void close_up_to(Origin& origin, backend::Seq seq);
  static backend::Seq whole(const Origin& origin);

  const backend::SiteId own_;
  boost::unordered_flat_map<backend::OriginId, Origin> origins_;
  std::vector<std::pair<backend::OriginId, Origin>> before_;         // as they were before the group began
  boost::unordered_flat_map<backend::OriginId, backend::Seq> lost_;  // see `lost`
  std::size_t with_gaps_ = 0;                                        // origins that have any
  std::uint64_t gaps_found_ = 0;
  Frontier folded_;
  std::map<backend::SiteId, Frontier> said_;
};

}  // namespace isthmus
