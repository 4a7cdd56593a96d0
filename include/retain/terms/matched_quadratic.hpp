// SPDX-License-Identifier: MIT
// A quadratic penalty over matched parameters: its value in the graph, and its gradient in one
// pass.
#pragma once

#include <retain/kernels/quadratic.hpp>
#include <retain/kernels/quadratic_loss.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstddef>
#include <vector>

namespace retain::detail {

/// The options of a penalty's value: the type of the parameters, but float for half types.
inline at::TensorOptions value_options(const std::vector<quadratic_item>& items) {
  if (items.empty()) return {};
  const at::Tensor& theta = items.front().theta;
  return theta.options().dtype(real_type(theta)).requires_grad(false);
}

/// Returns c * sum scale F (theta - anchor)^2, a 0-dim tensor in the graph of the parameters.
/// Without parameters or at strength 0 it is a zero without a graph.
inline at::Tensor matched_loss(const std::vector<quadratic_item>& items, double strength) {
  if (items.empty() || strength == 0.0) return at::zeros({}, value_options(items));
  return quadratic_loss(items, strength);
}

/// Adds the gradient of matched_loss to every `.grad` in one pass, and returns the value as a 0-dim
/// float64 tensor. An undefined `.grad` is created, a sparse one becomes dense.
inline at::Tensor add_matched_gradient(const std::vector<quadratic_item>& items, double strength) {
  const at::NoGradGuard no_grad;
  if (items.empty() || strength == 0.0)
    return at::zeros({}, value_options(items).dtype(at::kDouble));
  std::vector<at::Tensor> gradients;
  gradients.reserve(items.size());
  for (const auto& item : items) {
    auto& gradient = item.theta.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(item.theta);
    gradients.push_back(gradient);
  }
  auto value = quadratic_pass<gradient_mode::add>(items, gradients, 2.0 * strength);
  for (std::size_t i = 0; i < items.size(); ++i)
    if (!gradients[i].is_same(items[i].theta.grad())) items[i].theta.mutable_grad() = gradients[i];
  return value.mul_(strength);
}

/// Adds the gradient for one parameter to `gradient`, which has its memory order.
inline void add_matched_gradient_of(const quadratic_item& item, double strength,
                                    at::Tensor& gradient) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients{gradient};
  quadratic_pass<gradient_mode::add>({item}, gradients, 2.0 * strength);
  gradient = gradients.front();
}

}  // namespace retain::detail
