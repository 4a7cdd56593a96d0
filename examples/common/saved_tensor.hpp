// SPDX-License-Identifier: MIT
// Checks of saved tensors before their numbers are read or their sizes determine the size of a
// network.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <retain/base/concat.hpp>
#include <retain/error.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

/// A wildcard for one dimension in check_saved_shape. It is not −1, because a damaged file may
/// contain the size −1.
inline constexpr std::int64_t any_size = std::numeric_limits<std::int64_t>::min();

/// Returns the saved tensor if its shape is `shape`; any_size matches every size. Throws
/// retain::shape_error otherwise.
inline const at::Tensor& check_saved_shape(const retain::state& in, const std::string& key,
                                           const std::vector<std::int64_t>& shape) {
  const auto& saved = in.tensor(key);
  bool right = saved.dim() == static_cast<std::int64_t>(shape.size());
  for (std::size_t d = 0; right && d < shape.size(); ++d)
    right = shape[d] == any_size || saved.size(static_cast<std::int64_t>(d)) == shape[d];
  if (!right) {
    std::string wanted;
    for (const auto side : shape)
      wanted += retain::detail::concat(wanted.empty() ? "" : ", ",
                                       side == any_size ? "any" : std::to_string(side));
    throw retain::shape_error(
        retain::detail::concat("the saved '", key, "' has shape ", saved.sizes(), ", not [", wanted,
                               "]: the file is from another program or version"));
  }
  return saved;
}

/// Like check_saved_shape, and also checks the scalar type. Returns a contiguous tensor. Throws
/// retain::state_error if the type is different.
inline at::Tensor saved_tensor(const retain::state& in, const std::string& key, at::ScalarType type,
                               const std::vector<std::int64_t>& shape) {
  const auto& saved = check_saved_shape(in, key, shape);
  if (saved.scalar_type() != type)
    throw retain::state_error(retain::detail::concat(
        "the saved '", key, "' is ", saved.dtype(), ", not ", at::toString(type),
        ": the file is from another program or version"));
  return saved.contiguous();
}
