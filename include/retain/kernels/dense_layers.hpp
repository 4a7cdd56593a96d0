// SPDX-License-Identifier: MIT
// Linear layers with activations between them, joined in one node of the autograd graph. For small
// layers, calls take most of the time, not arithmetic. One node for all layers saves most calls.
#pragma once

#include <retain/kernels/activation.hpp>
#include <retain/kernels/small_products.hpp>

#include <ATen/ATen.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <utility>
#include <vector>

namespace retain::detail {

/// Computes y_i = activate(y_{i-1} W_i + b_i) with y_{-1} = x. The last layer has an activation
/// only if `activate_last`. `weights` are W_0, b_0, W_1, b_1, ... The shapes for one network are
///
///     x [N, inputs],  W_i [outputs, inputs],  b_i [outputs]   ->   [N, outputs]
///
/// and for K networks, which all have the same x,
///
///     x [N, inputs],  W_i [K, inputs, outputs],  b_i [K, 1, outputs]   ->   [K, N, outputs]
///
/// The caller must check may_join() for x and may_join_layers() for the weights. The backward pass
/// computes only the gradients that are needed. With create_graph it uses operations that can be
/// differentiated again.
struct dense_layers_function : torch::autograd::Function<dense_layers_function> {
  /// Returns a small tensor on the CPU as a contiguous tensor, because the loops need one. An
  /// observation may be a part of a wider row.
  static at::Tensor packed(const at::Tensor& x) {
    return x.device().is_cpu() && x.numel() <= few_numbers && !x.is_contiguous() ? x.contiguous()
                                                                                 : x;
  }

  static std::vector<at::Tensor> outputs(const at::Tensor& x, at::TensorList weights,
                                         activation_kind kind, bool activate_last) {
    std::vector<at::Tensor> made;
    for (std::size_t i = 0; i < weights.size(); i += 2) {
      const bool activated = activate_last || i + 2 < weights.size();
      made.push_back(layer_output(i == 0 ? packed(x) : made.back(), weights[i], weights[i + 1],
                                  activated ? std::optional(kind) : std::nullopt));
    }
    return made;
  }

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            at::TensorList weights, activation_kind kind, bool activate_last) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto made = outputs(x, weights, kind, activate_last);
    const auto last = made.back();
    torch::autograd::variable_list saved{x};
    saved.insert(saved.end(), weights.begin(), weights.end());
    saved.insert(saved.end(), made.begin(), activate_last ? made.end() : made.end() - 1);
    context->save_for_backward(std::move(saved));
    context->saved_data["kind"] = static_cast<std::int64_t>(kind);
    context->saved_data["layers"] = static_cast<std::int64_t>(weights.size() / 2);
    context->saved_data["activate_last"] = activate_last;
    return last;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list incoming) {
    const auto saved = context->get_saved_variables();
    const auto layers = static_cast<std::size_t>(context->saved_data["layers"].toInt());
    const auto kind = static_cast<activation_kind>(context->saved_data["kind"].toInt());
    const bool activate_last = context->saved_data["activate_last"].toBool();
    const at::TensorList weights = at::TensorList(saved).slice(1, 2 * layers);
    // The saved outputs have no graph. For a second derivative, compute the outputs again.
    std::vector<at::Tensor> made;
    if (at::GradMode::is_enabled()) made = outputs(saved[0], weights, kind, activate_last);
    const auto output = [&](std::size_t i) -> const at::Tensor& {
      return made.empty() ? saved[1 + 2 * layers + i] : made[i];
    };

    std::optional<at::AutoDispatchBelowADInplaceOrView> below_autograd;
    if (made.empty()) below_autograd.emplace();
    const at::Tensor x = packed(saved[0]);
    // kind and activate_last have no gradient
    torch::autograd::variable_list gradients(1 + 2 * layers + 2);
    at::Tensor gradient = incoming[0];
    for (std::size_t i = layers; i-- > 0;) {
      if (activate_last || i + 1 < layers)
        gradient = layer_activation_gradient(gradient, output(i), kind);
      const at::Tensor &before = i == 0 ? x : output(i - 1), &weight = weights[2 * i];
      if (context->needs_input_grad(1 + 2 * i))
        gradients[1 + 2 * i] = layer_weight_gradient(before, weight, gradient);
      if (context->needs_input_grad(2 + 2 * i))
        gradients[2 + 2 * i] = layer_bias_gradient(gradient);
      bool wanted = false;
      for (std::size_t j = 0; !wanted && j <= 2 * i; ++j) wanted = context->needs_input_grad(j);
      if (!wanted) break;
      gradient = layer_input_gradient(before, weight, gradient);
      if (i == 0) gradients[0] = gradient;
    }
    return gradients;
  }
};

/// Returns whether layers of these weights may be one node.
inline bool may_join_layers(at::TensorList tensors) {
  return !without_kernel::wanted(small_kernel::layers) && may_join_each(tensors);
}

/// Returns the outputs of the layers. With recorded gradients, the layers are one node of the
/// graph.
inline at::Tensor dense_layers(const at::Tensor& x, const std::vector<at::Tensor>& weights,
                               activation_kind kind, bool activate_last) {
  if (at::GradMode::is_enabled())
    return dense_layers_function::apply(x, at::TensorList(weights), kind, activate_last);
  return dense_layers_function::outputs(x, weights, kind, activate_last).back();
}

}  // namespace retain::detail
