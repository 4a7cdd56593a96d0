// SPDX-License-Identifier: MIT
// Decides whether an operation of a graph keeps the rows of each sample separate and in a known
// place. Some operations mix the samples of a batch. Others move rows in a way that depends on the
// data.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/importance/parameter_uses.hpp>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace retain::detail {

/// Whether a batch normalization has running statistics. If they were written after the forward
/// pass, they cannot be unpacked; then they exist.
inline bool has_running_statistics(const torch::autograd::SavedVariable& running_mean) {
  try {
    return running_mean.unpack().defined();
  } catch (const c10::Error&) {
    return true;
  }
}

/// Throws config_error if the node is a batch normalization by the statistics of the batch, because
/// then the gradient of a sample depends on the other samples. `who` is the start of the error
/// text.
inline void refuse_batch_statistics(const Node& node, const char* who) {
  // Instance normalization uses the same operation: one batch whose channels are the samples. This
  // does not mix samples. Its weight is a repeated tensor, while the weight of a batch
  // normalization is the parameter itself.
  const auto mixes = [&](const auto* norm) {
    if (!norm || !norm->training) return false;
    const auto* weight = node.next_edges().size() > 1 ? node.next_edge(1).function.get() : nullptr;
    return norm->input_.unpack().size(0) != 1 ||
           dynamic_cast<const torch::autograd::AccumulateGrad*>(weight) != nullptr;
  };
  const auto* native = dynamic_cast<const nodes::NativeBatchNormBackward0*>(&node);
  const auto* cudnn = dynamic_cast<const nodes::CudnnBatchNormBackward0*>(&node);
  if (!mixes(native) && !mixes(cudnn)) return;
  if (native ? has_running_statistics(native->running_mean_)
             : has_running_statistics(cudnn->running_mean_))
    throw config_error(concat(who, ": the policy runs batch normalization in training mode, "
                                   "so the gradient of a sample depends on the other samples: "
                                   "call policy->eval() first"));
  throw config_error(concat(who,
                            ": the policy runs batch normalization without running statistics, "
                            "so the gradient of a sample depends on the other samples, in eval "
                            "mode too: train the policy with "
                            "track_running_stats(true), or use GroupNorm or LayerNorm instead"));
}

/// Whether a dimension holds the numbers of one row. It must be the last of several dimensions. Its
/// size must not be a multiple of the number of samples, because then it may hold concatenated
/// rows.
inline bool along_features(const std::vector<std::int64_t>& sizes, std::int64_t dim,
                           std::int64_t samples) {
  const auto last = static_cast<std::int64_t>(sizes.size()) - 1;
  return last > 0 && (dim == -1 || dim == last) && (samples <= 1 || sizes.back() % samples != 0);
}
inline bool comes_from_parameter(const torch::autograd::Edge& edge) {
  Node* source = edge.function.get();
  if (source && source->name() == "TBackward0") source = source->next_edge(0).function.get();
  return !source || dynamic_cast<torch::autograd::AccumulateGrad*>(source);
}
/// Whether a tensor is a part of another tensor. Such parts can be put together in any order.
inline bool is_cut_out(const torch::autograd::Edge& edge) {
  const std::string name = edge.function ? edge.function->name() : std::string();
  return name.starts_with("Select") || name.starts_with("Unbind") ||
         name.starts_with("UnsafeSplit") || name.starts_with("Squeeze");
}

/// Whether the position of each row in an operation's result depends on shapes only. If an
/// operation is missing in this list, the estimate is slower but still correct.
inline bool places_by_shape(Node& node, std::int64_t samples) {
  // clang-format off
  constexpr std::array<std::string_view, 44> known{
      "Add", "Sub", "Mul", "Div", "Neg", "Exp", "Log", "Pow", "Sqrt", "Clamp", "ClampMin",
      "MaskedFill", "Relu", "Tanh", "Sigmoid", "Silu", "Gelu", "Elu", "LeakyRelu", "Softplus",
      "LogSoftmax", "Softmax", "Sum", "Addmm", "Mm", "T", "Stack", "Embedding", "EmbeddingBag",
      "Gather", "Convolution", "NativeLayerNorm", "NativeGroupNorm", "MaxPool2DWithIndices",
      "View", "ReshapeAlias", "UnsafeView", "Squeeze", "Unsqueeze", "Expand", "Select", "Unbind",
      "UnsafeSplit", "Clone"};
  // clang-format on
  const std::string name = node.name();
  if (name == "torch::autograd::AccumulateGrad") return true;
  const auto end = name.rfind("Backward");
  const std::string_view kind =
      std::string_view(name).substr(0, end == std::string::npos ? 0 : end);
  if (std::find(known.begin(), known.end(), kind) == known.end()) return false;
  const auto& edges = node.next_edges();
  // applied to activations instead of a parameter, these operations move rows
  if (kind == "T" || kind == "Embedding" || kind == "EmbeddingBag")
    return comes_from_parameter(edges[0]);
  // a product with a matrix from the left mixes rows
  if (kind == "Mm" || kind == "Addmm") return comes_from_parameter(edges.back());
  if (kind == "Stack")
    return std::none_of(edges.begin(), edges.end(),
                        [](const auto& edge) { return is_cut_out(edge); });
  // A sum over rows may multiply each row by a number that depends on the data.
  if (auto* sum = dynamic_cast<nodes::SumBackward1*>(&node))
    return sum->dim.list && sum->dim.list->size() == 1 &&
           along_features(as_ints(sum->self_sym_sizes), sum->dim.list->front(), samples);
  if (kind == "Sum") return false;
  if (auto* gather = dynamic_cast<nodes::GatherBackward0*>(&node))
    return along_features(gather->self_.unpack().sizes().vec(), gather->dim, samples) &&
           gather->index_.unpack().size(-1) == 1;
  return true;
}

}  // namespace retain::detail
