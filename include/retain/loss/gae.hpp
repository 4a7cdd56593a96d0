// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/backward_sums.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>

namespace retain {

struct gae_options {
  double discount = 0.99;  ///< gamma
  double decay = 0.95;     ///< lambda
};

struct advantage_estimates {
  at::Tensor advantages;  ///< [T, N]
  at::Tensor returns;     ///< [T, N]: advantages + values, the critic's targets
};

/// Computes generalized advantage estimates for N environments over T steps:
///
///     delta_t = r_t + gamma (1 - e_t) V_{t+1} - V_t
///     A_t = delta_t + gamma lambda (1 - e_t) A_{t+1},     A_T = 0
///
///     rewards     [T, N]   the reward of the action of step t
///     values      [T, N]   V of the state before this action
///     ended       [T, N]   bool or 0 and 1: 1 at the last step of an episode
///     last_value  [N]      V of the state after the last step
///
/// The state after an ended step belongs to the next episode; its value is not used and may be NaN.
/// Note the difference to `episode_start` of teachers and recurrent policies, which is 1 at the
/// first step of an episode. If a time limit cuts an episode, its last state is not terminal: mark
/// the step as ended and add gamma V(last state) to its reward.
///
/// The results have no graph. Throws shape_error if the shapes do not fit together.
///
/// Paper: Schulman et al. 2016 (arXiv 1506.02438).
inline advantage_estimates gae(const at::Tensor& rewards, const at::Tensor& values,
                               const at::Tensor& ended, const at::Tensor& last_value,
                               const gae_options& options = {}) {
  const at::NoGradGuard no_grad;
  if (rewards.dim() != 2 || values.sizes() != rewards.sizes() || ended.sizes() != rewards.sizes())
    throw shape_error(detail::concat(
        "gae: rewards, values and ended must have one shape [T, N], got ",
        detail::shape_text(rewards.sizes()), ", ", detail::shape_text(values.sizes()), " and ",
        detail::shape_text(ended.sizes())));
  const std::int64_t horizon = rewards.size(0);
  if (last_value.dim() != 1 || last_value.size(0) != rewards.size(1))
    throw shape_error(detail::concat("gae: last_value must have shape [", rewards.size(1),
                                     "], one per environment, got ",
                                     detail::shape_text(last_value.sizes())));

  const auto now = values.detach(), last = last_value.detach();
  if (horizon == 0) return {at::empty_like(now), at::empty_like(now)};
  const auto going_on = 1 - ended.to(now.scalar_type());
  // The value after an ended step may be NaN, and 0 times NaN is NaN: replace the value by 0.
  const auto over = going_on == 0;
  const auto next = at::cat({now.slice(0, 1), last.unsqueeze(0)}).masked_fill(over, 0);
  const auto delta = rewards + options.discount * going_on * next - now;
  const auto advantages =
      detail::backward_sums(delta, options.discount * options.decay * going_on, now);
  return {advantages, advantages + now};
}

}  // namespace retain
