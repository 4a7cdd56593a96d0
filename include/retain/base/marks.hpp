// SPDX-License-Identifier: MIT
// Tensors that mark steps: bool, or 0 and 1.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/ATen.h>

namespace retain::detail {

/// Returns the marks as bool. On the CPU, throws config_error if they hold another number than 0
/// and 1. On other devices this check would wait for the device, so there every number but 0 is a
/// mark.
inline at::Tensor marked(const char* who, const char* name, const at::Tensor& marks) {
  auto set = marks.to(at::kBool);
  if (marks.is_cpu() && marks.scalar_type() != at::kBool &&
      !set.to(marks.scalar_type()).equal(marks))
    throw config_error(
        concat(who, ": ", name,
               " must hold only 0 and 1 (or be bool), but it holds another number: a step is "
               "marked or it is not"));
  return set;
}

}  // namespace retain::detail
