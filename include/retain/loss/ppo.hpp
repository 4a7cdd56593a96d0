// SPDX-License-Identifier: MIT
#pragma once

#include <retain/detail/mean.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cmath>
#include <limits>

namespace retain {

/// The ratios that the clipped surrogate lets through. {1 - e, 1 + e} is the usual one; {1 / 1.1, 1.1} is symmetric in the logarithm.
struct clip_range {
  double lowest = 0.8, highest = 1.2;
  /// The ratio itself is kept within these first; a sample beyond them has no gradient, whatever its advantage. Old samples of an
  /// asynchronous learner want it (Wołczyk et al. 2024: 0.05 and 20); without bounds it is off.
  double least_ratio = 0, greatest_ratio = std::numeric_limits<double>::infinity();
};

/// The loss, and what a PPO update says of itself: those without graph, 0-dim.
struct ppo_loss {
  at::Tensor loss;           ///< 0-dim, in the graph: the mean over samples
  at::Tensor approx_kl;      ///< mean of r - 1 - log r, an estimate of KL(old || new) that is never negative
  at::Tensor clip_fraction;  ///< share of samples whose ratio lies outside the range
};

/// The clipped surrogate of Proximal Policy Optimization (Schulman et al. 2017, arXiv 1707.06347), to be minimised:
///
///     r = exp(log pi(a|s) - log pi_old(a|s)),     loss = -mean min(r A, clip(r, lowest, highest) A)
///
/// with r kept within [least_ratio, greatest_ratio] first. approx_kl and clip_fraction are of the ratio as it was.
/// All three of one shape, usually [N]; log_probs carries the graph. Advantages are taken as they come: see normalized(). Of an empty batch
/// everything is 0. Throws shape_error where shapes differ, config_error for a range that does not hold 1 or does not lie above 0.
inline ppo_loss ppo_policy_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs, const at::Tensor& advantages,
                                const clip_range& range = {}) {
  if (log_probs.sizes() != old_log_probs.sizes() || log_probs.sizes() != advantages.sizes())
    throw shape_error(detail::concat("ppo_policy_loss: log_probs, old_log_probs and advantages must have one shape, got ",
                                     detail::shape_text(log_probs.sizes()), ", ", detail::shape_text(old_log_probs.sizes()), " and ",
                                     detail::shape_text(advantages.sizes())));
  if (!(range.lowest > 0 && range.lowest <= 1 && range.highest >= 1))
    throw config_error(detail::concat("ppo_policy_loss: the clip range must hold 1 and lie above 0, got ", range.lowest, " to ", range.highest));
  if (!(range.least_ratio >= 0 && range.least_ratio <= range.lowest && range.greatest_ratio >= range.highest))
    throw config_error(detail::concat("ppo_policy_loss: the ratio is kept within ", range.least_ratio, " to ", range.greatest_ratio,
                                      ", which must hold the clip range, ", range.lowest, " to ", range.highest));
  const auto difference = log_probs - old_log_probs.detach();
  const auto moved = difference.detach().exp();
  const bool bounded = range.least_ratio > 0 || range.greatest_ratio < std::numeric_limits<double>::infinity();
  // The bounds are put on the logarithm: a ratio that overflows would have a gradient of 0 times infinity behind them.
  const auto ratio = bounded ? difference.clamp(std::log(range.least_ratio), std::log(range.greatest_ratio)).exp() : difference.exp();
  const auto gain = advantages.detach();
  const auto loss = -detail::mean_of(at::min(ratio * gain, ratio.clamp(range.lowest, range.highest) * gain));
  const at::NoGradGuard no_grad;
  return {loss, detail::mean_of((difference.detach().expm1() - difference.detach()).clamp_min(0)),
          detail::mean_of(at::logical_or(moved.lt(range.lowest), moved.gt(range.highest)).to(moved.scalar_type()))};
}

/// The critic's squared error, mean over samples:
///
///     clip = 0:  mean (V - R)^2           clip > 0:  mean max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2)
///
/// values [N] carries the graph; returns [N] is what gae() gives; old_values [N] is only asked for with a clip. 0 for an empty batch. Throws
/// shape_error where shapes differ.
inline at::Tensor ppo_value_loss(const at::Tensor& values, const at::Tensor& returns, const at::Tensor& old_values = {}, double clip = 0) {
  if (values.sizes() != returns.sizes())
    throw shape_error(detail::concat("ppo_value_loss: values and returns must have one shape, got ", detail::shape_text(values.sizes()), " and ",
                                     detail::shape_text(returns.sizes())));
  const auto error = (values - returns.detach()).square();
  if (clip <= 0) return detail::mean_of(error);
  if (!old_values.defined() || old_values.sizes() != values.sizes())
    throw shape_error("ppo_value_loss: a value clip needs old_values of the shape of values");
  const auto old = old_values.detach();
  return detail::mean_of(at::max(error, (old + (values - old).clamp(-clip, clip) - returns.detach()).square()));
}

/// Advantages with mean 0 and standard deviation 1 over the batch; 0 for a single one.
inline at::Tensor normalized(const at::Tensor& advantages, double epsilon = 1e-7) {
  if (advantages.numel() < 2) return at::zeros_like(advantages);
  return (advantages - advantages.mean()) / (advantages.std() + epsilon);
}

/// The share of the returns' variance that the values explain: 1 perfect, 0 no better than their mean. 0-dim; NaN for fewer than two samples,
/// which have no variance. Throws shape_error where shapes differ.
inline at::Tensor explained_variance(const at::Tensor& values, const at::Tensor& returns) {
  if (values.sizes() != returns.sizes())
    throw shape_error(detail::concat("explained_variance: values and returns must have one shape, got ", detail::shape_text(values.sizes()), " and ",
                                     detail::shape_text(returns.sizes())));
  const at::NoGradGuard no_grad;
  return 1 - (returns - values).var() / (returns.var() + 1e-12);
}

}  // namespace retain
