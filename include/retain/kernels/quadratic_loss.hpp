// SPDX-License-Identifier: MIT
// The weight-space penalties as a node of the autograd graph.
#pragma once

#include <retain/kernels/joined.hpp>
#include <retain/kernels/quadratic.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace retain::detail {

/// Returns F d of one parameter, computed with LibTorch's operations in float or double.
inline at::Tensor quadratic_force(const at::Tensor& theta, const at::Tensor& anchor,
                                  const at::Tensor& importance) {
  const at::Tensor d = theta.to(real_type(theta)) - anchor.to(real_type(theta));
  return importance.defined() ? d * importance : d;
}

/// Returns strength * sum_i scale_i (sum F_i d_i^2 + constant_i) as a node of the graph. Its
/// backward pass is one pass over memory as well. With create_graph, the backward pass uses
/// LibTorch's operations, which can be differentiated again.
struct quadratic_function : torch::autograd::Function<quadratic_function> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, at::TensorList thetas,
                            const std::vector<quadratic_item>& items, double strength) {
    torch::autograd::variable_list saved;
    std::vector<double> scales;
    for (const auto& item : items) {
      saved.insert(saved.end(), {item.theta, item.anchor, item.importance});
      scales.push_back(item.scale);
    }
    context->save_for_backward(std::move(saved));
    context->saved_data["scales"] = std::move(scales);
    context->saved_data["strength"] = strength;
    std::vector<at::Tensor> none;
    return quadratic_pass<gradient_mode::none>(items, none, 0.0)
        .mul_(strength)
        .to(real_type(thetas[0]));
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const auto scales = context->saved_data["scales"].toDoubleVector();
    const double strength = context->saved_data["strength"].toDouble();
    torch::autograd::variable_list gradients;
    // On the CPU the incoming gradient can be read. On other devices, reading it would wait for the
    // device. The incoming gradient may be small; a half type would overflow before it is applied.
    const bool at_hand = incoming[0].device().is_cpu();
    const bool half = std::any_of(saved.begin(), saved.end(), [](const at::Tensor& t) {
      return t.defined() && t.element_size() == 2;
    });
    if (at::GradMode::is_enabled() || (half && !at_hand) || !may_join_own_types(incoming[0])) {
      for (std::size_t i = 0; i < scales.size(); ++i) {
        const at::Tensor& theta = saved[3 * i];
        const at::Tensor force = quadratic_force(theta, saved[3 * i + 1], saved[3 * i + 2]);
        gradients.push_back((force * (2.0 * strength * scales[i]) * incoming[0].to(theta.device()))
                                .to(theta.scalar_type()));
      }
      gradients.resize(scales.size() + 2);  // the items and the strength have no gradient
      return gradients;
    }
    std::vector<quadratic_item> items;
    for (std::size_t i = 0; i < scales.size(); ++i) {
      items.push_back({saved[3 * i], saved[3 * i + 1], saved[3 * i + 2], scales[i]});
      gradients.push_back(at::empty_like(saved[3 * i]));
    }
    quadratic_pass<gradient_mode::assign>(
        items, gradients, 2.0 * strength * (at_hand ? incoming[0].item<double>() : 1.0));
    if (!at_hand)
      for (auto& gradient : gradients) gradient.mul_(incoming[0].to(gradient.device()));
    gradients.resize(scales.size() + 2);
    return gradients;
  }
};

/// Returns the loss in the graph of the parameters. It is one node if possible. Otherwise (during a
/// trace or with a forward-mode derivative) it uses LibTorch's operations.
inline at::Tensor quadratic_loss(const std::vector<quadratic_item>& items, double strength) {
  std::vector<at::Tensor> thetas;
  for (const auto& item : items) thetas.push_back(item.theta);
  if (may_join_own_types(thetas))
    return quadratic_function::apply(at::TensorList(thetas), items, strength);
  at::Tensor sum;
  double constant = 0;
  for (const auto& item : items) {
    const at::Tensor d = quadratic_force(item.theta, item.anchor, {}),
                     force = item.importance.defined() ? d * item.importance : d;
    const at::Tensor value = (force * d).sum(at::kDouble) * item.scale;
    sum = sum.defined() ? sum + value.to(sum.device()) : value;
    constant += item.scale * item.constant;
  }
  return ((constant == 0 ? sum : sum + constant) * strength).to(real_type(thetas[0]));
}

}  // namespace retain::detail
