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
  at::Tensor returns;     ///< [T, N]: advantages + values, what a critic learns
};

/// Generalised advantage estimation (Schulman et al. 2016, arXiv 1506.02438), for N environments
/// over T steps:
///
///     delta_t = r_t + gamma (1 - e_t) V_{t+1} - V_t,     A_t = delta_t + gamma lambda (1 - e_t) A_{t+1},     A_T = 0
///
/// rewards [T, N]: what the action of step t earned. values [T, N]: V of the state it was taken in.
/// ended [T, N], bool or 0 and 1: the episode ended with step t, so that the state after it belongs
/// to another, whose value may be anything, NaN too. It marks the last step of an episode; what
/// teachers and recurrent policies call `done` marks the first of the next. last_value [N]: V of
/// the state after the last step. An episode that a time limit cut has no terminal state: mark it
/// as ended and add gamma V(the state it was cut in) to its last reward. Nothing here is part of a
/// graph. Throws shape_error when the shapes do not fit together.
inline advantage_estimates gae(const at::Tensor& rewards, const at::Tensor& values,
                               const at::Tensor& ended, const at::Tensor& last_value,
                               const gae_options& options = {}) {
  const at::NoGradGuard no_grad;
  if (rewards.dim() != 2 || values.sizes() != rewards.sizes() || ended.sizes() != rewards.sizes())
    throw shape_error(detail::concat(
        "gae: rewards, values and ended must have one shape [T, N], got ",
        detail::shape_text(rewards.sizes()), ", ", detail::shape_text(values.sizes()), " and ",
        detail::shape_text(ended.sizes())));
  const std::int64_t steps = rewards.size(0);
  if (last_value.dim() != 1 || last_value.size(0) != rewards.size(1))
    throw shape_error(detail::concat("gae: last_value must have shape [", rewards.size(1),
                                     "], one per environment, got ",
                                     detail::shape_text(last_value.sizes())));

  const auto now = values.detach(), last = last_value.detach();
  if (steps == 0) return {at::empty_like(now), at::empty_like(now)};
  const auto going_on = 1 - ended.to(now.scalar_type());
  // 0 times what stands behind an end may be NaN: it is put away instead.
  const auto over = going_on == 0;
  const auto next = at::cat({now.slice(0, 1), last.unsqueeze(0)}).masked_fill(over, 0);
  const auto delta = rewards + options.discount * going_on * next - now;
  const auto advantages =
      detail::backward_sums(delta, options.discount * options.decay * going_on, now);
  return {advantages, advantages + now};
}

}  // namespace retain
