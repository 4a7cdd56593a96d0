// SPDX-License-Identifier: MIT
// Means over all rows, or over those that a mask keeps.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

#include <cstddef>

namespace retain::detail {

/// The mean of all values, in their graph; 0 of none, so that an empty batch adds nothing instead
/// of NaN.
inline at::Tensor mean_of(const at::Tensor& values) {
  return values.numel() == 0 ? values.sum() : values.mean();
}

// Masks are bool, and negated and joined bit by bit: LibTorch 1.13 has no logical operations on the
// meta device, which knows shapes alone.

/// The rows that both masks keep, as bool, on the device of the first; undefined when neither is
/// given. Throws shape_error, which begins with `who`, for masks of two shapes.
inline at::Tensor common_mask(const char* who, const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined()) return second.defined() ? second.to(at::kBool) : at::Tensor();
  if (second.defined() && first.sizes() != second.sizes())
    throw shape_error(concat(who, ": masks of shapes ", shape_text(first.sizes()), " and ",
                             shape_text(second.sizes()), " do not belong together"));
  return second.defined() ? first.to(at::kBool).bitwise_and(second.to(first.device(), at::kBool))
                          : first.to(at::kBool);
}

/// Mean of `values` over the rows that `kept` (bool, of their shape) keeps; undefined keeps all. 0
/// when none is kept, so that an empty batch adds nothing instead of NaN.
inline at::Tensor masked_mean(const at::Tensor& values, const at::Tensor& kept) {
  if (!kept.defined()) return mean_of(values);
  if (kept.sizes() != values.sizes())
    throw shape_error(concat("a mask of shape ", shape_text(kept.sizes()),
                             " does not fit rows of shape ", shape_text(values.sizes())));
  const auto counted = kept.to(values.device(), at::kBool);
  return values.masked_fill(counted.bitwise_not(), 0).sum() / counted.sum().clamp_min(1);
}

/// Actions with 0 in the rows that `kept` drops, where there need not be an action: [...] or [...,
/// D] for rows [...]. An undefined mask keeps all; one of another shape is left for the rows
/// themselves to refuse.
inline at::Tensor harmless_actions(const at::Tensor& actions, const at::Tensor& kept) {
  if (!kept.defined() || kept.dim() > actions.dim() ||
      kept.sizes() != actions.sizes().slice(0, static_cast<std::size_t>(kept.dim())))
    return actions;
  at::Tensor dropped = kept.to(actions.device(), at::kBool).bitwise_not();
  while (dropped.dim() < actions.dim()) dropped = dropped.unsqueeze(-1);
  return actions.masked_fill(dropped, 0);
}

/// The product of two sets of row weights, either of which may be undefined and then stands for 1.
inline at::Tensor product(const at::Tensor& first, const at::Tensor& second) {
  if (!first.defined() || !second.defined()) return first.defined() ? first : second;
  if (first.sizes() != second.sizes())
    throw shape_error(concat("weights of shapes ", shape_text(first.sizes()), " and ",
                             shape_text(second.sizes()), " do not belong together"));
  return first * second.to(first.device());
}

}  // namespace retain::detail
