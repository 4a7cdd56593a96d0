// SPDX-License-Identifier: MIT
// Whether a tensor has a `.grad` that an optimizer reads.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>

#include <ATen/core/Tensor.h>

#include <string>

namespace retain::detail {

/// Whether a tensor is made from a parameter, as a part of it (narrow, view, index) or by other
/// operations. No backward pass and no optimizer looks at the `.grad` of such a one. A part that
/// was taken without a graph counts as a leaf that is trained.
inline bool is_computed(const at::Tensor& tensor) {
  if (tensor.is_view() && tensor._base().requires_grad()) return true;
  return !tensor.is_leaf();
}

/// Throws config_error for a computed tensor. For those who read or write `.grad`.
inline void check_leaf(const char* who, const std::string& name, const at::Tensor& tensor,
                       const char* instead = "") {
  if (is_computed(tensor))
    throw config_error(
        concat(who, ": '", name, "' ", shape_text(tensor.sizes()),
               " is computed from another tensor, a part of it for example, and has no "
               ".grad that an optimizer reads: give the parameters themselves",
               instead));
}

}  // namespace retain::detail
