// SPDX-License-Identifier: MIT
// Checks for distributions that are wrong or say nothing although they compute: probabilities that
// were given as logits, and a policy with a single action. Call them when something is set up, not
// in every step: on a GPU they wait for the device.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>
#include <retain/distributions/multi_discrete.hpp>
#include <retain/distributions/prediction.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <limits>

namespace retain::detail {

/// Whether logits [..., A] look like probabilities: in all rows they are not negative and their sum
/// is 1 within rounding; -inf, which forbids an action, counts as 0. Rows with mask 0 do not count.
///
/// One action has no probabilities to confuse. Rows whose positive logits are all equal, such as
/// one-hot rows and uniform rows, may well be logits, so one other row is necessary. For other
/// logits a sum of 1 would be chance: about once in 100 000 for a single row of two actions, and
/// rarer by this factor with every further row.
inline bool look_like_probabilities(const at::Tensor& logits, const at::Tensor& mask = {}) {
  if (logits.size(-1) < 2 || logits.numel() == 0 || !at::isFloatingType(logits.scalar_type()) ||
      logits.is_meta())  // a meta tensor has no values
    return false;
  const at::NoGradGuard no_grad;
  const double rounding = logits.scalar_type() == at::kHalf       ? 0x1p-10
                          : logits.scalar_type() == at::kBFloat16 ? 0x1p-7
                                                                  : 1e-5;
  at::Tensor p = logits.detach().to(at::kDouble);
  p = p.masked_fill(p == -std::numeric_limits<double>::infinity(), 0);
  const auto fits = p.ge(0).all(-1).logical_and_((p.sum(-1) - 1).abs_().le(rounding));
  const auto alike = p.eq(0).logical_or_(p.eq(p.amax(-1, true))).all(-1);
  if (!mask.defined() || mask.sizes() != fits.sizes())
    return fits.all().logical_and_(alike.all().logical_not_()).item<bool>();
  const auto counts = mask.to(fits.device(), at::kBool);
  return fits.logical_or(counts.logical_not())
      .all()
      .logical_and_(counts.logical_and(alike.logical_not()).any())
      .item<bool>();
}

/// Throws config_error if the logits of a prediction look like probabilities. Does nothing for
/// distributions without logits. `who` is the start of the error text. Call it once for each object
/// that asks a policy.
template <class P>
void refuse_probabilities(const char* who, const P& prediction) {
  const auto& d = distribution_of(prediction);
  const auto refuse = [&](const categorical& part) {
    if (look_like_probabilities(part.logits, mask_of(prediction)))
      throw config_error(
          concat(who, ": the logits look like probabilities: in every row they are not negative "
                      "and their sum is 1. If they are the output of a softmax, give "
                      "retain::categorical::from_probs(probabilities); if they are logits, give "
                      "their log_softmax(-1), which is the same policy"));
  };
  if constexpr (std::convertible_to<decltype(d), const categorical&>) {
    refuse(d);
  } else if constexpr (std::convertible_to<decltype(d), const multi_discrete&>) {
    for (std::int64_t k = 0; k < d.num_factors(); ++k) refuse(d.factor(k));
  }
}

/// Throws config_error if a distribution has a single action. Its probability is 1 whatever the
/// weights are, so its Fisher is 0.
template <class D>
void refuse_single_action(const char* who, const D& d) {
  std::int64_t most = 2;
  if constexpr (requires {
                  { d.num_actions() } -> std::convertible_to<std::int64_t>;
                }) {
    most = d.num_actions();
  } else if constexpr (std::convertible_to<const D&, const multi_discrete&>) {
    most = 1;
    for (std::int64_t k = 0; k < d.num_factors(); ++k)
      most = std::max(most, d.factor(k).num_actions());
  }
  if (most < 2)
    throw config_error(concat(
        who, ": the policy has a single action, whose probability is 1 whatever the weights are: "
             "there is nothing to keep. Check that forward returns the logits of the policy and "
             "not a value; for two actions with one logit z, return "
             "at::stack({at::zeros_like(z), z}, -1)"));
}

}  // namespace retain::detail
