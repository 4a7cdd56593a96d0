// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>

#include <ATen/ATen.h>

#include <limits>

namespace retain {

/// Returns a categorical over the legal actions of each state. `allowed` [..., A], bool or 0 and 1,
/// has the shape of the logits. An action that is not allowed has probability exactly 0: it is
/// never drawn, its log-probability is -inf, and it adds 0 to entropy, KL and Fisher. Its logit,
/// even NaN, affects neither values nor gradients.
///
///     masked_categorical(net->forward(observations), legal).sample()
///
/// An agent that exposes only probabilities: if it has already given illegal actions the
/// probability 0, categorical::from_probs(probabilities) is this distribution. Otherwise pass
/// categorical::from_probs(probabilities).logits here.
///
/// If q forbids an action that p allows, KL(p || q) of this row is +inf and its gradient is not
/// finite. Use the same mask for teacher and student.
///
/// Throws shape_error if the shapes differ. Throws config_error on the CPU if a row allows no
/// action. On other devices this check would have to wait for the device, so such a row is NaN
/// instead.
[[nodiscard]] inline categorical masked_categorical(const at::Tensor& logits,
                                                    const at::Tensor& allowed) {
  if (allowed.sizes() != logits.sizes())
    throw shape_error(detail::concat("masked_categorical: allowed has shape ",
                                     detail::shape_text(allowed.sizes()), ", the logits ",
                                     detail::shape_text(logits.sizes())));
  const at::Tensor legal = allowed.to(at::kBool);
  if (legal.device().is_cpu() && legal.dim() > 0 && !legal.any(-1).all().item<bool>())
    throw config_error("masked_categorical: a row allows no action; in padding allow any action, "
                       "for example with allowed.logical_or(padding.unsqueeze(-1))");
  return categorical{logits.masked_fill(legal.to(logits.device()).bitwise_not(),
                                        -std::numeric_limits<double>::infinity())};
}

}  // namespace retain
