// SPDX-License-Identifier: MIT
#pragma once

#include <retain/kernels/backward_sums.hpp>
#include <retain/loss/value_steps.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace retain {

struct gae_options {
  double gamma = 0.99;
  double gae_lambda = 0.95;
};

struct advantage_estimates {
  at::Tensor advantages;  ///< [T, N]
  at::Tensor returns;     ///< [T, N]: advantages + values, the critic's targets
};

namespace detail {

/// Call under a NoGradGuard.
inline advantage_estimates gae_of(const at::Tensor& rewards, const checked_steps& given,
                                  const gae_options& options) {
  const auto& now = given.now;
  if (rewards.size(0) == 0) return {at::empty_like(now), at::empty_like(now)};
  const auto delta = rewards + options.gamma * given.going_on * given.following(now) - now;
  const auto advantages =
      backward_sums(delta, options.gamma * options.gae_lambda * given.same_episode, now);
  return {advantages, advantages + now};
}

}  // namespace detail

/// Computes generalized advantage estimates for N environments over T steps:
///
///     delta_t = r_t + gamma V'_t - V_t
///     A_t = delta_t + gamma lambda A_{t+1},   A_T = 0,   without the second term at an end
///
/// An end is a step that is terminated or truncated. V' is the value of the state after the step: 0
/// if terminated, the value of the state that was cut off if truncated, else V_{t+1}. Shapes, the
/// meaning of both ends and what may be NaN: see value_steps.
///
/// Note the difference to `episode_start` of teachers and recurrent policies, which is 1 at the
/// first step of an episode; terminated and truncated are 1 at the last step.
///
/// The results have no graph. Throws shape_error if the shapes do not fit together, and
/// config_error if truncated or truncated_values is given without the other, or if an end is
/// neither 0 nor 1.
///
/// Paper: Schulman et al. 2016 (arXiv 1506.02438).
[[nodiscard]] inline advantage_estimates gae(const value_steps& given,
                                             const gae_options& options = {}) {
  const at::NoGradGuard no_grad;
  return detail::gae_of(given.rewards, detail::check_steps("gae", given), options);
}

}  // namespace retain
