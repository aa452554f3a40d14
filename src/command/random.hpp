// Random bits for commands that choose at random (RANDOMKEY, HRANDFIELD). Not for secrets.
#pragma once

#include <cstdint>
#include <random>

namespace isthmus {

/// 64 random bits from a generator of the calling thread.
inline std::uint64_t random_bits() {
  thread_local std::mt19937_64 generator{(std::uint64_t{std::random_device{}()} << 32) |
                                         std::random_device{}()};
  return generator();
}

/// Chooses so many of a known number of things that pass by one after the other, every choice as likely as
/// any other (selection sampling: Knuth, The Art of Computer Programming, volume 2, algorithm S). `wanted`
/// must not exceed `total`.
class Selection {
 public:
  Selection(std::uint64_t total, std::uint64_t wanted) : left_(total), wanted_(wanted) {}
  bool done() const { return wanted_ == 0; }
  /// Whether the next thing is chosen. `random` is 64 random bits.
  bool take(std::uint64_t random) {
    if (random % left_-- >= wanted_) return false;
    --wanted_;
    return true;
  }

 private:
  std::uint64_t left_, wanted_;
};

}  // namespace isthmus
