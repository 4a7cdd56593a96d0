// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <cmath>

namespace retain {

struct anchored_critic_options {
  double discount = 0.99;  ///< gamma of both critics, in [0, 1)
  /// w of the formula: how much the source counts; 0 leaves the plain objective
  double weight = 1.0;
};

/// Anchor critics (El Mabsout et al. 2023, arXiv 2301.06987): the critic of the pre-training task
/// and its replay buffer are kept beside the new ones, and the actor has to satisfy both. With
/// rewards in [0, 1], (1 - gamma) Q lies in [0, 1], and the actor minimises the product of the two,
///
///     loss = -q q_anchor^w,    q = (1 - gamma) mean of Q(s, pi(s)) over new states,
///                              q_anchor = (1 - gamma) mean of Q_anchor(s, pi(s)) over states of the source's buffer
///
/// so that neither can be bought with the other: as one falls to 0, so does what the other is
/// worth. `values` and `anchor_values` hold Q and Q_anchor for the present policy's actions, [n]
/// and [m], in its graph. The batches differ: each critic judges its own states.
///
/// The anchor goes on learning, with the usual temporal-difference loss towards r + gamma (1 -
/// done) Q_anchor'(s', pi(s')), from the source's buffer alone and with the present policy's
/// actions; the new critic learns from new data alone. A frozen one would judge the old policy. A
/// mean outside [0, 1] is clamped and then pulls no more: give critics a bounded output, a sigmoid
/// divided by 1 - gamma say, and shift rewards into [0, 1] for both.
///
/// Returns a 0-dim tensor. Throws shape_error for an empty batch, config_error for a discount
/// outside [0, 1) or a negative weight.
inline at::Tensor anchored_policy_loss(const at::Tensor& values, const at::Tensor& anchor_values,
                                       const anchored_critic_options& options = {}) {
  if (values.numel() == 0 || anchor_values.numel() == 0)
    throw shape_error(detail::concat(
        "anchored_policy_loss: both critics need states to judge, got values of shapes ",
        detail::shape_text(values.sizes()), " and ", detail::shape_text(anchor_values.sizes())));
  if (!(options.discount >= 0 && options.discount < 1))
    throw config_error(detail::concat("anchored_policy_loss: the discount must be in [0, 1), got ",
                                      options.discount));
  if (!(options.weight >= 0) || !std::isfinite(options.weight))
    throw config_error(detail::concat(
        "anchored_policy_loss: the weight must be finite and not negative, got ", options.weight));
  const auto share = [&](const at::Tensor& q) {
    return (q.mean() * (1 - options.discount)).clamp(1e-6, 1.0);
  };
  return share(values).mul(share(anchor_values).pow(options.weight)).neg();
}

}  // namespace retain
