// SPDX-License-Identifier: MIT
#pragma once

#include <retain/base/error.hpp>
#include <retain/base/text.hpp>
#include <retain/kernels/activation.hpp>
#include <retain/kernels/dense_layers.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/kernels/small_heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/policy/orthogonal.hpp>
#include <retain/policy/select_head.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/pimpl.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace retain {

struct twin_critic_options {
  std::vector<std::int64_t> hidden = {256, 256};
  activation_kind activation = activation_kind::relu;
  bool normalized_input = false;  ///< the first layer is linear, layer norm, tanh: see mlp_options
  std::int64_t critics = 2;
  /// S above 1: the last S numbers of an observation are a one-hot vector that selects the heads;
  /// no other layer receives them
  std::int64_t stages = 1;
};

namespace detail {

/// K linear layers as one batched product: [K, N, inputs] -> [K, N, outputs]. Parameters: weight
/// [K, inputs, outputs], bias [K, 1, outputs].
class batched_linear : public torch::nn::Cloneable<batched_linear>, public weights_of_several {
 public:
  batched_linear(std::int64_t count, std::int64_t inputs, std::int64_t outputs)
      : sizes_{count, inputs, outputs} {
    reset();
  }
  void reset() override {
    // the initial values of torch::nn::Linear
    const double bound = 1 / std::sqrt(static_cast<double>(sizes_[1]));
    weight = register_parameter("weight", at::empty(sizes_).uniform_(-bound, bound));
    bias = register_parameter("bias", at::empty({sizes_[0], 1, sizes_[2]}).uniform_(-bound, bound));
  }
  at::Tensor forward(const at::Tensor& x) { return at::baddbmm(bias, x, weight); }
  weights_kind kind() const override { return weights_kind::one_matrix_each; }

  at::Tensor weight, bias;

 private:
  std::vector<std::int64_t> sizes_;
};

/// Returns rows [N, seen + actions] from observations [N, at least seen] and actions [N, actions].
inline at::Tensor critic_rows(const at::Tensor& observations, std::int64_t seen,
                              const at::Tensor& actions) {
  if (auto few = join_few(observations, seen, actions); few.defined()) return few;
  return at::cat({observations.narrow(1, 0, seen), actions}, 1);
}

/// K layer norms with scale and shift: [K, N, width] -> [K, N, width]. Parameters: weight, bias
/// [K, 1, width].
class batched_norm : public torch::nn::Cloneable<batched_norm>, public weights_of_several {
 public:
  batched_norm(std::int64_t count, std::int64_t width) : sizes_{count, 1, width} { reset(); }
  void reset() override {
    weight = register_parameter("weight", at::ones(sizes_));
    bias = register_parameter("bias", at::zeros(sizes_));
  }
  at::Tensor forward(const at::Tensor& x) {
    return at::addcmul(bias, at::layer_norm(x, {sizes_[2]}), weight);
  }
  weights_kind kind() const override { return weights_kind::scales; }

  at::Tensor weight, bias;

 private:
  std::vector<std::int64_t> sizes_;
};

}  // namespace detail

/// K independent critics Q_k(s, a) for soft actor-critic, which uses the lowest value. The critics
/// are evaluated together, with one batched matrix product per layer, or with loops for small
/// layers on a CPU with AVX2. This saves time with small layers or on a GPU, where calls cost more
/// than arithmetic. Parameters, with the critic as first dimension: linear0.*, norm0.*, linear1.*,
/// ..., out.*
class twin_critic_net : public torch::nn::Cloneable<twin_critic_net> {
 public:
  /// `observations` is the width of an observation without the one-hot vector of stages. Throws
  /// config_error if a size is below 1.
  twin_critic_net(std::int64_t observations, std::int64_t actions, twin_critic_options options = {})
      : observations_(observations), actions_(actions), options_(std::move(options)) {
    bool valid =
        observations_ >= 1 && actions_ >= 1 && options_.critics >= 1 && options_.stages >= 1;
    for (const auto width : options_.hidden) valid = valid && width >= 1;
    if (!valid)
      throw config_error(detail::concat(
          "twin_critic: every size must be at least 1, got ", observations_, " observations, ",
          actions_, " actions, ", options_.critics, " critics, ", options_.stages,
          " stages and hidden layers of ", detail::shape_text(options_.hidden)));
    reset();
  }

  void reset() override {
    layers_.clear();
    std::int64_t before = observations_ + actions_;
    for (const auto width : options_.hidden) {
      const auto i = layers_.size();
      layers_.push_back(register_module(
          detail::concat("linear", i),
          std::make_shared<detail::batched_linear>(options_.critics, before, width)));
      if (options_.normalized_input && i == 0)
        norm_ = register_module("norm0",
                                std::make_shared<detail::batched_norm>(options_.critics, width));
      before = width;
    }
    out_ = register_module(
        "out", std::make_shared<detail::batched_linear>(options_.critics, before, options_.stages));
  }

  /// Returns the values [K, ...] of observations [..., observations + one-hot] and actions
  /// [..., actions]. Throws shape_error if the shapes do not fit.
  at::Tensor forward(const at::Tensor& observations, const at::Tensor& actions) {
    const auto extra = options_.stages > 1 ? options_.stages : 0;
    if (observations.dim() < 1 || observations.dim() != actions.dim() ||
        observations.size(-1) != observations_ + extra || actions.size(-1) != actions_ ||
        observations.sizes().slice(0, leading(observations)) !=
            actions.sizes().slice(0, leading(actions)))
      throw shape_error(detail::concat("twin_critic: observations and actions must be [..., ",
                                       observations_ + extra, "] and [..., ", actions_, "], got ",
                                       detail::shape_text(observations.sizes()), " and ",
                                       detail::shape_text(actions.sizes())));
    const auto seen = detail::as_rows(observations, observations_ + extra);
    const auto said =
        evaluate(detail::critic_rows(seen, observations_, detail::as_rows(actions, actions_)));
    auto q = extra > 0 ? detail::pick_head(said, options_.stages, stage_of(seen, extra), true)
                       : said.squeeze(-1);
    if (observations.dim() == 2) return q;
    auto sizes = observations.sizes().slice(0, leading(observations)).vec();
    sizes.insert(sizes.begin(), options_.critics);
    return q.view(sizes);
  }

 private:
  /// Returns outputs [K, N, stages] for rows [N, inputs].
  at::Tensor evaluate(const at::Tensor& rows) {
    if (!options_.normalized_input && detail::may_join(rows)) {
      std::vector<at::Tensor> weights;
      for (const auto& layer : layers_) weights.insert(weights.end(), {layer->weight, layer->bias});
      weights.insert(weights.end(), {out_->weight, out_->bias});
      if (detail::may_join_layers(weights))
        return detail::dense_layers(rows, weights, options_.activation, false);
    }
    auto x = rows.unsqueeze(0).expand({options_.critics, rows.size(0), rows.size(1)});
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      x = layers_[i]->forward(x);
      const bool first = options_.normalized_input && i == 0;
      x = activate(first ? norm_->forward(x) : x,
                   first ? activation_kind::tanh : options_.activation);
    }
    return out_->forward(x);
  }

  static std::size_t leading(const at::Tensor& tensor) {
    return static_cast<std::size_t>(tensor.dim() - 1);
  }

  std::int64_t observations_, actions_;
  twin_critic_options options_;
  std::vector<std::shared_ptr<detail::batched_linear>> layers_;
  std::shared_ptr<detail::batched_norm> norm_;
  std::shared_ptr<detail::batched_linear> out_;
};

/// A shared handle to a twin_critic_net, like LibTorch's module holders: a copy of the handle is
/// the same network. clone() creates another network, for example a target.
class twin_critic : public torch::nn::ModuleHolder<twin_critic_net> {
 public:
  using torch::nn::ModuleHolder<twin_critic_net>::ModuleHolder;
};

}  // namespace retain
