// SPDX-License-Identifier: MIT
// Heads: they convert the outputs of a policy's last layer to a distribution.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>
#include <retain/distributions/diagonal_gaussian.hpp>
#include <retain/distributions/tanh_gaussian.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <utility>

namespace retain {

/// A categorical over `actions` actions; the outputs are its logits.
struct categorical_head {
  std::int64_t actions = 2;

  std::int64_t outputs() const { return actions; }
  categorical operator()(const at::Tensor& outputs) const { return categorical{outputs}; }
};

namespace detail {

/// Means and bounded logarithms of standard deviations [..., D] out of plain outputs [..., 2 D], as
/// one node of the autograd graph.
struct gaussian_parameters_function : torch::autograd::Function<gaussian_parameters_function> {
  static torch::autograd::variable_list split(const at::Tensor& outputs, double least,
                                              double greatest) {
    auto sizes = outputs.sizes().vec();
    const auto width = sizes.back() /= 2;
    auto mean = at::empty(sizes, outputs.options()), log_std = at::empty(sizes, mean.options());
    const auto* from = outputs.data_ptr<float>();
    auto *means = mean.data_ptr<float>(), *logarithms = log_std.data_ptr<float>();
    const auto low = static_cast<float>(least), high = static_cast<float>(greatest);
    for (std::int64_t n = 0; n < mean.numel(); n += width, from += 2 * width)
      for (std::int64_t d = 0; d < width; ++d) {
        means[n + d] = from[d];
        logarithms[n + d] = clipped(from[width + d], low, high);
      }
    return {std::move(mean), std::move(log_std)};
  }

  static torch::autograd::variable_list forward(torch::autograd::AutogradContext* context,
                                                const at::Tensor& outputs, double least,
                                                double greatest) {
    context->save_for_backward({outputs});
    context->saved_data["least"] = least;
    context->saved_data["greatest"] = greatest;
    context->set_materialize_grads(false);
    return split(outputs, least, greatest);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto outputs = context->get_saved_variables()[0];
    const double least = context->saved_data["least"].toDouble(),
                 greatest = context->saved_data["greatest"].toDouble();
    const at::Tensor &of_mean = incoming[0], &of_log_std = incoming[1];
    if (!of_mean.defined() && !of_log_std.defined()) return torch::autograd::variable_list(3);
    const auto width = outputs.size(-1) / 2;
    if (plain_floats({&outputs, &of_mean, &of_log_std})) {
      auto gradient = at::empty(outputs.sizes(), outputs.options());
      const auto *said = floats_of(outputs), *means = floats_of(of_mean),
                 *logarithms = floats_of(of_log_std);
      auto* to = gradient.data_ptr<float>();
      const auto low = static_cast<float>(least), high = static_cast<float>(greatest);
      for (std::int64_t n = 0; n < outputs.numel() / 2;
           n += width, said += 2 * width, to += 2 * width)
        for (std::int64_t d = 0; d < width; ++d) {
          const bool free = said[width + d] >= low && said[width + d] <= high;
          to[d] = means ? means[n + d] : 0;
          to[width + d] = logarithms && free ? logarithms[n + d] : 0;
        }
      return {gradient, {}, {}};
    }
    const auto logarithm = outputs.narrow(-1, width, width);
    const auto none = at::zeros_like(logarithm);
    const auto free = logarithm.ge(least).logical_and(logarithm.le(greatest));
    return {at::cat({of_mean.defined() ? of_mean : none,
                     of_log_std.defined() ? at::where(free, of_log_std, none) : none},
                    -1),
            {},
            {}};
  }
};

/// Means and the logarithms of standard deviations, side by side. Beyond the bounds a deviation has
/// no gradient. Throws shape_error and config_error.
inline diagonal_gaussian gaussian_of(const at::Tensor& outputs, std::int64_t dimensions,
                                     double least_log_std, double greatest_log_std) {
  if (outputs.dim() < 1 || outputs.size(-1) != 2 * dimensions)
    throw shape_error(concat("a Gaussian head of ", dimensions, " dimensions needs outputs [..., ",
                             2 * dimensions, "], got ", shape_text(outputs.sizes())));
  if (!(least_log_std <= greatest_log_std))
    throw config_error(concat("a Gaussian head's least log_std ", least_log_std,
                              " lies above its greatest ", greatest_log_std));
  if (may_join_in_loops({&outputs}, few_numbers)) {
    const bool with_graph = at::GradMode::is_enabled();
    auto parts =
        with_graph ? gaussian_parameters_function::apply(outputs, least_log_std, greatest_log_std)
                   : gaussian_parameters_function::split(outputs, least_log_std, greatest_log_std);
    return {std::move(parts[0]), std::move(parts[1])};
  }
  const auto parts = outputs.chunk(2, -1);
  return {parts[0], parts[1].clamp(least_log_std, greatest_log_std)};
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
