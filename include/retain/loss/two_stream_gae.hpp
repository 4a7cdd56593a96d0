// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/loss/gae.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

namespace retain {

/// The inputs of gae() for one kind of reward: rewards and values [T, N], last_value [N].
struct value_stream {
  at::Tensor rewards, values, last_value;
};

struct two_stream_options {
  gae_options extrinsic = {.discount = 0.999, .decay = 0.95};
  gae_options intrinsic = {.discount = 0.99, .decay = 0.95};
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
/// `ended` [T, N] is 1 at the last step of an episode and applies only to the extrinsic stream. A
/// state stays known after an episode ends, so the intrinsic stream continues with the value of the
/// next episode's first state. Throws shape_error if the shapes do not fit.
///
/// Paper: Burda et al. 2018 (arXiv 1810.12894).
inline two_stream_estimates two_stream_gae(const value_stream& extrinsic,
                                           const value_stream& intrinsic, const at::Tensor& ended,
                                           const two_stream_options& options = {}) {
  const at::NoGradGuard no_grad;
  if (intrinsic.rewards.sizes() != extrinsic.rewards.sizes())
    throw shape_error(detail::concat(
        "two_stream_gae: extrinsic and intrinsic rewards must have one shape [T, N], got ",
        detail::shape_text(extrinsic.rewards.sizes()), " and ",
        detail::shape_text(intrinsic.rewards.sizes())));
  const auto task =
      gae(extrinsic.rewards, extrinsic.values, ended, extrinsic.last_value, options.extrinsic);
  const auto news = gae(intrinsic.rewards, intrinsic.values, at::zeros_like(intrinsic.rewards),
                        intrinsic.last_value, options.intrinsic);
  return {task.advantages * options.extrinsic_weight + news.advantages * options.intrinsic_weight,
          task.returns, news.returns};
}

}  // namespace retain
