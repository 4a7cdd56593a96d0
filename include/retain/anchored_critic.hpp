// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <cmath>

namespace retain {

struct anchored_critic_options {
  double gamma = 0.99;  ///< the discount of both critics, in [0, 1)
  /// the exponent w in the formula: the influence of the source critic; 0 gives the objective
  /// without the source critic
  double weight = 1.0;
};

/// Returns the policy loss with an anchor critic, a 0-dim tensor. The critic of the pre-training
/// task (the source critic) is kept together with its replay buffer, and the policy must satisfy
/// both the source critic and the new critic. If rewards are in [0, 1], then (1 - gamma) Q is in
/// [0, 1]. The loss is the negative product of the two values, where the second value has the
/// exponent w:
///
///     loss = -q q_anchor^w
///     q        = (1 - gamma) mean of Q(s, pi(s)) over new states
///     q_anchor = (1 - gamma) mean of Q_anchor(s, pi(s)) over states of the source's buffer
///
/// A high value of one critic cannot compensate for a low value of the other critic: if one value
/// is near 0, the product is near 0.
///
/// Arguments: `values` [n] holds Q and `anchor_values` [m] holds Q_anchor, both for the actions of
/// the current policy and in its graph. The two batches are different: the new critic gets new
/// states, the source critic gets states of the source's buffer.
///
/// The anchor critic must be trained further, because a frozen critic would give the values of the
/// old policy. Train the anchor critic with the usual temporal-difference loss towards
/// r + gamma (1 - terminated) Q_anchor'(s', pi(s')). Use only the source's buffer and the actions
/// of the current policy. Train the new critic on new data only.
///
/// A mean outside [0, 1] is clamped and then has no gradient. Therefore give both critics a bounded
/// output, for example a sigmoid divided by 1 - gamma, and shift the rewards of both tasks into
/// [0, 1].
///
/// Throws shape_error for an empty batch. Throws config_error for a gamma outside [0, 1) and for
/// a weight that is negative or not finite.
///
/// Paper: El Mabsout et al. 2023, arXiv 2301.06987.
inline at::Tensor anchored_policy_loss(const at::Tensor& values, const at::Tensor& anchor_values,
                                       const anchored_critic_options& options = {}) {
  if (values.numel() == 0 || anchor_values.numel() == 0)
    throw shape_error(detail::concat(
        "anchored_policy_loss: both critics need at least one state, got values of shapes ",
        detail::shape_text(values.sizes()), " and ", detail::shape_text(anchor_values.sizes())));
  if (!(options.gamma >= 0 && options.gamma < 1))
    throw config_error(
        detail::concat("anchored_policy_loss: gamma must be in [0, 1), got ", options.gamma));
  if (!(options.weight >= 0) || !std::isfinite(options.weight))
    throw config_error(detail::concat(
        "anchored_policy_loss: the weight must be finite and not negative, got ", options.weight));
  const auto share = [&](const at::Tensor& q) {
    return (q.mean() * (1 - options.gamma)).clamp(1e-6, 1.0);
  };
  return share(values).mul(share(anchor_values).pow(options.weight)).neg();
}

}  // namespace retain
