// A random positive number, as sites and origins are called.
#pragma once

#include <cstdint>

namespace isthmus::backend {

/// A number in 1 … 2^63-1 from the system's source of randomness: two databases practically never get the
/// same.
std::int64_t random_id();

}  // namespace isthmus::backend
