// SPDX-License-Identifier: MIT
// What a policy's last layer means: how many numbers it has, and which distribution they are.
#pragma once

#include <retain/categorical.hpp>
#include <retain/detail/text.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/error.hpp>
#include <retain/tanh_gaussian.hpp>

#include <ATen/ATen.h>

#include <cstdint>

namespace retain {

/// One of `actions`, from their logits.
struct categorical_head {
  std::int64_t actions = 2;

  std::int64_t outputs() const { return actions; }
  categorical operator()(const at::Tensor& outputs) const { return categorical{outputs}; }
};

namespace detail {

/// Means and the logarithms of standard deviations, side by side. Beyond the bounds a deviation has no gradient.
inline diagonal_gaussian gaussian_of(const at::Tensor& outputs, double least_log_std, double greatest_log_std) {
  const auto parts = outputs.chunk(2, -1);
  return {parts[0], parts[1].clamp(least_log_std, greatest_log_std)};
}

}  // namespace detail

/// A diagonal Gaussian over `dimensions` numbers, whose standard deviations depend on the state.
struct diagonal_gaussian_head {
  std::int64_t dimensions = 1;
  double least_log_std = -20, greatest_log_std = 2;

  std::int64_t outputs() const { return 2 * dimensions; }
  diagonal_gaussian operator()(const at::Tensor& outputs) const { return detail::gaussian_of(outputs, least_log_std, greatest_log_std); }
};

/// The same squashed into an interval, as soft actor-critic wants it.
struct tanh_gaussian_head {
  std::int64_t dimensions = 1;
  double least_log_std = -20, greatest_log_std = 2;
  action_bounds bounds = {};

  std::int64_t outputs() const { return 2 * dimensions; }
  tanh_gaussian operator()(const at::Tensor& outputs) const {
    return tanh_gaussian{detail::gaussian_of(outputs, least_log_std, greatest_log_std), bounds};
  }
};

}  // namespace retain
