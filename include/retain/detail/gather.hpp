// SPDX-License-Identifier: MIT
// Rows of whatever holds rows, by index.
#pragma once

#include <retain/detail/plain_floats.hpp>
#include <retain/detail/text.hpp>
#include <retain/error.hpp>

#include <ATen/ATen.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
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

/// Of the first `size` rows those at `indices` [i], by a loop; undefined where that is not the way: for rows that are not contiguous on the CPU,
/// or many, and for an index beyond them.
inline at::Tensor gather_few_rows(const at::Tensor& rows, const at::Tensor& indices, std::int64_t size) {
  constexpr std::size_t much = 1 << 17;  // bytes
  if (rows.dim() < 1 || rows.layout() != at::kStrided || !rows.device().is_cpu() || !rows.is_contiguous() || rows.requires_grad() || rows.is_conj() ||
      rows.is_neg() || rows._is_zerotensor() || rows.is_quantized() || rows._fw_grad(0).defined() || size < 1 || size > rows.size(0) || indices.dim() != 1)
    return {};
  const auto bytes = static_cast<std::size_t>(rows.numel() / rows.size(0)) * rows.itemsize();
  if (bytes * static_cast<std::size_t>(indices.numel()) > much || !plain_indices(indices, size)) return {};
  auto shape = rows.sizes().vec();
  shape[0] = indices.numel();
  auto result = at::empty(shape, rows.options());
  const auto* index = indices.data_ptr<std::int64_t>();
  const auto* from = static_cast<const char*>(rows.data_ptr());
  auto* to = static_cast<char*>(result.data_ptr());
  for (std::int64_t i = 0; bytes > 0 && i < indices.numel(); ++i, to += bytes) std::memcpy(to, from + static_cast<std::size_t>(index[i]) * bytes, bytes);
  return result;
}

/// Rows of `all` [n, ...] at `indices` [i, ...], as [i, ..., ...]: what the index has of dimensions stands first. With `size`, of the first of
/// them only.
inline at::Tensor gather_rows(const at::Tensor& all, const at::Tensor& indices, std::optional<std::int64_t> size = {}) {
  if (auto few = gather_few_rows(all, indices, size ? *size : size_of(all)); few.defined()) return few;
  const auto rows = size ? all.narrow(0, 0, *size) : all;
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
