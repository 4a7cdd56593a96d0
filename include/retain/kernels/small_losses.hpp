// SPDX-License-Identifier: MIT
// The losses of soft actor-critic over few float32 numbers on the CPU: loops instead of LibTorch's
// operations, and one node of the autograd graph. Each function returns an undefined tensor if the
// loops do not apply; the caller then uses its formula.
#pragma once

#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <cstdint>
#include <utility>

namespace retain::detail {

/// Returns `value` as a 0-dim float32 tensor on the CPU, with the options of `like`.
inline at::Tensor float_scalar(double value, const at::Tensor& like) {
  auto result = at::empty({}, like.options());
  *result.data_ptr<float>() = static_cast<float>(value);
  return result;
}

/// Returns the index of the critic with the smallest value. The values of two critics are `stride`
/// elements apart. Among equal values the first one counts. A NaN counts as the smallest value.
inline std::int64_t lowest_critic(const float* values, std::int64_t critics, std::int64_t stride) {
  std::int64_t lowest = 0;
  for (std::int64_t k = 1; k < critics && !std::isnan(values[lowest * stride]); ++k)
    if (!(values[k * stride] >= values[lowest * stride])) lowest = k;
  return lowest;
}

/// Returns y = clip(r + gamma (1 - terminated) (min_k Q'_k - alpha log pi), least, greatest).
/// Returns an undefined tensor if a step is marked by another number than 0 and 1. Call it under a
/// NoGradGuard.
inline at::Tensor sac_target_of_few(const at::Tensor& rewards, const at::Tensor& terminated,
                                    const at::Tensor& next_q, const at::Tensor& next_log_probs,
                                    const at::Tensor& alpha, double gamma, double least,
                                    double greatest) {
  if (without_kernel::wanted(small_kernel::losses) || rewards.numel() > few_numbers ||
      !plain_floats({&rewards, &terminated, &next_q, &next_log_probs, &alpha}))
    return {};
  const auto rows = rewards.numel();
  auto target = at::empty(rewards.sizes(), rewards.options());
  const auto *paid = floats_of(rewards), *ends = floats_of(terminated), *values = floats_of(next_q),
             *densities = floats_of(next_log_probs), *alphas = floats_of(alpha);
  auto* to = target.data_ptr<float>();
  const auto factor = static_cast<float>(gamma), low = static_cast<float>(least),
             high = static_cast<float>(greatest);
  for (std::int64_t n = 0; n < rows; ++n) {
    const float next = values[lowest_critic(values + n, next_q.size(0), rows) * rows + n] -
                       alphas[alpha.numel() == 1 ? 0 : n] * densities[n];
    if (ends[n] != 0 && ends[n] != 1) return {};
    to[n] = clipped(ends[n] != 0 ? paid[n] : paid[n] + factor * next, low, high);
  }
  return target;
}

/// Computes sum_k (Q_k - y)^2 times `scale`. `formula` is called as formula(q, target, scale).
template <auto formula>
struct small_squared_errors : torch::autograd::Function<small_squared_errors<formula>> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& target, double scale) {
    context->save_for_backward({q, target});
    context->saved_data["scale"] = scale;
    double sum = 0;
    const auto *values = floats_of(q), *aims = floats_of(target);
    for (std::int64_t k = 0; k < q.size(0); ++k)
      for (std::int64_t n = 0; n < target.numel(); ++n) {
        const double error =
            static_cast<double>(values[k * target.numel() + n]) - static_cast<double>(aims[n]);
        sum += error * error;
      }
    return float_scalar(sum * scale, q);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &target = saved[1];
    const double scale = context->saved_data["scale"].toDouble();
    if (!plain_floats({&q, &target, &incoming[0]})) {
      const auto loss = [&](const auto& in) {
        return torch::autograd::variable_list{formula(in[0], target, scale)};
      };
      return {gradients_of_formula(loss, {q}, incoming)[0], {}, {}};
    }
    auto gradient = at::empty(q.sizes(), q.options());
    const auto *values = floats_of(q), *aims = floats_of(target);
    auto* to = gradient.data_ptr<float>();
    const auto factor = static_cast<float>(2 * scale) * *floats_of(incoming[0]);
    for (std::int64_t k = 0; k < q.size(0); ++k)
      for (std::int64_t n = 0; n < target.numel(); ++n, ++values)
        *to++ = (*values - aims[n]) * factor;
    return {gradient, {}, {}};
  }
};
template <auto formula>
at::Tensor squared_errors_of_few(const at::Tensor& q, const at::Tensor& target, double scale) {
  if (!may_join_in_loops(small_kernel::losses, {&q, &target}, few_numbers)) return {};
  return small_squared_errors<formula>::apply(q, target, scale);
}

/// Computes mean [ alpha log pi - min_k Q_k ]. Among critics with equal values, only the first one
/// gets a gradient. `formula` is called as formula(q, log_probs, alpha).
template <auto formula>
struct small_actor_objective : torch::autograd::Function<small_actor_objective<formula>> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q,
                            const at::Tensor& log_probs, const at::Tensor& alpha) {
    const auto rows = log_probs.numel();
    const auto *values = floats_of(q), *densities = floats_of(log_probs),
               *alphas = floats_of(alpha);
    const auto which = at::empty(log_probs.sizes(), log_probs.options().dtype(at::kLong));
    auto* lowest = which.template data_ptr<std::int64_t>();
    double sum = 0;
    for (std::int64_t n = 0; n < rows; ++n) {
      lowest[n] = lowest_critic(values + n, q.size(0), rows);
      sum += static_cast<double>(alphas[alpha.numel() == 1 ? 0 : n] * densities[n] -
                                 values[lowest[n] * rows + n]);
    }
    context->save_for_backward({q, log_probs, alpha, which});
    return float_scalar(sum / static_cast<double>(rows), q);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list arrived) {
    const auto incoming = packed(std::move(arrived));
    const auto saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &alpha = saved[2], &which = saved[3];
    if (!plain_floats({&alpha, &incoming[0]})) {
      const auto loss = [&](const auto& in) {
        return torch::autograd::variable_list{formula(in[0], in[1], alpha)};
      };
      auto gradients = gradients_of_formula(loss, {q, saved[1]}, incoming);
      gradients.resize(3);  // alpha has no gradient
      return gradients;
    }
    const auto rows = which.numel();
    auto of_q = at::zeros(q.sizes(), incoming[0].options()),
         of_log_probs = at::empty(which.sizes(), incoming[0].options());
    const auto* lowest = which.template data_ptr<std::int64_t>();
    auto *to_q = of_q.template data_ptr<float>(),
         *to_log_probs = of_log_probs.template data_ptr<float>();
    const auto* alphas = floats_of(alpha);
    const float share = *floats_of(incoming[0]) / static_cast<float>(rows);
    for (std::int64_t n = 0; n < rows; ++n) {
      to_q[lowest[n] * rows + n] = -share;
      to_log_probs[n] = share * alphas[alpha.numel() == 1 ? 0 : n];
    }
    return {of_q, of_log_probs, {}};
  }
};
template <auto formula>
at::Tensor actor_objective_of_few(const at::Tensor& q, const at::Tensor& log_probs,
                                  const at::Tensor& alpha) {
  if (log_probs.numel() == 0 ||
      !may_join_in_loops(small_kernel::losses, {&q, &log_probs, &alpha}, few_numbers))
    return {};
  return small_actor_objective<formula>::apply(q, log_probs, alpha);
}

}  // namespace retain::detail
