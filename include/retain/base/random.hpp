// SPDX-License-Identifier: MIT
// A random generator. Its whole state is one integer, which is easy to save.
#pragma once

#include <cstdint>

namespace retain::detail {

/// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
class splitmix64 {
 public:
  explicit splitmix64(std::uint64_t seed = 0) : state_(seed) {}

  std::uint64_t operator()() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }

  /// Returns a uniform integer in [0, bound), without bias (Lemire, arXiv 1805.10941).
  std::uint64_t below(std::uint64_t bound) {
    __extension__ using wide = unsigned __int128;
    wide product = static_cast<wide>((*this)()) * bound;
    if (static_cast<std::uint64_t>(product) < bound) {
      const std::uint64_t threshold = (0 - bound) % bound;
      while (static_cast<std::uint64_t>(product) < threshold)
        product = static_cast<wide>((*this)()) * bound;
    }
    return static_cast<std::uint64_t>(product >> 64);
  }

  /// Returns a uniform position in a row of `size` items.
  std::int64_t index(std::int64_t size) {
    return static_cast<std::int64_t>(below(static_cast<std::uint64_t>(size)));
  }

  /// Returns a uniform multiple of 2^-53 in [0, 1).
  double real() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

  std::uint64_t state() const { return state_; }
  void set_state(std::uint64_t state) { state_ = state; }

 private:
  std::uint64_t state_;
};

}  // namespace retain::detail
