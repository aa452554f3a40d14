#include "src/site/site.hpp"

#include "src/site/journal.hpp"

namespace isthmus {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::follower:
      return "follower";
    case Role::candidate:
      return "candidate";
    case Role::writer:
      return "writer";
  }
  return "unknown";
}

Site::Site(backend::SharedLog& log, std::string address, std::string version)
    : log_(log), server_(random_origin()), address_(std::move(address)), version_(std::move(version)) {}

backend::LeaseRow Site::lease() const {
  const std::lock_guard lock(mutex_);
  return lease_;
}

void Site::set_lease(const backend::LeaseRow& lease) {
  const std::lock_guard lock(mutex_);
  lease_ = lease;
}

backend::UpkeepReport Site::report() const {
  const std::lock_guard lock(mutex_);
  return report_;
}

void Site::set_report(backend::UpkeepReport report) {
  clock_offset_ms_.store(report.clock_offset_ms, std::memory_order_relaxed);
  const std::lock_guard lock(mutex_);
  report_ = std::move(report);
}

}  // namespace isthmus
