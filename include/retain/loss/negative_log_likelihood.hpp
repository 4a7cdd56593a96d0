// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/counted.hpp>
#include <retain/base/error.hpp>
#include <retain/base/mean.hpp>
#include <retain/base/text.hpp>
#include <retain/core/concepts.hpp>
#include <retain/distributions/prediction.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <limits>

namespace retain {

struct likelihood_options {
  /// share of the label that is spread evenly over the legal actions, in [0, 1); only for discrete
  /// actions
  double label_smoothing = 0;
};

/// The loss and the accuracy of a policy on the actions of an expert.
struct likelihood_loss {
  /// 0-dim, with graph: mean over the valid rows, in nats per action; 0 if there is no valid row
  at::Tensor loss;
  /// 0-dim, no graph: share of valid rows whose most likely action is the expert's in every part;
  /// undefined for real-valued actions
  at::Tensor accuracy;
};

namespace detail {

/// Returns -log pi averaged over the actions with probability above 0, [...]. For a product of
/// distributions, returns the sum over its parts.
template <class D>
at::Tensor evenly_labelled(const D& d) {
  if constexpr (requires { d.log_probs(); }) {
    const at::Tensor legal = d.log_probs() != -std::numeric_limits<double>::infinity();
    return d.log_probs().masked_fill(legal.bitwise_not(), 0).sum(-1).neg() /
           legal.sum(-1).clamp_min(1);
  } else if constexpr (requires(std::int64_t k) { evenly_labelled(d.factor(k)); }) {
    at::Tensor sum = evenly_labelled(d.factor(0));
    for (std::int64_t k = 1; k < d.num_factors(); ++k) sum = sum + evenly_labelled(d.factor(k));
    return sum;
  } else {
    throw config_error(
        "negative_log_likelihood: label_smoothing needs discrete actions: set it to 0 for "
        "this distribution");
  }
}

}  // namespace detail

/// Computes the loss of behavioral cloning on labeled actions. Works with any distribution that
/// satisfies action_distribution:
///
///     loss = mean over valid rows of -log pi(a_expert|s)
///
/// With label_smoothing e:
///
///     (1 - e) loss + e times the mean over actions of -log pi(a|s)
///
/// `prediction` is the policy's output: distributions, logits as a tensor, or retain::masked. Rows
/// that the mask drops may hold anything, also NaN, in distribution and action. `actions` are the
/// expert's actions in the shape of the distributions' actions: [...] for a categorical, int64 or
/// another integral type; [..., K] for actions with several parts; [..., D] for real-valued
/// actions. An action with probability 0 costs +inf.
///
///     const categorical policy{net->forward(batch.observations)};
///     negative_log_likelihood(retain::masked{policy, batch.mask}, batch.actions).loss.backward();
///
/// Throws shape_error if the actions or the mask do not fit. Throws config_error if label_smoothing
/// is out of its range or used for real-valued actions, or if discrete actions are not of an
/// integral type.
template <class Prediction>
likelihood_loss negative_log_likelihood(const Prediction& prediction, const at::Tensor& actions,
                                        const likelihood_options& options = {}) {
  if (!(options.label_smoothing >= 0 && options.label_smoothing < 1))
    throw config_error(
        detail::concat("negative_log_likelihood: label_smoothing must be in [0, 1), got ",
                       options.label_smoothing));
  const auto& answer = detail::as_prediction(prediction);
  const at::Tensor mask = detail::mask_of(answer);
  const at::Tensor kept = mask.defined() ? mask.to(at::kBool) : at::Tensor();
  const auto d = detail::where(detail::distribution_of(answer), kept);
  const at::Tensor mode = d.mode();
  if (actions.sizes() != mode.sizes())
    throw shape_error(detail::concat(
        "negative_log_likelihood: actions of shape ", detail::shape_text(actions.sizes()),
        ", but the policy's actions have shape ", detail::shape_text(mode.sizes())));
  const bool real = at::isFloatingType(mode.scalar_type());
  at::Tensor labels =
      real ? actions.to(mode.options())
           : detail::counted("negative_log_likelihood", "actions", actions, mode.device());
  // Padding need not hold valid actions: use the policy's mode there.
  if (kept.defined()) {
    at::Tensor wide = kept.to(mode.device());
    while (wide.dim() < labels.dim()) wide = wide.unsqueeze(-1);
    labels = labels.masked_fill(wide.bitwise_not(), 0) +
             mode.to(labels.scalar_type()).masked_fill(wide, 0);
  }

  at::Tensor rows = d.log_prob(labels).neg();
  if (options.label_smoothing > 0)
    rows =
        rows * (1 - options.label_smoothing) + detail::evenly_labelled(d) * options.label_smoothing;
  likelihood_loss result{detail::masked_mean(rows, kept), {}};
  if (!real) {
    const at::NoGradGuard no_grad;
    at::Tensor right = mode == labels;
    while (right.dim() > rows.dim()) right = right.all(-1);
    result.accuracy = detail::masked_mean(right.to(rows.scalar_type()), kept);
  }
  return result;
}

}  // namespace retain
