// SPDX-License-Identifier: MIT
// Whether a tensor may be kept: what is not finite would stay for good.
#pragma once

#include <ATen/ATen.h>

#include <cmath>

namespace retain::detail {

/// Whether every value of a floating-point tensor is finite. One pass where the sum is finite as
/// well, which it is unless values overflow together. Waits for the device; one without values
/// (meta) holds none that is not.
inline bool all_finite(const at::Tensor& values) {
  if (values.numel() == 0 || values.is_meta() || !at::isFloatingType(values.scalar_type()))
    return true;
  const at::Tensor dense =
      values.layout() == at::kStrided ? values.detach() : values.detach().to_dense();
  const auto real = dense.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return std::isfinite(dense.sum(real).item<double>()) || dense.isfinite().all().item<bool>();
}

}  // namespace retain::detail
