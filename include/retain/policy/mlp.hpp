// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/activation.hpp>
#include <retain/kernels/dense_layers.hpp>
#include <retain/kernels/joined.hpp>

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/modules/normalization.h>
#include <torch/nn/pimpl.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace retain {

namespace detail {

/// Returns x [..., width] as rows [n, width]. Returns a two-dimensional x unchanged, because a view
/// would add a node to the backward pass.
inline at::Tensor as_rows(const at::Tensor& x, std::int64_t width) {
  return x.dim() == 2 ? x : x.reshape({-1, width});
}

/// Returns rows [n, width] with the leading dimensions of `x` [..., any].
inline at::Tensor rows_as(const at::Tensor& rows, const at::Tensor& x) {
  if (x.dim() == 2) return rows;
  auto sizes = x.sizes().vec();
  sizes.back() = rows.size(1);
  return rows.view(sizes);
}

}  // namespace detail

struct mlp_options {
  /// the widths of the layers; the last one is the width of the output
  std::vector<std::int64_t> hidden = {256, 256};
  activation_kind activation = activation_kind::relu;
  bool layer_norm = false;  ///< between every linear layer and its activation
  /// the first layer is linear, layer norm, tanh, as in Continual World (Wołczyk et al. 2021)
  bool normalized_input = false;
};

/// Linear layers, each followed by its activation: [..., inputs] -> [..., hidden.back()].
/// Parameters: linear0.*, norm0.*, linear1.*, ...
class mlp_net : public torch::nn::Cloneable<mlp_net> {
 public:
  /// Throws config_error if a width is below 1.
  explicit mlp_net(std::int64_t inputs, mlp_options options = {})
      : inputs_(inputs), options_(std::move(options)) {
    bool valid = inputs_ >= 1;
    for (const auto width : options_.hidden) valid = valid && width >= 1;
    if (!valid)
      throw config_error(detail::concat("mlp: widths must be at least 1, got ", inputs_, " and ",
                                        detail::shape_text(options_.hidden)));
    reset();
  }

  void reset() override {
    layers_.clear();
    std::int64_t before = inputs_;
    for (std::size_t i = 0; i < options_.hidden.size(); ++i) {
      const auto width = options_.hidden[i];
      layer next;
      next.linear = register_module(detail::concat("linear", i), torch::nn::Linear(before, width));
      if (options_.layer_norm || (options_.normalized_input && i == 0))
        next.norm = register_module(detail::concat("norm", i),
                                    torch::nn::LayerNorm(torch::nn::LayerNormOptions({width})));
      layers_.push_back(std::move(next));
      before = width;
    }
  }

  std::int64_t output_size() const {
    return options_.hidden.empty() ? inputs_ : options_.hidden.back();
  }

  /// Returns the output [..., output_size()] for x [..., inputs]. Throws shape_error if the number
  /// of inputs differs.
  at::Tensor forward(const at::Tensor& x) {
    if (x.dim() < 1 || x.size(-1) != inputs_)
      throw shape_error(detail::concat("mlp: inputs need the shape [..., ", inputs_, "], got ",
                                       detail::shape_text(x.sizes())));
    // Flattened to rows, because a linear layer is not a single product for more dimensions, and
    // the Fisher's graph walk supports products only.
    auto hidden = detail::as_rows(x, inputs_);
    if (!normalized() && !layers_.empty() && detail::may_join(hidden)) {
      std::vector<at::Tensor> weights;
      for (const auto& each : layers_) {
        weights.push_back(each.linear->weight);
        weights.push_back(each.linear->bias);
      }
      if (detail::may_join_layers(weights))
        return detail::rows_as(detail::dense_layers(hidden, weights, options_.activation, true), x);
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      hidden = layers_[i].linear(hidden);
      if (!layers_[i].norm.is_empty()) hidden = layers_[i].norm(hidden);
      hidden = activate(hidden, options_.normalized_input && i == 0 ? activation_kind::tanh
                                                                    : options_.activation);
    }
    return detail::rows_as(hidden, x);
  }

 private:
  struct layer {
    torch::nn::Linear linear{nullptr};
    torch::nn::LayerNorm norm{nullptr};
  };

  bool normalized() const { return options_.layer_norm || options_.normalized_input; }

  std::int64_t inputs_;
  mlp_options options_;
  std::vector<layer> layers_;
};

/// A shared handle to an mlp_net, like LibTorch's module holders: a copy of the handle refers to
/// the same network.
class mlp : public torch::nn::ModuleHolder<mlp_net> {
 public:
  using torch::nn::ModuleHolder<mlp_net>::ModuleHolder;
};

}  // namespace retain
