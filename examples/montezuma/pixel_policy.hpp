// SPDX-License-Identifier: MIT
// The network for pictures, as in Burda et al. 2018 (arXiv 1810.12894).
#pragma once

#include <cmath>
#include <cstdint>
#include <string>

#include <retain/categorical.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/nature_cnn.hpp>
#include <retain/policy/orthogonal.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include "policy.hpp"

namespace montezuma {

struct pixel_shape {
  static constexpr const char* kind = "montezuma pixel policy 1";

  std::int64_t actions = 18;

  bool operator==(const pixel_shape&) const = default;
  void save(retain::state& out, const std::string& prefix) const {
    out.set(prefix + "actions", actions);
  }
  static pixel_shape load(const retain::state& in, const std::string& prefix) {
    const pixel_shape shape{in.integer(prefix + "actions")};
    check_saved_shape(in, prefix + "parameters.policy_head.weight", {shape.actions, any_size});
    return shape;
  }
};

/// The input is four frames of 84 × 84 bytes. Three convolutions (32 of 8 × 8 with stride 4, 64 of
/// 4 × 4 with stride 2, 64 of 4 × 4) and two layers, 256 and 448, all with ReLU, give x. The logits
/// are a linear function of x + relu(A x), and the two values of x + relu(V x). Weights are
/// orthogonal with gain √2, .1 in A and V, and .01 in the output layers. Biases are 0.
class pixel_policy_net : public torch::nn::Cloneable<pixel_policy_net> {
 public:
  static constexpr std::int64_t width = 448;
  using answer = retain::actor_critic_answer<retain::categorical>;

  explicit pixel_policy_net(const pixel_shape& shape) : shape_(shape) {
    reset();
    retain::orthogonal(encoder_, std::sqrt(2.0));
    retain::orthogonal(hidden_, std::sqrt(2.0));
    retain::orthogonal(policy_residual_, 0.1);
    retain::orthogonal(value_residual_, 0.1);
    retain::orthogonal(policy_head_, 0.01);
    retain::orthogonal(value_head_, 0.01);
  }

  void reset() override {
    encoder_ = register_module("encoder", retain::nature_cnn(retain::nature_cnn_options{
                                              .outputs = 256, .kernels = {8, 4, 4}}));
    hidden_ = register_module("hidden", torch::nn::Linear(256, width));
    policy_residual_ = register_module("policy_residual", torch::nn::Linear(width, width));
    value_residual_ = register_module("value_residual", torch::nn::Linear(width, width));
    policy_head_ = register_module("policy_head", torch::nn::Linear(width, shape_.actions));
    value_head_ = register_module("value_head", torch::nn::Linear(width, 2));
  }

  answer evaluate(const at::Tensor& frames) {
    const auto x = features(frames);
    return {logits(x), value_head_(x + at::relu(value_residual_(x))), {}};
  }
  retain::categorical forward(const at::Tensor& frames) { return logits(features(frames)); }

  const pixel_shape& shape() const { return shape_; }

 private:
  at::Tensor features(const at::Tensor& frames) { return at::relu(hidden_(encoder_(frames))); }
  retain::categorical logits(const at::Tensor& x) {
    return retain::categorical{policy_head_(x + at::relu(policy_residual_(x)))};
  }

  pixel_shape shape_;
  retain::nature_cnn encoder_{nullptr};
  torch::nn::Linear hidden_{nullptr}, policy_residual_{nullptr}, value_residual_{nullptr},
      policy_head_{nullptr}, value_head_{nullptr};
};

/// A shared handle, like LibTorch's module holders: copies refer to the same network.
class pixel_policy : public torch::nn::ModuleHolder<pixel_policy_net> {
 public:
  using torch::nn::ModuleHolder<pixel_policy_net>::ModuleHolder;
};

inline pixel_shape shape_of(const pixel_policy& network) { return network->shape(); }
/// Initialized by LibTorch's generator. Seed the generator before.
inline pixel_policy make_policy(const pixel_shape& shape) { return pixel_policy(shape); }
static_assert(trainable_policy<pixel_policy>);

}  // namespace montezuma
