// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/loss/log_ratio.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace retain {

/// The clip range of the surrogate's ratio. The usual range is {1 - e, 1 + e}. {1 / 1.1, 1.1} is
/// symmetric in the logarithm.
struct clip_range {
  double lowest = 0.8, highest = 1.2;
  /// The ratio is first limited to [least_ratio, greatest_ratio]. A sample outside these limits has
  /// no gradient, whatever its advantage. An asynchronous learner with old samples needs these
  /// bounds (Wołczyk et al. 2024: 0.05 and 20). By default only the upper limit of
  /// ppo_policy_loss() applies.
  double least_ratio = 0, greatest_ratio = std::numeric_limits<double>::infinity();
};

/// The loss of a PPO update and two statistics. The statistics are 0-dim and have no graph.
struct ppo_loss {
  at::Tensor loss;  ///< 0-dim, with graph: the mean over samples
  /// mean of r - 1 - log r, an estimate of KL(old || new) that is never negative
  at::Tensor approx_kl;
  at::Tensor clip_fraction;  ///< share of samples whose ratio lies outside the range
};

/// Computes the clipped surrogate loss of Proximal Policy Optimization (PPO), which is minimized:
///
///     r = exp(log pi(a|s) - log pi_old(a|s))
///     loss = -mean min(r A, clip(r, lowest, highest) A)
///
/// The ratio r is first limited to [least_ratio, greatest_ratio], and always to at most e^20 (e^10
/// in half), so that no ratio is infinite. Above e^20, a sample with A > 0 is clipped as usual; a
/// sample with A < 0 costs e^20 |A| and has no gradient. approx_kl and clip_fraction use the ratio
/// before these limits.
///
/// log_probs, old_log_probs and advantages have one shape, usually [N]. log_probs carries the
/// graph. The advantages are used unchanged: see normalized(). For an empty batch all results are
/// 0.
///
/// Throws shape_error if the shapes differ, and config_error unless the clip range contains 1, is
/// above 0 and lies within [least_ratio, greatest_ratio].
///
/// Paper: Schulman et al. 2017 (arXiv 1707.06347).
inline ppo_loss ppo_policy_loss(const at::Tensor& log_probs, const at::Tensor& old_log_probs,
                                const at::Tensor& advantages, const clip_range& range = {}) {
  if (log_probs.sizes() != old_log_probs.sizes() || log_probs.sizes() != advantages.sizes())
    throw shape_error(detail::concat(
        "ppo_policy_loss: log_probs, old_log_probs and advantages must have one shape, got ",
        detail::shape_text(log_probs.sizes()), ", ", detail::shape_text(old_log_probs.sizes()),
        " and ", detail::shape_text(advantages.sizes())));
  if (!(range.lowest > 0 && range.lowest <= 1 && range.highest >= 1))
    throw config_error(
        detail::concat("ppo_policy_loss: the clip range must contain 1 and lie above 0, got ",
                       range.lowest, " to ", range.highest));
  if (!(range.least_ratio >= 0 && range.least_ratio <= range.lowest &&
        range.greatest_ratio >= range.highest))
    throw config_error(detail::concat("ppo_policy_loss: the limits of the ratio, ",
                                      range.least_ratio, " to ", range.greatest_ratio,
                                      ", must contain the clip range, ", range.lowest, " to ",
                                      range.highest));
  const auto difference = log_probs - old_log_probs.detach();
  const auto moved = difference.detach().exp();
  // The bounds apply to the logarithm. If the ratio itself overflowed before the clamp, its
  // gradient would be 0 times infinity.
  const double greatest = std::min(std::log(range.greatest_ratio),
                                   detail::greatest_log_ratio(difference.scalar_type()));
  const auto ratio = difference.clamp(std::log(range.least_ratio), greatest).exp();
  const auto gain = advantages.detach();
  const auto loss =
      -detail::mean_of(at::min(ratio * gain, ratio.clamp(range.lowest, range.highest) * gain));
  const at::NoGradGuard no_grad;
  return {
      loss, detail::mean_of((difference.detach().expm1() - difference.detach()).clamp_min(0)),
      detail::mean_of(
          at::logical_or(moved.lt(range.lowest), moved.gt(range.highest)).to(moved.scalar_type()))};
}

/// Returns the critic's squared error, mean over samples, with graph:
///
///     clip = 0:  mean (V - R)^2
///     clip > 0:  mean max((V - R)^2, (V_old + clamp(V - V_old, -clip, clip) - R)^2)
///
/// values [N] carries the graph. returns [N] are those of gae(). old_values [N] is needed only if
/// clip is above 0. The loss of an empty batch is 0. Throws shape_error if the shapes differ.
inline at::Tensor ppo_value_loss(const at::Tensor& values, const at::Tensor& returns,
                                 const at::Tensor& old_values = {}, double clip = 0) {
  if (values.sizes() != returns.sizes())
    throw shape_error(detail::concat("ppo_value_loss: values and returns must have one shape, got ",
                                     detail::shape_text(values.sizes()), " and ",
                                     detail::shape_text(returns.sizes())));
  const auto error = (values - returns.detach()).square();
  if (clip <= 0) return detail::mean_of(error);
  if (!old_values.defined() || old_values.sizes() != values.sizes())
    throw shape_error("ppo_value_loss: a clip above 0 needs old_values in the shape of values");
  const auto old = old_values.detach();
  return detail::mean_of(
      at::max(error, (old + (values - old).clamp(-clip, clip) - returns.detach()).square()));
}

namespace detail {

/// Returns whether the deviation is so small that it may come from rounding the mean of equal
/// numbers in double.
inline at::Tensor hardly_vary(const at::Tensor& mean, const at::Tensor& deviation) {
  return deviation <= 1e-13 * mean.abs();
}

}  // namespace detail

/// Returns the advantages with mean 0 and standard deviation 1 over the batch, (A - mean) / (std +
/// epsilon). Returns 0 if there is only one advantage or if all are equal.
inline at::Tensor normalized(const at::Tensor& advantages, double epsilon = 1e-7) {
  if (advantages.numel() < 2) return at::zeros_like(advantages);
  const auto mean = advantages.mean(), deviation = advantages.std();
  auto usual = (advantages - mean) / (deviation + epsilon);
  // The deviation of equal floats is not 0, because their mean is rounded. If the deviation is so
  // small that rounding may explain it, compute it in double.
  const auto may_show = [](const auto& from, const auto& spread) { return spread <= 1e-4 * from; };
  // On other devices reading the values would wait for the device.
  if (mean.is_cpu() && !may_show(std::abs(mean.item<double>()), deviation.item<double>()))
    return usual;
  const auto exact = advantages.to(at::kDouble), center = exact.mean(), spread = exact.std();
  const auto known =
      ((exact - center) / (spread + epsilon)).masked_fill(detail::hardly_vary(center, spread), 0);
  return at::where(may_show(mean.abs(), deviation), known.to(usual.scalar_type()), usual);
}

/// Returns the share of the returns' variance that the values explain, 0-dim: 1 is perfect, and 0
/// is no better than the mean of the returns. NaN for fewer than two samples, which have no
/// variance. If all returns are equal and the values are not, the result is far below 0. Throws
/// shape_error if the shapes differ.
inline at::Tensor explained_variance(const at::Tensor& values, const at::Tensor& returns) {
  if (values.sizes() != returns.sizes())
    throw shape_error(detail::concat(
        "explained_variance: values and returns must have one shape, got ",
        detail::shape_text(values.sizes()), " and ", detail::shape_text(returns.sizes())));
  const at::NoGradGuard no_grad;
  // In float, the variance of equal returns would be the rounding error of their mean.
  const auto exact = returns.to(at::kDouble);
  const auto variance =
      returns.var().masked_fill(detail::hardly_vary(exact.mean(), exact.std()), 0);
  return 1 - (returns - values).var() / (variance + 1e-12);
}

}  // namespace retain
