#include "src/site/requesters.hpp"

namespace isthmus {
namespace {

// Every start of a server of the site is a new requester. Above so many, those without a connection are
// forgotten.
constexpr std::size_t kMostRemembered = 10'000;

}  // namespace

std::shared_ptr<Requester> Requesters::find(backend::OriginId server) {
  const std::lock_guard lock(mutex_);
  if (requesters_.size() > kMostRemembered) {
    std::erase_if(requesters_, [](const auto& item) { return item.second.use_count() == 1; });
  }
  std::shared_ptr<Requester>& requester = requesters_[server];
  if (requester == nullptr) requester = std::make_shared<Requester>();
  return requester;
}

}  // namespace isthmus
