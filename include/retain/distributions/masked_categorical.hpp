// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/distributions/categorical.hpp>

#include <ATen/ATen.h>

#include <limits>

namespace retain {

/// A categorical over the actions that are legal in each state: `allowed` [..., A], bool or 0 and
/// 1, has the shape of the logits. Every other action has probability exactly 0: it is never drawn,
/// its log-probability is -inf, it adds nothing to entropy, KL or Fisher, and whatever stands in
/// its logit, NaN too, reaches neither value nor gradient.
///
///     masked_categorical(net->forward(observations), legal).sample()
///
/// KL(p || q) is +inf, without a gradient that is finite, in a row where q forbids what p may do:
/// mask teacher and student alike. Throws shape_error when the shapes differ, and on the CPU
/// config_error for a row that allows nothing; on other devices, where looking would mean waiting,
/// such a row is NaN throughout.
inline categorical masked_categorical(const at::Tensor& logits, const at::Tensor& allowed) {
  if (allowed.sizes() != logits.sizes())
    throw shape_error(detail::concat("masked_categorical: allowed has shape ",
                                     detail::shape_text(allowed.sizes()), ", the logits ",
                                     detail::shape_text(logits.sizes())));
  const at::Tensor legal = allowed.to(at::kBool);
  if (legal.device().is_cpu() && legal.dim() > 0 && !legal.any(-1).all().item<bool>())
    throw config_error("masked_categorical: a row allows no action; in padding allow any, for "
                       "example with allowed.logical_or(padding.unsqueeze(-1))");
  return categorical{logits.masked_fill(legal.to(logits.device()).bitwise_not(),
                                        -std::numeric_limits<double>::infinity())};
}

}  // namespace retain
