// SPDX-License-Identifier: MIT
// Tensors of a state whose numbers are read one by one, or that say how large a network is.
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

/// Stands for a side that may be any; not −1, which a damaged file may say of a size itself.
inline constexpr std::int64_t any_size = std::numeric_limits<std::int64_t>::min();

/// The sides that it has; any_size stands for any. Throws retain::shape_error for others.
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
                               "]: the file is of another program or version"));
  }
  return saved;
}

/// The same, and of this type of numbers, which lie one behind the other.
inline at::Tensor saved_tensor(const retain::state& in, const std::string& key, at::ScalarType type,
                               const std::vector<std::int64_t>& shape) {
  const auto& saved = check_saved_shape(in, key, shape);
  if (saved.scalar_type() != type)
    throw retain::state_error(
        retain::detail::concat("the saved '", key, "' is ", saved.dtype(), ", not ",
                               at::toString(type), ": the file is of another program or version"));
  return saved.contiguous();
}
