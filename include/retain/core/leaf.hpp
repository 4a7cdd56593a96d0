// SPDX-License-Identifier: MIT
// Checks whether a tensor has a `.grad` that an optimizer reads.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/core/Tensor.h>

#include <string>

namespace retain::detail {

/// Returns whether a tensor is computed from a parameter, as a part of it (narrow, view, index) or
/// by other operations. Neither a backward pass nor an optimizer uses the `.grad` of a computed
/// tensor. A part that was taken without a graph counts as a trained leaf.
inline bool is_computed(const at::Tensor& tensor) {
  if (tensor.is_view() && tensor._base().requires_grad()) return true;
  return !tensor.is_leaf();
}

/// Throws config_error if the tensor is computed. Functions that read or write `.grad` call this
/// check.
inline void check_leaf(const char* who, const std::string& name, const at::Tensor& tensor,
                       const char* instead = "") {
  if (is_computed(tensor))
    throw config_error(
        concat(who, ": '", name, "' ", shape_text(tensor.sizes()),
               " is computed from another tensor (for example, it is a slice) and has no "
               ".grad that an optimizer reads: pass the parameters themselves",
               instead));
}

}  // namespace retain::detail
