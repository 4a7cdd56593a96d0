// SPDX-License-Identifier: MIT
#pragma once

#include <ATen/ATen.h>

namespace retain::detail {

/// The greatest logarithm of a ratio of probabilities that a loss takes the exponential of: e^20 is
/// 4.9e8, and in half e^10 is 22026. Some way beyond, a type's exponential is infinite, and times
/// the 0 that a clipped sample has for a gradient that is NaN, for the whole batch.
inline double greatest_log_ratio(at::ScalarType type) { return type == at::kHalf ? 10 : 20; }

}  // namespace retain::detail
