// A random positive number, as sites and origins are called.
#include "backend/random_id.hpp"

#include <limits>
#include <random>

namespace isthmus::backend {

std::int64_t random_id() {
  std::random_device source;
  std::uniform_int_distribution<std::int64_t> positive(1, std::numeric_limits<std::int64_t>::max());
  return positive(source);
}

}  // namespace isthmus::backend
