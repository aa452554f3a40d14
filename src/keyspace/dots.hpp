// A member of a set: which adds of it are known, and which of them have been taken back (MERGE.md, "Sets").
//
// The literature calls the version and site of an add a *dot*. Of each site only its newest add counts.
// Nearly every member has one dot, and is a FieldView without a value: version, site, deleted. A member that
// several sites have added has them all in the value, as text.
#pragma once

#include <string>
#include <vector>

#include "src/keyspace/counters.hpp"
#include "src/keyspace/packed_hash.hpp"

namespace isthmus {

class Keyspace;

/// The newest known add of a site.
struct Dot {
  Point at;
  bool removed = false;  ///< it and all older ones of its site have been taken back
};

/// The dots of one member, at most one for each site; the newest first.
class Dots {
 public:
  Dots() = default;
  /// Those of a member of `keyspace`.
  Dots(const Keyspace& keyspace, const FieldView& member);

  /// Merges one more: of two of the same site the newer one stays, and of two equal ones the removed one.
  /// True if something has changed.
  bool merge(const Dot& dot);
  /// Forgets the dots at or below `at`. True if there were any.
  bool drop_older(const Point& at);
  /// Forgets removed dots at or below `stable`. One that is newer than all that live stays: a member's
  /// version never goes back.
  void forget(Version stable);

  bool empty() const { return dots_.empty(); }
  /// Whether the member is there: some add has not been taken back.
  bool live() const;
  const Dot& newest() const { return dots_.front(); }
  std::vector<Dot>::const_iterator begin() const { return dots_.begin(); }
  std::vector<Dot>::const_iterator end() const { return dots_.end(); }

  /// What a FieldView has as its value: nothing for one dot, else "site=version …", with a minus behind those
  /// that are removed.
  std::string text() const;

 private:
  std::vector<Dot> dots_;
};

}  // namespace isthmus
