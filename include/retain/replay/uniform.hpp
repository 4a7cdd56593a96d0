// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/random.hpp>
#include <retain/core/state.hpp>
#include <retain/replay/sampler.hpp>

#include <cstdint>
#include <string>

namespace retain {

/// Every one of `size` items is equally likely at every draw: uniform with replacement.
class uniform {
 public:
  /// Throws config_error for a negative size.
  explicit uniform(std::int64_t size, std::uint64_t seed = 0) : size_(0), random_(seed) {
    resize(size);
  }

  /// Indices [n]. Throws config_error when there are no items.
  drawn sample(std::int64_t n) {
    detail::check_draw("uniform", n, size_);
    const detail::index_buffer indices("uniform", n);
    for (std::int64_t i = 0; i < n; ++i) indices.data[i] = random_.index(size_);
    return {indices.tensor, {}, {}, {}};
  }

  std::int64_t size() const { return size_; }
  /// How many items there are from now on. Throws config_error for a negative number.
  void resize(std::int64_t size) {
    if (size < 0)
      throw config_error(
          detail::concat("uniform: the number of items must not be negative, got ", size));
    size_ = size;
  }

  /// The generator; the number of items is the caller's to know.
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
