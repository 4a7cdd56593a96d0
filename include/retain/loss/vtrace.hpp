// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/backward_sums.hpp>
#include <retain/loss/log_ratio.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>

namespace retain {

struct vtrace_options {
  double discount = 0.99;  ///< gamma
  double decay = 1.0;      ///< lambda: multiplies every c
  /// largest weight of a step's error; it determines the limit of the values
  double rho_bar = 1.0;
  /// largest weight that passes later errors to earlier steps; it determines the speed of
  /// convergence
  double c_bar = 1.0;
  double advantage_rho_bar = 1.0;  ///< largest weight of an advantage
};

struct vtrace_estimates {
  at::Tensor values;      ///< [T, N]: v_t, the critic's targets
  at::Tensor advantages;  ///< [T, N]: the weights of log pi(a_t|s_t)
};

/// V-trace: computes returns and advantages of a policy pi from steps of an older policy mu:
///
///     rho_t = min(rho_bar, pi(a_t|s_t) / mu(a_t|s_t))
///     c_t = lambda min(c_bar, pi(a_t|s_t) / mu(a_t|s_t))
///     delta_t = rho_t (r_t + gamma (1 - e_t) V_{t+1} - V_t)
///     v_t = V_t + sum_{k >= t} gamma^{k-t} (prod_{t <= i < k} (1 - e_i) c_i) delta_k
///     A_t = min(advantage_rho_bar, pi / mu) (r_t + gamma (1 - e_t) v_{t+1} - V_t),   v_T = V_T
///
/// Every ratio pi / mu is limited to e^20 (e^10 in half), even if a bar is infinite.
///
/// log_probs and behaviour_log_probs [T, N] are log pi and log mu of the actions. rewards, values,
/// ended [T, N] and last_value [N] are those of gae(): `ended` is 1 at the last step of an episode,
/// and the value after this step may be anything, also NaN. `ended` may also be a number between 0
/// and 1. For a different discount g_t at every step, use {.discount = 1} and ended = 1 - g.
///
/// If pi = mu and both bars are at least 1, v - V equals the advantages of gae() with the same
/// lambda; for lambda = 1, A equals them too. The results have no graph.
///
/// Throws shape_error if the shapes do not fit together, and config_error if a bar is not positive
/// or c_bar is above rho_bar.
///
/// Paper: Espeholt et al. 2018 (arXiv 1802.01561).
inline vtrace_estimates vtrace(const at::Tensor& log_probs, const at::Tensor& behaviour_log_probs,
                               const at::Tensor& rewards, const at::Tensor& values,
                               const at::Tensor& ended, const at::Tensor& last_value,
                               const vtrace_options& options = {}) {
  const at::NoGradGuard no_grad;
  if (rewards.dim() != 2 || log_probs.sizes() != rewards.sizes() ||
      behaviour_log_probs.sizes() != rewards.sizes() || values.sizes() != rewards.sizes() ||
      ended.sizes() != rewards.sizes())
    throw shape_error(detail::concat(
        "vtrace: log_probs, behaviour_log_probs, rewards, values and ended must have one shape [T, "
        "N], got ",
        detail::shape_text(log_probs.sizes()), ", ",
        detail::shape_text(behaviour_log_probs.sizes()), ", ", detail::shape_text(rewards.sizes()),
        ", ", detail::shape_text(values.sizes()), " and ", detail::shape_text(ended.sizes())));
  const std::int64_t horizon = rewards.size(0);
  if (last_value.dim() != 1 || last_value.size(0) != rewards.size(1))
    throw shape_error(detail::concat("vtrace: last_value must have shape [", rewards.size(1),
                                     "], one per environment, got ",
                                     detail::shape_text(last_value.sizes())));
  if (!(options.rho_bar > 0 && options.c_bar > 0 && options.advantage_rho_bar > 0 &&
        options.c_bar <= options.rho_bar))
    throw config_error(
        detail::concat("vtrace: the bars must be positive and c_bar at most rho_bar, got rho_bar ",
                       options.rho_bar, ", c_bar ", options.c_bar, " and advantage_rho_bar ",
                       options.advantage_rho_bar));

  const auto now = values.detach();
  const auto log_ratio = (log_probs - behaviour_log_probs).detach();
  const auto ratio = log_ratio.clamp_max(detail::greatest_log_ratio(log_ratio.scalar_type()))
                         .exp()
                         .to(now.scalar_type());
  const auto discount = options.discount * (1 - ended.to(now.scalar_type()));
  if (horizon == 0) return {at::empty_like(now), at::empty_like(now)};
  const auto last = last_value.detach().to(now.scalar_type()).unsqueeze(0);
  // The value after an ended step may be NaN, and 0 times NaN is NaN: replace the value by 0.
  const auto over = discount == 0;
  const auto error =
      ratio.clamp_max(options.rho_bar) *
      (rewards + discount * at::cat({now.slice(0, 1), last}).masked_fill(over, 0) - now);
  const auto reach = discount * options.decay * ratio.clamp_max(options.c_bar);

  const auto corrected = now + detail::backward_sums(error, reach, now);
  const auto next = at::cat({corrected.slice(0, 1), last}).masked_fill(over, 0);
  const auto advantages =
      ratio.clamp_max(options.advantage_rho_bar) * (rewards + discount * next - now);
  return {corrected, advantages};
}

}  // namespace retain
