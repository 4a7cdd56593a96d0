// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/backward_sums.hpp>
#include <retain/loss/log_ratio.hpp>
#include <retain/loss/value_steps.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace retain {

struct vtrace_options {
  double gamma = 0.99;
  double lambda = 1.0;  ///< multiplies every c
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
///     delta_t = rho_t (r_t + gamma V'_t - V_t)
///     v_t = V_t + sum_{t <= k <= end} gamma^{k-t} (prod_{t <= i < k} c_i) delta_k
///     A_t = min(advantage_rho_bar, pi / mu) (r_t + gamma v'_t - V_t)
///
/// The sum goes to the end of the episode, terminated or truncated, or of the data. V' is the value
/// of the state after the step: 0 if terminated, the value of the state that was cut off if
/// truncated, else V_{t+1}. v' is the same of v, with v_T = V_T. Nothing was played after the state
/// that was cut off, so no correction exists for it, and v' is the critic's value there.
///
/// Every ratio pi / mu is limited to e^20 (e^10 in half), even if a bar is infinite.
///
/// log_probs and behavior_log_probs [T, N] are log pi and log mu of the actions. For the shapes of
/// `steps`, the meaning of both ends and what may be NaN, see value_steps.
///
/// If pi = mu and both bars are at least 1, v - V equals the advantages of gae() with the same
/// lambda; for lambda = 1, A equals them too. The results have no graph.
///
/// Throws shape_error if the shapes do not fit together, and config_error if a bar is not positive,
/// if c_bar is above rho_bar, and for what gae() refuses.
///
/// Paper: Espeholt et al. 2018 (arXiv 1802.01561).
[[nodiscard]] inline vtrace_estimates vtrace(const at::Tensor& log_probs,
                                             const at::Tensor& behavior_log_probs,
                                             const value_steps& given,
                                             const vtrace_options& options = {}) {
  const at::NoGradGuard no_grad;
  const auto all = detail::check_steps("vtrace", given);
  const auto& rewards = given.rewards;
  if (log_probs.sizes() != rewards.sizes() || behavior_log_probs.sizes() != rewards.sizes())
    throw shape_error(detail::concat(
        "vtrace: log_probs and behavior_log_probs must have the shape of rewards, ",
        detail::shape_text(rewards.sizes()), ", got ", detail::shape_text(log_probs.sizes()),
        " and ", detail::shape_text(behavior_log_probs.sizes())));
  if (!(options.rho_bar > 0 && options.c_bar > 0 && options.advantage_rho_bar > 0 &&
        options.c_bar <= options.rho_bar))
    throw config_error(
        detail::concat("vtrace: the bars must be positive and c_bar at most rho_bar, got rho_bar ",
                       options.rho_bar, ", c_bar ", options.c_bar, " and advantage_rho_bar ",
                       options.advantage_rho_bar));

  const auto& now = all.now;
  const auto log_ratio = (log_probs - behavior_log_probs).detach();
  const auto ratio = log_ratio.clamp_max(detail::greatest_log_ratio(log_ratio.scalar_type()))
                         .exp()
                         .to(now.scalar_type());
  if (rewards.size(0) == 0) return {at::empty_like(now), at::empty_like(now)};
  const auto discount = options.gamma * all.going_on;
  const auto error =
      ratio.clamp_max(options.rho_bar) * (rewards + discount * all.following(now) - now);
  const auto reach =
      options.gamma * all.same_episode * options.lambda * ratio.clamp_max(options.c_bar);

  const auto corrected = now + detail::backward_sums(error, reach, now);
  const auto advantages = ratio.clamp_max(options.advantage_rho_bar) *
                          (rewards + discount * all.following(corrected) - now);
  return {corrected, advantages};
}

}  // namespace retain
