// SPDX-License-Identifier: MIT
// The interface of all samplers. A sampler selects items by index. It does not depend on where the
// items are stored (in a tensor, in retain::transitions, or in a file).
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/checked.hpp>

#include <ATen/ATen.h>

#include <algorithm>
#include <concepts>
#include <cstdint>

namespace retain {

/// n drawn items, or n drawn sequences of L steps. All tensors are on the CPU.
struct drawn {
  at::Tensor indices;  ///< int64 [n], or [L, n]: positions of the items
  /// float64 [n]: a factor for the loss of each item; undefined if all items count equally
  at::Tensor weights;
  /// bool [L, n]: 1 at a valid step, 0 in padding; undefined if there is no padding
  at::Tensor mask;
  /// bool [L, n]: 1 at the first step of an episode, where a recurrent state is reset before the
  /// step; only for sequences
  at::Tensor episode_start;
};

/// s.sample(n) -> drawn, with indices in [0, s.size()). Equal seeds draw equal items for any number
/// of threads. A copy continues with the same draws as the original.
template <class S>
concept sampler = std::copyable<S> && requires(S& s, const S& c, std::int64_t n) {
  { s.sample(n) } -> std::same_as<drawn>;
  { c.size() } -> std::convertible_to<std::int64_t>;
};

/// A sampler of sequences of s.length() steps; its draws have `episode_start`.
template <class S>
concept sequence_sampler = sampler<S> && requires(const S& c) {
  { c.length() } -> std::convertible_to<std::int64_t>;
};

namespace detail {

inline void check_draw(const char* what, std::int64_t n, std::int64_t size) {
  if (n < 1) throw config_error(concat(what, ": cannot draw ", n, " items, at least 1 is needed"));
  if (n > most_items) throw config_error(concat(what, ": cannot draw ", n, " items at once"));
  if (size < 1) throw config_error(concat(what, ": there is nothing to draw from yet"));
}

/// Throws config_error if `count` or `more` is negative, or if their sum is above most_items.
inline void check_items(const char* what, std::int64_t count, std::int64_t more = 0) {
  if (count < 0 || more < 0)
    throw config_error(
        concat(what, ": the number of items must not be negative, got ", std::min(count, more)));
  if (count > most_items || more > most_items - count)
    throw config_error(concat(what, ": at most ", most_items, " items can be counted, got ", count,
                              more > 0 ? concat(" and ", more, " more") : ""));
}

/// An int64 tensor [n] and a pointer to its values. Throws config_error if the tensor does not fit
/// into memory.
struct index_buffer {
  index_buffer(const char* what, std::int64_t n)
      : tensor(allocated([&] { return at::empty({n}, at::TensorOptions().dtype(at::kLong)); }, what,
                         ": there is no room for ", n, " indices")),
        data(static_cast<std::int64_t*>(tensor.data_ptr())) {}
  at::Tensor tensor;
  std::int64_t* data;
};

/// Returns `indices` as a flat, contiguous int64 tensor on the CPU. Throws shape_error unless the
/// tensor is one-dimensional, and config_error if it has another type or a value outside [0, size).
inline at::Tensor checked_indices(const char* what, const at::Tensor& indices, std::int64_t size) {
  if (indices.dim() != 1)
    throw shape_error(
        concat(what, ": indices need the shape [n], got ", shape_text(indices.sizes())));
  if (indices.scalar_type() != at::kLong)
    throw config_error(concat(what, ": indices must be int64, got ", indices.dtype()));
  const at::Tensor flat = indices.to(at::kCPU).contiguous();
  const auto* index = static_cast<const std::int64_t*>(flat.data_ptr());
  for (std::int64_t i = 0; i < flat.numel(); ++i)
    if (index[i] < 0 || index[i] >= size)
      throw config_error(concat(what, ": the index ", index[i], " is not one of ", size, " items"));
  return flat;
}

}  // namespace detail
}  // namespace retain
