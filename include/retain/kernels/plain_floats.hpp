// SPDX-License-Identifier: MIT
// Conditions for loops over memory instead of LibTorch's operations. For a few hundred numbers, the
// call of an operation takes most of its time, and one loop replaces several operations.
#pragma once

#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/variable.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

namespace retain::detail {

/// The kernels for few floats. A benchmark disables them one by one to measure each of them.
enum class small_kernel : unsigned {
  layers = 1,
  heads = 2,
  gaussians = 4,
  losses = 8,
  updates = 16
};

/// While an object of this class exists, this thread uses LibTorch's operations instead of one
/// kernel.
class without_kernel {
 public:
  explicit without_kernel(small_kernel kernel) : before_(off()) {
    off() |= static_cast<unsigned>(kernel);
  }
  ~without_kernel() { off() = before_; }
  without_kernel(const without_kernel&) = delete;
  without_kernel& operator=(const without_kernel&) = delete;
  static bool wanted(small_kernel kernel) { return (off() & static_cast<unsigned>(kernel)) != 0; }

 private:
  static unsigned& off() {
    thread_local unsigned kernels = 0;
    return kernels;
  }
  unsigned before_;
};

/// Up to this number of elements, LibTorch's operations use one thread too.
inline constexpr std::int64_t few_numbers = 1 << 15;
/// The limit for exp, tanh or log of each element, because LibTorch computes eight of them at a
/// time.
inline constexpr std::int64_t few_functions = 1 << 10;

/// Returns whether the tensors that are defined are contiguous float32 on the CPU, and nothing
/// intercepts operations. Returns false while gradients are recorded: call it in a node's forward
/// or backward, or under a NoGradGuard.
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

/// Returns whether a node that computes in loops may replace operations on these tensors in the
/// graph.
inline bool may_join_in_loops(small_kernel kernel, std::initializer_list<const at::Tensor*> tensors,
                              std::int64_t most) {
  if (without_kernel::wanted(kernel)) return false;
  for (const auto* tensor : tensors)
    if (!may_join(*tensor) || tensor->numel() > most) return false;
  const at::NoGradGuard no_grad;
  return plain_floats(tensors);
}

/// Returns the address of a plain tensor's numbers, or null for an undefined tensor.
inline const float* floats_of(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<float>() : nullptr;
}

/// Increments a tensor's version counter after a loop wrote to it, as an in-place operation does.
/// Autograd then detects that a saved tensor has changed. A tensor made in inference mode has no
/// version counter and is in no graph.
inline void written(const at::Tensor& tensor) {
  if (!tensor.is_inference()) tensor.unsafeGetTensorImpl()->bump_version();
}

/// Returns x clamped to the bounds. NaN stays NaN.
inline float clipped(float x, float least, float greatest) {
  return x < least ? least : x > greatest ? greatest : x;
}

/// Returns whether the indices are contiguous int64 on the CPU, few, and all in [0, end).
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

/// Makes the incoming gradients contiguous for the loops. For example, the backward pass of a sum
/// gives an expanded gradient, which is copied.
inline torch::autograd::variable_list packed(torch::autograd::variable_list incoming) {
  if (at::GradMode::is_enabled()) return incoming;
  for (auto& gradient : incoming)
    if (gradient.defined() && gradient.layout() == at::kStrided) gradient = gradient.contiguous();
  return incoming;
}

/// Computes the gradients of a formula with LibTorch's operations, for the backward pass of a node
/// that uses loops. A node needs this if its gradient must be differentiated again, or if the
/// incoming gradients are not plain floats. The gradient of an input that needs no gradient is
/// undefined.
template <class Formula>
torch::autograd::variable_list gradients_of_formula(
    Formula formula, torch::autograd::variable_list inputs,
    const torch::autograd::variable_list& incoming) {
  const bool create_graph = at::GradMode::is_enabled();
  const at::AutoGradMode with_grad(true);
  torch::autograd::variable_list wanted, outputs, given, gradients(inputs.size());
  for (auto& input : inputs) {
    if (!create_graph && input.requires_grad()) input = input.detach().requires_grad_();
    if (input.requires_grad()) wanted.push_back(input);
  }
  const torch::autograd::variable_list made = formula(inputs);
  for (std::size_t i = 0; i < made.size(); ++i)
    if (incoming[i].defined() && made[i].requires_grad()) {
      outputs.push_back(made[i]);
      given.push_back(incoming[i]);
    }
  if (wanted.empty() || outputs.empty()) return gradients;
  const auto found = torch::autograd::grad(outputs, wanted, given, /*retain_graph=*/create_graph,
                                           create_graph, /*allow_unused=*/true);
  for (std::size_t i = 0, w = 0; i < inputs.size(); ++i)
    if (inputs[i].requires_grad()) gradients[i] = found[w++];
  return gradients;
}

}  // namespace retain::detail
