// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>

namespace retain::detail {

/// Returns the largest logarithm of a probability ratio that a loss exponentiates. e^20 is 4.9e8;
/// in half, e^10 is 22026. For larger logarithms the exponential overflows to infinity. The
/// gradient of a clipped sample is 0, and 0 times infinity is NaN, which would make the gradient of
/// the whole batch NaN.
inline double greatest_log_ratio(at::ScalarType type) { return type == at::kHalf ? 10 : 20; }

}  // namespace retain::detail
