// SPDX-License-Identifier: MIT
// Where loops over memory may stand in for LibTorch's operations. On a few hundred numbers an
// operation's time is its call's, and a loop does the work of several.
#pragma once

#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include <cstdint>
#include <initializer_list>

namespace retain::detail {

/// Up to so many numbers one thread is what LibTorch's operations take too.
inline constexpr std::int64_t few_numbers = 1 << 15;
/// The same where each is put through exp, tanh or log, of which LibTorch makes eight at a time.
inline constexpr std::int64_t few_functions = 1 << 10;

/// Whether these, as far as they are defined, are contiguous float32 on the CPU, and nobody listens
/// to operations. Never while gradients are recorded: it is asked in a node's forward and backward,
/// or under a NoGradGuard.
inline bool plain_floats(std::initializer_list<const at::Tensor*> tensors) {
  if (at::GradMode::is_enabled() || !unobserved()) return false;
  for (const auto* tensor : tensors)
    if (tensor->defined() &&
        (tensor->layout() != at::kStrided || !tensor->device().is_cpu() ||
         tensor->scalar_type() != at::kFloat || !tensor->is_contiguous() || tensor->is_neg() ||
         tensor->_is_zerotensor() || tensor->_fw_grad(0).defined()))
      return false;
  return true;
}

/// Whether a node that computes in loops may stand for operations on these in the graph.
inline bool may_join_in_loops(std::initializer_list<const at::Tensor*> tensors, std::int64_t most) {
  for (const auto* tensor : tensors)
    if (!may_join(*tensor) || tensor->numel() > most) return false;
  const at::NoGradGuard no_grad;
  return plain_floats(tensors);
}

/// Where a plain tensor's numbers are; null for an undefined one.
inline const float* floats_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}

/// Says that a loop has written to a tensor, as an operation in place does: a graph that holds it
/// is told. A tensor that was made in inference mode has no counter to tell by, and no graph holds
/// it.
inline void written(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

/// Between the bounds; what is not a number stays that.
inline float clipped(float x, float least, float greatest) {
  return x < least ? least : x > greatest ? greatest : x;
}

/// Whether these are contiguous int64 on the CPU, few, and each of them in [0, end).
inline bool plain_indices(const at::Tensor& indices, std::int64_t end) {
  if (!unobserved() || indices.layout() != at::kStrided || !indices.device().is_cpu() ||
      indices.scalar_type() != at::kLong || !indices.is_contiguous() || indices._is_zerotensor() ||
      indices.numel() > few_numbers)
    return false;
  const auto* index = indices.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < indices.numel(); ++i)
    if (index[i] < 0 || index[i] >= end) return false;
  return true;
}

}  // namespace retain::detail
