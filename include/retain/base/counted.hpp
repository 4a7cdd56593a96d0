// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

namespace retain::detail {

/// Numbers that pick something, such as actions, as int64 on `device`: any integral type is taken.
/// Throws config_error, which begins with `who`, for real ones: what they would be rounded to is a
/// guess.
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
