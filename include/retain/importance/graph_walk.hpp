// SPDX-License-Identifier: MIT
// Finds every use of every parameter in the graph of a forward pass. Captures what per-sample
// gradients need: the input saved in the forward pass, and the gradient that arrives in the
// backward pass. A parameter is covered if each edge that leads to it belongs to an operation known
// here. A parameter with an unknown use is left to the per-sample loop.
#pragma once

#include <retain/importance/parameter_uses.hpp>
#include <retain/importance/row_placement.hpp>

#include <ATen/ATen.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/functions/accumulate_grad.h>
#include <torch/csrc/autograd/variable.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

namespace retain::detail {

class graph_walk {
 public:
  /// Walks the graphs below `roots`. Throws config_error if the graph contains a batch
  /// normalization by the statistics of the batch, because then the gradient of a sample depends on
  /// the other samples. `who` is the start of the error text.
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

  /// Whether, for every operation, the position of each row is known to depend on shapes only and
  /// not on the data. Other operations, such as a choice of tokens by index, may give one sample
  /// the rows of another sample.
  bool places_rows_by_shape() const { return by_shape_; }

  bool reaches(const at::Tensor& parameter) const {
    return leaves_.count(parameter.unsafeGetTensorImpl()) != 0;
  }

  /// Returns all uses of a parameter, or an empty list if one of them is not an operation known
  /// here.
  std::vector<parameter_use> uses_of(const at::Tensor& parameter) {
    std::vector<parameter_use> uses;
    const auto leaf = leaves_.find(parameter.unsafeGetTensorImpl());
    if (leaf == leaves_.end() || !collect_uses(leaf->second, parameter, false, uses)) return {};
    return uses;
  }

  /// Computes the gradients of a scalar that arrive at the operations of all uses returned so far.
  /// They replace the gradients of the last call. An operation that the scalar does not depend on
  /// gets an undefined gradient. The gradients of the parameters themselves are not computed.
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

  /// Returns the gradient that an operation uses: the arriving gradient after the operation's
  /// pre-hooks. In LibTorch 1.13 these are the hooks of the tensor that the operation computed.
  static at::Tensor behind_hooks(Node& operation, const at::Tensor& arrived) {
    torch::autograd::variable_list inputs(operation.num_inputs());
    inputs[0] = arrived;
    for (const auto& hook : operation.pre_hooks()) inputs = (*hook)(inputs);
    return inputs[0];
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
      if (!describe_use(node, slot, parameter, transposed, use)) return false;
      auto& point = captured_[node.get()];
      if (!point.gradient) point = {node, std::make_shared<at::Tensor>()};
      use.gradient = point.gradient;
      uses.push_back(std::move(use));
    }
    return true;
  }

  bool by_shape_ = true;
  std::unordered_map<Node*, std::vector<consumer>> consumers_;
  std::unordered_map<at::TensorImpl*, torch::autograd::AccumulateGrad*> leaves_;
  std::unordered_map<Node*, capture_point> captured_;
};

}  // namespace retain::detail
