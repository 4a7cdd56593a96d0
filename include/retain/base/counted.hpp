// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

namespace retain::detail {

/// Returns numbers that select something, such as actions, as int64 on `device`. Takes any integral
/// type. Throws config_error, whose text begins with `who`, if the numbers are of a floating-point
/// type: the correct rounding is not known.
inline at::Tensor counted(const char* who, const char* what, const at::Tensor& numbers,
                          at::Device device) {
  if (!at::isIntegralType(numbers.scalar_type(), /*includeBool=*/true))
    throw config_error(concat(who, ": ", what, " must be whole numbers, got ", numbers.dtype(),
                              ": convert them with .to(at::kLong)"));
  return numbers.scalar_type() == at::kLong && numbers.device() == device
             ? numbers
             : numbers.to(device, at::kLong);
}

}  // namespace retain::detail
