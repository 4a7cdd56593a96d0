// SPDX-License-Identifier: MIT
// Checks that a tensor is finite before the library stores it. A stored NaN would never disappear.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

namespace retain::detail {

/// Returns whether every value of a floating-point tensor is finite. This takes one pass if the sum
/// of the values is finite too, which is the usual case. Waits for the device. Returns true for a
/// meta tensor, which has no values.
inline bool all_finite(const at::Tensor& values) {
  if (values.numel() == 0 || values.is_meta() || !at::isFloatingType(values.scalar_type()))
    return true;
  const at::Tensor dense =
      values.layout() == at::kStrided ? values.detach() : values.detach().to_dense();
  const auto real = dense.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return std::isfinite(dense.sum(real).item<double>()) || dense.isfinite().all().item<bool>();
}

}  // namespace retain::detail
