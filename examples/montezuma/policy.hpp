// SPDX-License-Identifier: MIT
// The small network: two layers that are shared by the policy, the value of the task's reward and
// the value of the bonus.
#pragma once

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <retain/categorical.hpp>
#include <retain/error.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

#include "../common/saved_tensor.hpp"

namespace montezuma {

using policy = retain::actor_critic<retain::mlp, retain::categorical_head>;

/// the index of each value
inline constexpr std::int64_t task_value = 0, novelty_value = 1;

/// Retention applies to the policy only. The value heads are not constrained.
inline const std::vector<std::string> free_parameters{"value_*"};

struct policy_shape {
  static constexpr const char* kind = "montezuma policy 1";

  std::int64_t inputs = 157, actions = 5, width = 64;

  bool operator==(const policy_shape&) const = default;
  void save(retain::state& out, const std::string& prefix) const {
    out.set(prefix + "inputs", inputs);
    out.set(prefix + "actions", actions);
    out.set(prefix + "width", width);
  }
  /// Throws if the numbers do not match the saved network, before a network of this size is
  /// created.
  static policy_shape load(const retain::state& in, const std::string& prefix) {
    const policy_shape shape{in.integer(prefix + "inputs"), in.integer(prefix + "actions"),
                             in.integer(prefix + "width")};
    check_saved_shape(in, prefix + "parameters.encoder.linear0.weight",
                      {shape.width, shape.inputs});
    check_saved_shape(in, prefix + "parameters.policy_head.out.weight",
                      {shape.actions, shape.width});
    return shape;
  }
};

/// The number of values in an observation of a game.
template <class Game>
std::int64_t numbers_of() {
  std::int64_t numbers = 1;
  for (const auto size : Game::observation_shape()) numbers *= size;
  return numbers;
}

/// Initialized by LibTorch's generator. Seed the generator before.
inline policy make_policy(const policy_shape& shape) {
  return policy{
      retain::mlp(shape.inputs, retain::mlp_options{.hidden = {shape.width, shape.width}}),
      retain::categorical_head{.actions = shape.actions},
      {.values = 2, .orthogonal = true}};
}

inline policy_shape shape_of(const policy& network) {
  const auto parameters = network->named_parameters();
  const auto& first = parameters["encoder.linear0.weight"];
  return {first.size(1), parameters["policy_head.out.weight"].size(0), first.size(0)};
}

/// The interface of a policy in this program, with a shape from which a new policy can be made.
/// Besides the member functions it needs shape_of(policy), make_policy(shape), shape.save(out,
/// prefix), shape_type::load(in, prefix) and shape_type::kind.
template <class P>
concept trainable_policy = requires(P& network, const at::Tensor& observations) {
  { network->evaluate(observations).distribution } -> std::convertible_to<retain::categorical>;
  { network->evaluate(observations).values } -> std::convertible_to<at::Tensor>;
  { network->forward(observations) } -> std::convertible_to<retain::categorical>;
  { make_policy(shape_of(network)) } -> std::same_as<P>;
};
static_assert(trainable_policy<policy>);

template <trainable_policy P>
P copy_of(const P& network) {
  auto copy = make_policy(shape_of(network));
  const at::NoGradGuard no_grad;
  auto to = copy->named_parameters();
  for (const auto& from : network->named_parameters()) to[from.key()].copy_(from.value());
  return copy;
}

template <trainable_policy P>
void save_network(retain::state& out, const P& network, const std::string& prefix) {
  const auto shape = shape_of(network);
  out.set(prefix + "kind", shape.kind);
  shape.save(out, prefix);
  for (const auto& parameter : network->named_parameters())
    out.set(prefix + "parameters." + parameter.key(), parameter.value().detach());
}

/// Throws retain::state_error if the file has no policy, or a policy of another kind.
template <trainable_policy P = policy>
P load_network(const retain::state& in, const std::string& prefix) {
  using shape = decltype(shape_of(std::declval<const P&>()));
  if (!in.contains(prefix + "kind"))
    throw retain::state_error("the file has no policy of this program");
  if (const auto& kind = in.text(prefix + "kind"); kind != shape::kind)
    throw retain::state_error("the file has '" + kind + "', not '" + shape::kind +
                              "': is it for another --backend?");
  auto network = make_policy(shape::load(in, prefix));
  const at::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    const auto& saved = in.tensor(prefix + "parameters." + parameter.key());
    if (saved.sizes() != parameter.value().sizes())
      throw retain::shape_error("the saved '" + parameter.key() +
                                "' has another shape than the network");
    parameter.value().copy_(saved);
  }
  return network;
}

/// The action at a quantile in [0, 1) of softmax(logits), and its log-probability. Uses plain
/// arithmetic, because tensor operations on so few numbers would cost more than the network.
struct drawn_action {
  std::int64_t action;
  float log_probability;
};
inline drawn_action draw_action(std::span<const float> logits, double quantile) {
  const float greatest = *std::max_element(logits.begin(), logits.end());
  double total = 0;
  for (const float logit : logits) total += std::exp(static_cast<double>(logit - greatest));
  double sum = 0;
  std::size_t chosen = 0;
  for (std::size_t a = 0; a < logits.size(); ++a) {
    const double p = std::exp(static_cast<double>(logits[a] - greatest)) / total;
    // rounding may leave the last sum below the quantile: then take the last possible action
    if (p > 0) chosen = a;
    sum += p;
    if (quantile < sum) break;
  }
  return {static_cast<std::int64_t>(chosen),
          static_cast<float>(static_cast<double>(logits[chosen] - greatest) - std::log(total))};
}

}  // namespace montezuma
