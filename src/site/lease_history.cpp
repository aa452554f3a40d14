#include "src/site/lease_history.hpp"

#include <algorithm>
#include <charconv>

namespace isthmus {

std::string lease_value(const LeaseStamp& before) {
  return std::to_string(before.lease) + ":" + std::to_string(before.seq);
}

LeaseStamp parse_lease_value(std::string_view value) {
  LeaseStamp before;
  const char* end = value.data() + value.size();
  const auto lease = std::from_chars(value.data(), end, before.lease);
  if (lease.ec != std::errc{} || lease.ptr == end || *lease.ptr != ':') return {};
  const auto seq = std::from_chars(lease.ptr + 1, end, before.seq);
  return seq.ec == std::errc{} && seq.ptr == end ? before : LeaseStamp{};
}

LeaseHistory::Place LeaseHistory::find(backend::OriginId lease) const {
  return std::find_if(entries_.begin(), entries_.end(),
                      [lease](const Entry& entry) { return entry.lease == lease; });
}

void LeaseHistory::add(backend::OriginId lease, const LeaseStamp& before) {
  const std::lock_guard lock(mutex_);
  if (lease == 0 || find(lease) != entries_.end()) return;
  entries_.push_back({lease, before});
  if (entries_.size() > kMax) entries_.pop_front();
}

bool LeaseHistory::knows(backend::OriginId lease) const {
  const std::lock_guard lock(mutex_);
  return find(lease) != entries_.end();
}

// A lease that continues from one of those behind `held` says nothing new. One that continues from a lease we
// have never seen was taken long after: what we hold is old.
LeaseHistory::Verdict LeaseHistory::judge(const LeaseStamp& held) const {
  const std::lock_guard lock(mutex_);
  const Place ours = find(held.lease);
  const Place later = ours == entries_.end() ? entries_.begin() : ours + 1;
  if (later == entries_.end()) return Verdict::alone;
  const bool covered = std::any_of(later, entries_.end(), [&](const Entry& entry) {
    if (entry.before.lease == held.lease) return entry.before.seq >= held.seq;
    return find(entry.before.lease) == entries_.end();
  });
  return covered ? Verdict::covered : Verdict::ahead;
}

}  // namespace isthmus
