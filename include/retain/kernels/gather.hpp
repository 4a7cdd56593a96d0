// SPDX-License-Identifier: MIT
// Rows of whatever holds rows, by index.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/plain_floats.hpp>

#include <ATen/ATen.h>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

namespace retain::detail {

/// Items that can be drawn from: at::Tensor [n, ...] as it is, or any type with size() and
/// gather(indices) -> observations, where indices is an int64 tensor, [batch] or [steps, batch],
/// with values in [0, size()).
template <class M>
concept gatherable =
    std::convertible_to<M, at::Tensor> || requires(const M& memory, const at::Tensor& indices) {
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

/// Up to so many bytes are moved by a loop.
inline constexpr std::size_t few_bytes = 1 << 17;

/// Whether a tensor's rows are bytes one after the other on the CPU, without a graph or anything
/// that is still to be computed.
inline bool plain_rows(const at::Tensor& rows) {
  return rows.dim() > 0 && rows.layout() == at::kStrided && rows.device().is_cpu() &&
         rows.is_contiguous() && !rows.requires_grad() && !rows.is_conj() && !rows.is_neg() &&
         !rows._is_zerotensor() && !rows.is_quantized() && !rows._fw_grad(0).defined();
}
inline std::size_t bytes_of_row(const at::Tensor& rows) {
  return rows.size(0) == 0
             ? 0
             : static_cast<std::size_t>(rows.numel() / rows.size(0)) * rows.itemsize();
}

/// Asks for memory that is read soon.
inline void prefetch([[maybe_unused]] const char* from, [[maybe_unused]] std::size_t bytes) {
#if defined(__GNUC__)
  __builtin_prefetch(from);
  __builtin_prefetch(from + bytes - 1);
#endif
}

/// Of the first `size` rows those at `indices` [i], by a loop; undefined where that is not the way:
/// for rows that are not contiguous on the CPU, or many, and for an index beyond them.
inline at::Tensor gather_few_rows(const at::Tensor& rows, const at::Tensor& indices,
                                  std::int64_t size) {
  if (!plain_rows(rows) || size < 1 || size > rows.size(0) || indices.dim() != 1) return {};
  const auto bytes = bytes_of_row(rows);
  if (bytes * static_cast<std::size_t>(indices.numel()) > few_bytes ||
      !plain_indices(indices, size))
    return {};
  auto shape = rows.sizes().vec();
  shape[0] = indices.numel();
  auto result = at::empty(shape, rows.options());
  const auto* index = indices.data_ptr<std::int64_t>();
  const auto* from = static_cast<const char*>(rows.data_ptr());
  auto* to = static_cast<char*>(result.data_ptr());
  const auto row = [&](std::int64_t i) {
    return from + static_cast<std::size_t>(index[i]) * bytes;
  };
  // rows drawn from a large memory are in no cache: that many are waited for at once
  constexpr std::int64_t ahead = 16;
  for (std::int64_t i = 0; bytes > 0 && i < indices.numel(); ++i, to += bytes) {
    if (i + ahead < indices.numel()) prefetch(row(i + ahead), bytes);
    std::memcpy(to, row(i), bytes);
  }
  return result;
}

/// Writes `given` over the rows of `rows` from `start` on, which have its shape and type, without a
/// graph.
inline void put_rows(at::Tensor& rows, std::int64_t start, const at::Tensor& given) {
  const auto bytes = bytes_of_row(given) * static_cast<std::size_t>(given.size(0));
  if (bytes > few_bytes || !unobserved() || !plain_rows(rows) || !plain_rows(given)) {
    rows.narrow(0, start, given.size(0)).copy_(given.detach());
    return;
  }
  if (bytes > 0)
    std::memcpy(
        static_cast<char*>(rows.data_ptr()) + static_cast<std::size_t>(start) * bytes_of_row(rows),
        given.data_ptr(), bytes);
  written(rows);
}

/// Rows of `all` [n, ...] at `indices` [i, ...], as [i, ..., ...]: what the index has of dimensions
/// stands first. With `size`, of the first of them only.
inline at::Tensor gather_rows(const at::Tensor& all, const at::Tensor& indices,
                              std::optional<std::int64_t> size = {}) {
  if (auto few = gather_few_rows(all, indices, size ? *size : size_of(all)); few.defined())
    return few;
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
