// SPDX-License-Identifier: MIT
// Describes how an operation in the autograd graph uses a parameter: the operations that the Fisher
// estimate knows, and the saved values that the estimate needs.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

namespace retain::detail {

namespace nodes = torch::autograd::generated;
using torch::autograd::Node;
using node_pointer = std::decay_t<decltype(std::declval<torch::autograd::Edge>().function)>;

inline std::int64_t as_int(std::int64_t value) { return value; }
template <class Symbolic>
std::int64_t as_int(const Symbolic& value) {
  return value.expect_int();
}
template <class List>
std::vector<std::int64_t> as_ints(const List& list) {
  std::vector<std::int64_t> values;
  for (const auto& value : list) values.push_back(as_int(value));
  return values;
}

/// How an operation uses a parameter.
enum class use_kind {
  matrix,  ///< input [R, in] times the weight; gradient [R, out]
  bias,    ///< added to every row; gradient [R, out]
  /// multiplied with every row of a normalized input; input [R, D] is the normalized input,
  /// gradient [R, D]
  scale,
  convolution,       ///< input [R, C, H, W], gradient [R, O, H', W']
  convolution_bias,  ///< gradient [R, O, ...]
  /// rows of a table; input holds indices, `rows` holds the batch row of each index
  lookup,
};

struct parameter_use {
  use_kind kind;
  // set by graph_walk::capture; undefined if no gradient arrived
  std::shared_ptr<at::Tensor> gradient;
  at::Tensor input;
  at::Tensor rows;                  // lookup: for bags only
  bool transposed = false;          // matrix: the parameter is [out, in]
  std::int64_t padding_index = -1;  // lookup: this row receives no gradient
  std::vector<std::int64_t> kernel, stride, padding, dilation;
  std::int64_t groups = 1;
};

inline bool is_one(const at::Scalar& scalar) { return scalar.toDouble() == 1.0; }

template <class ConvolutionNode>
bool describe_convolution(ConvolutionNode& node, std::size_t slot, parameter_use& use) {
  if (node.transposed) return false;
  if (slot == 2) return use.kind = use_kind::convolution_bias, true;
  if (slot != 1) return false;
  use.kind = use_kind::convolution;
  use.input = node.input_.unpack();
  use.kernel = node.weight_.unpack().sizes().slice(2).vec();
  use.stride = as_ints(node.stride);
  use.padding = as_ints(node.padding);
  use.dilation = as_ints(node.dilation);
  use.groups = as_int(node.groups);
  return use.kernel.size() <= 2 &&
         use.input.dim() == static_cast<std::int64_t>(use.kernel.size()) + 2;
}

/// Describes how an operation uses a parameter at input `slot`. `transposed` means that the
/// operation uses the parameter's transpose. Returns false if the operation, or this form of it, is
/// not known here.
inline bool describe_use(const node_pointer& node, std::size_t slot, const at::Tensor& parameter,
                         bool transposed, parameter_use& use) {
  if (auto* addmm = dynamic_cast<nodes::AddmmBackward0*>(node.get())) {
    if (!is_one(addmm->alpha) || !is_one(addmm->beta)) return false;
    if (slot == 0 && parameter.dim() == 1) return use.kind = use_kind::bias, true;
    if (slot != 2) return false;
    use.kind = use_kind::matrix;
    use.input = addmm->mat1_.unpack();
    use.transposed = transposed;
    return true;
  }
  if (auto* mm = dynamic_cast<nodes::MmBackward0*>(node.get())) {
    if (slot != 1) return false;
    use.kind = use_kind::matrix;
    use.input = mm->self_.unpack();
    use.transposed = transposed;
    return true;
  }
  if (transposed) return false;
  if (auto* add = dynamic_cast<nodes::AddBackward0*>(node.get())) {
    if (parameter.dim() != 1 || (slot == 1 && !is_one(add->alpha))) return false;
    return use.kind = use_kind::bias, true;
  }
  if (dynamic_cast<nodes::ExpandBackward0*>(node.get())) {
    // a parameter [D] or [1, D] that is the same for every row
    if (parameter.dim() < 1 || parameter.size(-1) != parameter.numel()) return false;
    return use.kind = use_kind::bias, true;
  }
  if (auto* convolution = dynamic_cast<nodes::ConvolutionBackward0*>(node.get()))
    return describe_convolution(*convolution, slot, use);
  if (auto* convolution = dynamic_cast<nodes::ConvolutionBackward1*>(node.get()))
    return describe_convolution(*convolution, slot, use);
  if (auto* norm = dynamic_cast<nodes::NativeLayerNormBackward0*>(node.get())) {
    if (norm->normalized_shape.size() != 1) return false;
    if (slot == 2) return use.kind = use_kind::bias, true;
    if (slot != 1) return false;
    use.kind = use_kind::scale;
    use.input = (norm->input_.unpack() - norm->result1_.unpack(node)) * norm->result2_.unpack(node);
    return true;
  }
  if (auto* embedding = dynamic_cast<nodes::EmbeddingBackward0*>(node.get())) {
    if (embedding->scale_grad_by_freq || embedding->sparse) return false;
    use.kind = use_kind::lookup;
    use.input = embedding->indices_.unpack();
    use.padding_index = as_int(embedding->padding_idx);
    return true;
  }
  if (auto* bag = dynamic_cast<nodes::EmbeddingBagBackward0*>(node.get())) {
    constexpr std::int64_t sum = 0;
    if (slot != 0 || bag->mode != sum || bag->scale_grad_by_freq || bag->sparse ||
        bag->per_sample_weights_.unpack().defined())
      return false;
    use.kind = use_kind::lookup;
    use.input = bag->indices_.unpack();
    use.padding_index = as_int(bag->padding_idx);
    const auto starts = bag->offsets_.unpack().to(at::kLong);
    const auto ends = at::cat(
        {starts.slice(0, 1), at::scalar_tensor(use.input.numel(), starts.options()).reshape({1})});
    // If the offsets include the end (include_last_offset), the last bag is empty.
    use.rows = at::repeat_interleave(ends - starts);
    return true;
  }
  return false;
}

}  // namespace retain::detail
