// SPDX-License-Identifier: MIT
// Means over all rows or over the rows that a mask keeps.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <cstddef>

namespace retain::detail {

/// Returns the mean of all values, with their graph. Returns 0 if there are no values, so that an
/// empty batch adds 0 to a loss instead of NaN.
inline at::Tensor mean_of(const at::Tensor& values) {
  return values.numel() == 0 ? values.sum() : values.mean();
}

// Masks are bool tensors and are combined with bitwise operations: in LibTorch 1.13 the meta device
// has no logical operations.

/// Returns the rows that both masks keep, as bool, on the device of the first mask. Returns an
/// undefined tensor if both masks are undefined. Throws shape_error, whose text begins with `who`,
/// if the masks differ in shape.
inline at::Tensor common_mask(const char* who, const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined()) return second.defined() ? second.to(at::kBool) : at::Tensor();
  if (second.defined() && first.sizes() != second.sizes())
    throw shape_error(concat(who, ": masks of shapes ", shape_text(first.sizes()), " and ",
                             shape_text(second.sizes()), " do not belong together"));
  return second.defined() ? first.to(at::kBool).bitwise_and(second.to(first.device(), at::kBool))
                          : first.to(at::kBool);
}

/// Returns the mean of `values` over the rows that `kept` keeps. `kept` is bool and has the shape
/// of `values`; an undefined mask keeps all rows. Returns 0 if no row is kept, so that an empty
/// batch adds 0 to a loss instead of NaN.
inline at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& kept) {
  if (!kept.defined()) return mean_of(values);
  if (kept.sizes() != values.sizes())
    throw shape_error(concat("a mask of shape ", shape_text(kept.sizes()),
                             " does not fit rows of shape ", shape_text(values.sizes())));
  const auto counted = kept.to(values.device(), at::kBool);
  return values.masked_fill(counted.bitwise_not(), 0).sum() / counted.sum().clamp_min(1);
}

/// Returns the actions with 0 in the rows that `kept` drops, because these rows need not hold
/// actions. Actions are [...] or [..., D] for rows [...]. An undefined mask keeps all rows. If the
/// shapes do not fit, returns the actions unchanged; a later check reports the error.
inline at::Tensor harmless_actions(const at::Tensor& actions, const at::Tensor& kept) {
  if (!kept.defined() || kept.dim() > actions.dim() ||
      kept.sizes() != actions.sizes().slice(0, static_cast<std::size_t>(kept.dim())))
    return actions;
  at::Tensor dropped = kept.to(actions.device(), at::kBool).bitwise_not();
  while (dropped.dim() < actions.dim()) dropped = dropped.unsqueeze(-1);
  return actions.masked_fill(dropped, 0);
}

/// Returns the product of two sets of row weights. An undefined set counts as 1.
inline at::Tensor product(const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined() || !second.defined()) return first.defined() ? first : second;
  if (first.sizes() != second.sizes())
    throw shape_error(concat("weights of shapes ", shape_text(first.sizes()), " and ",
                             shape_text(second.sizes()), " do not belong together"));
  return first * second.to(first.device());
}

}  // namespace retain::detail
