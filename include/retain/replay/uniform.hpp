// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/sampler.hpp>

#include <cstdint>
#include <string>

namespace retain {

/// Draws every one of `size` items with equal probability, with replacement.
class uniform {
 public:
  /// Throws config_error if the size is negative.
  explicit uniform(std::int64_t size, std::uint64_t seed = 0) : size_(0), random_(seed) {
    resize(size);
  }

  /// Draws n indices, [n]. Throws config_error if there are no items.
  drawn sample(std::int64_t n) {
    detail::check_draw("uniform", n, size_);
    const detail::index_buffer indices("uniform", n);
    for (std::int64_t i = 0; i < n; ++i) indices.data[i] = random_.index(size_);
    return {indices.tensor, {}, {}, {}};
  }

  std::int64_t size() const { return size_; }
  /// Sets the number of items. Throws config_error if the number is negative.
  void resize(std::int64_t size) {
    if (size < 0)
      throw config_error(
          detail::concat("uniform: the number of items must not be negative, got ", size));
    size_ = size;
  }

  /// Saves the generator, but not the number of items; the caller must set it.
  void save_state(state& out, const std::string& prefix) const {
    out.set(prefix + "random", random_.state());
  }
  void load_state(const state& in, const std::string& prefix) {
    random_.set_state(in.integer<std::uint64_t>(prefix + "random"));
  }

 private:
  std::int64_t size_;
  detail::splitmix64 random_;
};

}  // namespace retain
