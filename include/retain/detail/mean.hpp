// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>

namespace retain::detail {

/// The mean of all values, in their graph; 0 of none, so that an empty batch adds nothing instead of NaN.
inline at::Tensor mean_of(const at::Tensor& values) { return values.numel() == 0 ? values.sum() : values.mean(); }

}  // namespace retain::detail
