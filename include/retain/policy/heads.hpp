// SPDX-License-Identifier: MIT
// Heads: they convert the outputs of a policy's last layer to a distribution.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>
#include <retain/distributions/diagonal_gaussian.hpp>
#include <retain/distributions/tanh_gaussian.hpp>
#include <retain/kernels/small_heads.hpp>

#include <ATen/ATen.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace retain {

/// A categorical over `actions` actions; the outputs are its logits.
struct categorical_head {
  std::int64_t actions = 2;

  std::int64_t outputs() const { return actions; }
  categorical operator()(const at::Tensor& outputs) const { return categorical{outputs}; }
};

namespace detail {

/// Splits outputs [..., 2 D] into the means and the logarithms of the standard deviations, [..., D]
/// each. The logarithms are clamped to the bounds.
inline std::vector<at::Tensor> gaussian_parameters(const at::Tensor& outputs, double least_log_std,
                                                   double greatest_log_std) {
  const auto parts = outputs.chunk(2, -1);
  const at::Tensor &mean = parts[0], &log_std = parts[1];
  // Not clamp() alone: whether its gradient passes at a bound depends on the version of LibTorch.
  const auto free = log_std.ge(least_log_std).bitwise_and(log_std.le(greatest_log_std));
  const auto bounded = log_std.detach().clamp(least_log_std, greatest_log_std);
  return {mean, log_std.masked_fill(free.bitwise_not(), 0) + bounded.masked_fill(free, 0)};
}

/// Returns a Gaussian from outputs [..., 2 D]: the means, then the logarithms of the standard
/// deviations. Outside the bounds, a logarithm gets no gradient. Throws shape_error if the number
/// of outputs differs, and config_error if the lower bound is above the upper one.
inline diagonal_gaussian gaussian_of(const at::Tensor& outputs, std::int64_t dimensions,
                                     double least_log_std, double greatest_log_std) {
  if (outputs.dim() < 1 || outputs.size(-1) != 2 * dimensions)
    throw shape_error(concat("a Gaussian head of ", dimensions, " dimensions needs outputs [..., ",
                             2 * dimensions, "], got ", shape_text(outputs.sizes())));
  if (!(least_log_std <= greatest_log_std))
    throw config_error(concat("a Gaussian head's least_log_std ", least_log_std,
                              " is above its greatest_log_std ", greatest_log_std));
  if (auto parts = split_few<gaussian_parameters>(outputs, least_log_std, greatest_log_std);
      !parts.empty())
    return {std::move(parts[0]), std::move(parts[1])};
  auto parts = gaussian_parameters(outputs, least_log_std, greatest_log_std);
  return {std::move(parts[0]), std::move(parts[1])};
}

}  // namespace detail

/// A diagonal Gaussian over `dimensions` numbers with standard deviations that depend on the state.
/// The outputs are [..., 2 * dimensions]: first the means, then the logarithms of the deviations,
/// which are clamped to the bounds. Throws shape_error if the number of outputs differs, and
/// config_error if the lower bound is above the upper one.
struct diagonal_gaussian_head {
  std::int64_t dimensions = 1;
  double least_log_std = -20, greatest_log_std = 2;

  std::int64_t outputs() const { return 2 * dimensions; }
  diagonal_gaussian operator()(const at::Tensor& outputs) const {
    return detail::gaussian_of(outputs, dimensions, least_log_std, greatest_log_std);
  }
};

/// Like diagonal_gaussian_head, but squashed into an interval, for soft actor-critic.
struct tanh_gaussian_head {
  std::int64_t dimensions = 1;
  double least_log_std = -20, greatest_log_std = 2;
  action_bounds bounds = {};

  std::int64_t outputs() const { return 2 * dimensions; }
  tanh_gaussian operator()(const at::Tensor& outputs) const {
    return tanh_gaussian{detail::gaussian_of(outputs, dimensions, least_log_std, greatest_log_std),
                         bounds};
  }
};

}  // namespace retain
