// The leases of a site in the order of the log, and how much of the former one each of them knew.
#pragma once

#include <deque>
#include <mutex>
#include <string>
#include <string_view>

#include "backend/row.hpp"

namespace isthmus {

/// How far somebody has seen the rows of a lease.
struct LeaseStamp {
  backend::OriginId lease = 0;
  backend::Seq seq = 0;
};

/// What stands in the row of a lease as its value: what its holder had seen of the lease before. And back;
/// zeros if it is something else.
std::string lease_value(const LeaseStamp& before);
LeaseStamp parse_lease_value(std::string_view value);

/// The log is one line of leases, until it goes back in time: then the next lease may continue from less than
/// some server has seen. Thread-safe.
class LeaseHistory {
 public:
  /// Older ones are forgotten.
  static constexpr std::size_t kMax = 256;

  /// The log has shown this lease. Repeats are ignored.
  void add(backend::OriginId lease, const LeaseStamp& before);
  bool knows(backend::OriginId lease) const;

  enum class Verdict {
    alone,    ///< nobody has taken a lease since
    covered,  ///< somebody who had seen as much has
    ahead,    ///< who has taken it had seen less
  };
  /// Of a server that has seen so much of what the log may have lost.
  Verdict judge(const LeaseStamp& held) const;

 private:
  struct Entry {
    backend::OriginId lease;
    LeaseStamp before;
  };
  using Place = std::deque<Entry>::const_iterator;
  Place find(backend::OriginId lease) const;

  mutable std::mutex mutex_;
  std::deque<Entry> entries_;
};

}  // namespace isthmus
