// SPDX-License-Identifier: MIT
// Finds, in the graph of a forward pass, every use of every parameter, and captures what per-sample
// gradients need: the input saved in the forward pass and the gradient that arrives in the backward
// pass. A parameter is covered when each edge that leads to it belongs to an operation known here;
// one unknown use is enough to leave it to the per-sample loop.
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/core/parameters.hpp>

#include <ATen/ATen.h>
#include <c10/util/Exception.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
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
  /// multiplied with every row of a normalised input; input [R, D] is that, gradient [R, D]
  scale,
  convolution,       ///< input [R, C, H, W], gradient [R, O, H', W']
  convolution_bias,  ///< gradient [R, O, ...]
  /// rows of a table; input holds indices, `rows` the row of the batch each belongs to
  lookup,
};

struct parameter_use {
  use_kind kind;
  // filled by graph_walk::capture; undefined where none arrived
  std::shared_ptr<at::Tensor> gradient;
  at::Tensor input;
  at::Tensor rows;                  // lookup in bags
  bool transposed = false;          // matrix: the parameter is [out, in]
  std::int64_t padding_index = -1;  // lookup: this row receives no gradient
  std::vector<std::int64_t> kernel, stride, padding, dilation;
  std::int64_t groups = 1;
};

class graph_walk {
 public:
  /// Walks the graphs below `roots`. Throws config_error for batch normalization by the statistics
  /// of the batch: there, no sample has a gradient of its own. `who` begins the error.
  graph_walk(const std::vector<at::Tensor>& roots, std::int64_t samples,
             const char* who = "estimate_fisher") {
    std::vector<node_pointer> pending;
    for (const auto& root : roots)
      if (root.grad_fn()) pending.push_back(root.grad_fn());
    std::unordered_set<Node*> seen;
    while (!pending.empty()) {
      const node_pointer node = pending.back();
      pending.pop_back();
      if (!seen.insert(node.get()).second) continue;
      refuse_batch_statistics(*node, who);
      by_shape_ = by_shape_ && places_by_shape(*node, samples);
      const auto& edges = node->next_edges();
      for (std::size_t slot = 0; slot < edges.size(); ++slot) {
        if (!edges[slot].function) continue;
        consumers_[edges[slot].function.get()].push_back({node, slot});
        if (auto* leaf = dynamic_cast<torch::autograd::AccumulateGrad*>(edges[slot].function.get()))
          leaves_[leaf->variable.unsafeGetTensorImpl()] = leaf;
        pending.push_back(edges[slot].function);
      }
    }
  }

  /// Whether every operation is known to put each row where shapes alone say, whatever the data.
  /// Others, such as a choice of tokens by index, may give one sample the rows of another.
  bool places_rows_by_shape() const { return by_shape_; }

  bool reaches(const at::Tensor& parameter) const {
    return leaves_.count(parameter.unsafeGetTensorImpl()) != 0;
  }

  /// All uses of a parameter, or nothing when one of them is not an operation known here.
  std::vector<parameter_use> uses_of(const at::Tensor& parameter) {
    std::vector<parameter_use> uses;
    const auto leaf = leaves_.find(parameter.unsafeGetTensorImpl());
    if (leaf == leaves_.end() || !collect_uses(leaf->second, parameter, false, uses)) return {};
    return uses;
  }

  /// The gradients of a scalar that arrive at the operations of all uses that were asked for, in
  /// place of the last ones; an operation that the scalar does not depend on is left with none. No
  /// parameter's own gradient is computed on the way.
  void capture(const at::Tensor& scalar) {
    std::vector<at::Tensor*> targets;
    torch::autograd::edge_list arrivals;
    for (auto& [node, captured] : captured_) {
      targets.push_back(captured.gradient.get());
      arrivals.emplace_back(captured.operation, 0);
    }
    if (targets.empty()) return;
    const auto arrived = torch::autograd::Engine::get_default_engine().execute(
        {torch::autograd::impl::gradient_edge(scalar)}, {at::ones_like(scalar)},
        /*keep_graph=*/true, /*create_graph=*/false,
        /*accumulate_grad=*/false, arrivals);
    for (std::size_t i = 0; i < targets.size(); ++i)
      *targets[i] =
          arrived[i].defined() ? behind_hooks(*arrivals[i].function, arrived[i]) : at::Tensor();
  }

 private:
  struct consumer {
    node_pointer node;
    std::size_t slot;
  };

  struct capture_point {
    node_pointer operation;
    std::shared_ptr<at::Tensor> gradient;
  };

  /// What an operation makes of an arriving gradient before it uses it: in LibTorch 1.13 the hooks
  /// of the tensor that it computed.
  static at::Tensor behind_hooks(Node& operation, const at::Tensor& arrived) {
    torch::autograd::variable_list inputs(operation.num_inputs());
    inputs[0] = arrived;
    for (const auto& hook : operation.pre_hooks()) inputs = (*hook)(inputs);
    return inputs[0];
  }

  static void refuse_batch_statistics(const Node& node, const char* who) {
    // Instance normalisation runs through the same operation, as one batch whose channels are
    // samples: that is no mixing. Its weight is repeated for each of them; that of batch
    // normalisation is the parameter itself.
    const auto mixes = [&](const auto* norm) {
      if (!norm || !norm->training) return false;
      const auto* weight =
          node.next_edges().size() > 1 ? node.next_edge(1).function.get() : nullptr;
      return norm->input_.unpack().size(0) != 1 ||
             dynamic_cast<const torch::autograd::AccumulateGrad*>(weight) != nullptr;
    };
    const auto* native = dynamic_cast<const nodes::NativeBatchNormBackward0*>(&node);
    const auto* cudnn = dynamic_cast<const nodes::CudnnBatchNormBackward0*>(&node);
    if (!mixes(native) && !mixes(cudnn)) return;
    if (native ? tracks(native->running_mean_) : tracks(cudnn->running_mean_))
      throw config_error(concat(who, ": the policy runs batch normalization in training mode, "
                                     "where no sample has a gradient of its own: "
                                     "call policy->eval() first"));
    throw config_error(concat(who,
                              ": the policy runs batch normalization without running statistics, "
                              "by those of the batch in eval mode too, where no "
                              "sample has a gradient of its own: train it with "
                              "track_running_stats(true), or use GroupNorm or LayerNorm instead"));
  }

  /// Whether a batch normalization has running statistics. What it has written into since can no
  /// longer be unpacked, but is there.
  static bool tracks(const torch::autograd::SavedVariable& running_mean) {
    try {
      return running_mean.unpack().defined();
    } catch (const c10::Error&) {
      return true;
    }
  }

  /// Whether one operation does. One that is missing here costs time and no more.
  static bool places_by_shape(Node& node, std::int64_t samples) {
    constexpr std::array<std::string_view, 44> known{"Add",
                                                     "Sub",
                                                     "Mul",
                                                     "Div",
                                                     "Neg",
                                                     "Exp",
                                                     "Log",
                                                     "Pow",
                                                     "Sqrt",
                                                     "Clamp",
                                                     "ClampMin",
                                                     "MaskedFill",
                                                     "Relu",
                                                     "Tanh",
                                                     "Sigmoid",
                                                     "Silu",
                                                     "Gelu",
                                                     "Elu",
                                                     "LeakyRelu",
                                                     "Softplus",
                                                     "LogSoftmax",
                                                     "Softmax",
                                                     "Sum",
                                                     "Addmm",
                                                     "Mm",
                                                     "T",
                                                     "Stack",
                                                     "Embedding",
                                                     "EmbeddingBag",
                                                     "Gather",
                                                     "Convolution",
                                                     "NativeLayerNorm",
                                                     "NativeGroupNorm",
                                                     "MaxPool2DWithIndices",
                                                     "View",
                                                     "ReshapeAlias",
                                                     "UnsafeView",
                                                     "Squeeze",
                                                     "Unsqueeze",
                                                     "Expand",
                                                     "Select",
                                                     "Unbind",
                                                     "UnsafeSplit",
                                                     "Clone"};
    const std::string name = node.name();
    if (name == "torch::autograd::AccumulateGrad") return true;
    const auto end = name.rfind("Backward");
    const std::string_view kind =
        std::string_view(name).substr(0, end == std::string::npos ? 0 : end);
    if (std::find(known.begin(), known.end(), kind) == known.end()) return false;
    const auto& edges = node.next_edges();
    // of activations, it moves rows
    if (kind == "T" || kind == "Embedding" || kind == "EmbeddingBag") return of_parameter(edges[0]);
    // a product from the left mixes them
    if (kind == "Mm" || kind == "Addmm") return of_parameter(edges.back());
    if (kind == "Stack")
      return std::none_of(edges.begin(), edges.end(),
                          [](const auto& edge) { return is_part(edge); });
    // A sum over rows may have each times a number that the data give it.
    if (auto* sum = dynamic_cast<nodes::SumBackward1*>(&node))
      return sum->dim.list && sum->dim.list->size() == 1 &&
             along_features(as_ints(sum->self_sym_sizes), sum->dim.list->front(), samples);
    if (kind == "Sum") return false;
    if (auto* gather = dynamic_cast<nodes::GatherBackward0*>(&node))
      return along_features(gather->self_.unpack().sizes().vec(), gather->dim, samples) &&
             gather->index_.unpack().size(-1) == 1;
    return true;
  }
  /// Whether a dimension holds numbers of one row: the last one of several, and not as many as the
  /// samples, or a multiple of them, which may be rows that were laid side by side.
  static bool along_features(const std::vector<std::int64_t>& sizes, std::int64_t dim,
                             std::int64_t samples) {
    const auto last = static_cast<std::int64_t>(sizes.size()) - 1;
    return last > 0 && (dim == -1 || dim == last) && (samples <= 1 || sizes.back() % samples != 0);
  }
  static bool of_parameter(const torch::autograd::Edge& edge) {
    Node* source = edge.function.get();
    if (source && source->name() == "TBackward0") source = source->next_edge(0).function.get();
    return !source || dynamic_cast<torch::autograd::AccumulateGrad*>(source);
  }
  /// Whether this is cut out of a tensor: rows that are cut apart can be put together in any order.
  static bool is_part(const torch::autograd::Edge& edge) {
    const std::string name = edge.function ? edge.function->name() : std::string();
    return name.starts_with("Select") || name.starts_with("Unbind") ||
           name.starts_with("UnsafeSplit") || name.starts_with("Squeeze");
  }

  bool collect_uses(Node* source, const at::Tensor& parameter, bool transposed,
                    std::vector<parameter_use>& uses) {
    for (const auto& [node, slot] : consumers_[source]) {
      const std::string name = node->name();
      if (!transposed && parameter.dim() == 2 &&
          (name == "TBackward0" || name == "TransposeBackward0")) {
        if (!collect_uses(node.get(), parameter, true, uses)) return false;
        continue;
      }
      parameter_use use;
      if (!describe(node, slot, parameter, transposed, use)) return false;
      auto& point = captured_[node.get()];
      if (!point.gradient) point = {node, std::make_shared<at::Tensor>()};
      use.gradient = point.gradient;
      uses.push_back(std::move(use));
    }
    return true;
  }

  static bool is_one(const at::Scalar& scalar) { return scalar.toDouble() == 1.0; }

  static bool describe(const node_pointer& node, std::size_t slot, const at::Tensor& parameter,
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
      // [D] or [1, D], the same for every row
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
      use.input =
          (norm->input_.unpack() - norm->result1_.unpack(node)) * norm->result2_.unpack(node);
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
      const auto ends =
          at::cat({starts.slice(0, 1),
                   at::scalar_tensor(use.input.numel(), starts.options()).reshape({1})});
      use.rows = at::repeat_interleave(ends - starts);  // with a last offset, that bag is empty
      return true;
    }
    return false;
  }

  template <class ConvolutionNode>
  static bool describe_convolution(ConvolutionNode& node, std::size_t slot, parameter_use& use) {
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

  bool by_shape_ = true;
  std::unordered_map<Node*, std::vector<consumer>> consumers_;
  std::unordered_map<at::TensorImpl*, torch::autograd::AccumulateGrad*> leaves_;
  std::unordered_map<Node*, capture_point> captured_;
};

}  // namespace retain::detail
