// SPDX-License-Identifier: MIT
// Rows of whatever holds rows, by index.
#pragma once

#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <concepts>
#include <cstdint>
#include <vector>

namespace retain::detail {

/// Items that can be drawn from: at::Tensor [n, ...] as it is, or any type with size() and gather(indices) -> observations,
/// where indices is an int64 tensor, [batch] or [steps, batch], with values in [0, size()).
template <class M>
concept gatherable = std::convertible_to<M, at::Tensor> || requires(const M& memory, const at::Tensor& indices) {
  { memory.size() } -> std::convertible_to<std::int64_t>;
  memory.gather(indices);
};

template <gatherable M>
std::int64_t size_of(const M& memory) {
  if constexpr (std::convertible_to<M, at::Tensor>)
    return memory.dim() == 0 ? 0 : memory.size(0);
  else
    return static_cast<std::int64_t>(memory.size());
}

/// Rows of `rows` [n, ...] at `indices` [i, ...], as [i, ..., ...]: what the index has of dimensions stands first.
inline at::Tensor gather_rows(const at::Tensor& rows, const at::Tensor& indices) {
  const auto on_device = indices.to(rows.device());
  if (indices.dim() == 1) return rows.index_select(0, on_device);
  std::vector<std::int64_t> shape(indices.sizes().begin(), indices.sizes().end());
  shape.insert(shape.end(), rows.sizes().begin() + 1, rows.sizes().end());
  return rows.index_select(0, on_device.reshape({-1})).view(shape);
}

template <gatherable M>
auto gather(const M& memory, const at::Tensor& indices) {
  if constexpr (std::convertible_to<M, at::Tensor>)
    return gather_rows(memory, indices);
  else
    return memory.gather(indices);
}

}  // namespace retain::detail
