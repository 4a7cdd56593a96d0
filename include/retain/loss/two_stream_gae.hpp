// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/loss/gae.hpp>
#include <retain/loss/value_steps.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace retain {

struct two_stream_options {
  gae_options extrinsic = {.gamma = 0.999, .gae_lambda = 0.95};
  gae_options intrinsic = {.gamma = 0.99, .gae_lambda = 0.95};
  double extrinsic_weight = 2.0;
  double intrinsic_weight = 1.0;
};

struct two_stream_estimates {
  at::Tensor advantages;         ///< [T, N]: the weighted sum of both streams
  at::Tensor extrinsic_returns;  ///< [T, N]: the critic's targets, without weights
  at::Tensor intrinsic_returns;
};

/// Computes advantages for two values: one of the task's reward and one of a bonus for new states.
///
///     A = extrinsic_weight * A_ext + intrinsic_weight * A_int
///
/// `extrinsic` are the steps of gae(). `intrinsic` has only rewards, values and last_value: its
/// returns have no ends. A state stays known after an episode ends, whatever ended it, so the bonus
/// that the agent earns next is that of the next episode. The intrinsic stream therefore continues
/// with the value of the next episode's first state, as in the paper, both where an episode is
/// terminated and where it is truncated. Ends in `intrinsic` are refused; for a bonus that is
/// forgotten at the end of an episode, call gae() for each stream.
///
/// Throws shape_error if the shapes do not fit, and config_error for ends in `intrinsic` and for
/// what gae() refuses.
///
/// Paper: Burda et al. 2018 (arXiv 1810.12894).
[[nodiscard]] inline two_stream_estimates two_stream_gae(const value_steps& extrinsic,
                                                         const value_steps& intrinsic,
                                                         const two_stream_options& options = {}) {
  const at::NoGradGuard no_grad;
  if (intrinsic.terminated.defined() || intrinsic.truncated.defined() ||
      intrinsic.truncated_values.defined())
    throw config_error("two_stream_gae: the intrinsic returns continue across the ends of "
                       "episodes: leave terminated, truncated and truncated_values of the "
                       "intrinsic steps undefined, or call gae() for each stream");
  const auto outer = detail::check_steps("two_stream_gae: extrinsic", extrinsic),
             inner = detail::check_steps("two_stream_gae: intrinsic", intrinsic, false);
  if (intrinsic.rewards.sizes() != extrinsic.rewards.sizes())
    throw shape_error(detail::concat(
        "two_stream_gae: extrinsic and intrinsic rewards must have one shape [T, N], got ",
        detail::shape_text(extrinsic.rewards.sizes()), " and ",
        detail::shape_text(intrinsic.rewards.sizes())));
  const auto task = detail::gae_of(extrinsic.rewards, outer, options.extrinsic),
             bonus = detail::gae_of(intrinsic.rewards, inner, options.intrinsic);
  return {task.advantages * options.extrinsic_weight + bonus.advantages * options.intrinsic_weight,
          task.returns, bonus.returns};
}

}  // namespace retain
