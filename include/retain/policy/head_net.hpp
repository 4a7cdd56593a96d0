// SPDX-License-Identifier: MIT
// Parts of an actor_critic other than its encoder: the layers of a head, and copies of modules.
#pragma once

#include <retain/core/concepts.hpp>
#include <retain/kernels/dense_layers.hpp>
#include <retain/kernels/joined.hpp>
#include <retain/policy/mlp.hpp>

#include <ATen/ATen.h>
#include <torch/nn/cloneable.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <concepts>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace retain {

/// The meaning of a policy's last layer: outputs() is its width, and head(outputs) converts rows of
/// outputs [..., outputs()] to distributions.
template <class H>
concept policy_head =
    std::copy_constructible<H> && requires(const H& head, const at::Tensor& outputs) {
      { head.outputs() } -> std::convertible_to<std::int64_t>;
      { head(outputs) } -> action_distribution;
    };

/// A module holder or std::shared_ptr to a module with forward(observations) -> features [..., F].
/// The leading dimensions are those of the observations. The types of forward() are checked when
/// the policy is called. F is the member output_size() if the encoder has one, and
/// actor_critic_options::features otherwise.
template <class E>
concept observation_encoder = requires(const E& encoder) {
  encoder->clone();
  encoder->named_parameters();
};

namespace detail {

/// Hidden layers followed by a linear layer. Parameters: hidden.linear0.*, ..., out.*
class head_net : public torch::nn::Cloneable<head_net> {
 public:
  head_net(std::int64_t inputs, std::vector<std::int64_t> hidden, activation_kind activation,
           std::int64_t outputs)
      : inputs_(inputs),
        outputs_(outputs),
        hidden_sizes_(std::move(hidden)),
        activation_(activation) {
    reset();
  }
  void reset() override {
    const mlp made(inputs_, mlp_options{.hidden = hidden_sizes_, .activation = activation_});
    hidden_ = hidden_sizes_.empty() ? mlp(nullptr) : mlp(register_module("hidden", made));
    out = register_module("out", torch::nn::Linear(made->output_size(), outputs_));
  }
  at::Tensor forward(const at::Tensor& features) {
    const auto rows = as_rows(features, inputs_),
               before = hidden_.is_empty() ? rows : hidden_(rows);
    const bool joined = may_join_layers({before, out->weight, out->bias});
    return rows_as(
        joined ? dense_layers(before, {out->weight, out->bias}, activation_, false) : out(before),
        features);
  }

  torch::nn::Linear out{nullptr};

 private:
  std::int64_t inputs_, outputs_;
  std::vector<std::int64_t> hidden_sizes_;
  activation_kind activation_;
  mlp hidden_{nullptr};
};

template <class M>
struct module_type {
  using type = typename M::ContainedType;
};
template <class T>
struct module_type<std::shared_ptr<T>> {
  using type = T;
};
/// Returns another network with the same weights.
template <class M>
M copy_of(const M& model) {
  return M(std::dynamic_pointer_cast<typename module_type<M>::type>(model->clone()));
}

}  // namespace detail
}  // namespace retain
