// SPDX-License-Identifier: MIT
// Gathers rows of a tensor or of a memory by index.
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

/// A memory: at::Tensor [n, ...], or any type with size() and gather(indices) -> observations.
/// indices is an int64 tensor [batch] or [steps, batch] with values in [0, size()).
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

/// The largest number of bytes that a loop moves; above, LibTorch's operations are used.
inline constexpr std::size_t few_bytes = 1 << 17;

/// Returns whether a tensor's rows are contiguous bytes on the CPU, without a graph and without a
/// pending operation (such as a lazy negation).
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

/// Prefetches memory that is read soon.
inline void prefetch([[maybe_unused]] const char* from, [[maybe_unused]] std::size_t bytes) {
#if defined(__GNUC__)
  __builtin_prefetch(from);
  __builtin_prefetch(from + bytes - 1);
#endif
}

/// Returns the rows at `indices` [i] among the first `size` rows, copied by a loop. Returns an
/// undefined tensor if the rows are not contiguous on the CPU, if there are too many bytes, or if
/// an index is out of range.
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
  // Rows of a large memory are not in the cache: load this number of rows at the same time.
  constexpr std::int64_t ahead = 16;
  for (std::int64_t i = 0; bytes > 0 && i < indices.numel(); ++i, to += bytes) {
    if (i + ahead < indices.numel()) prefetch(row(i + ahead), bytes);
    std::memcpy(to, row(i), bytes);
  }
  return result;
}

/// Writes `given` into `rows`, beginning at row `start`, without a graph. Both must have the same
/// row shape and type.
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

/// Returns the rows of `all` [n, ...] at `indices` [i, ...], as [i, ..., ...]: the dimensions of
/// the indices come first. With `size`, uses only the first `size` rows.
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
