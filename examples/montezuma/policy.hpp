// SPDX-License-Identifier: MIT
// The small network: two layers shared by the policy, the value of the task's reward and the value of the bonus.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include <retain/error.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/state.hpp>

#include <ATen/ATen.h>

namespace montezuma {

using policy = retain::actor_critic<retain::mlp, retain::categorical_head>;

inline constexpr std::int64_t task_value = 0, novelty_value = 1;  ///< which of a policy's values is which

/// Retention is about what the policy does; values learn what they want.
inline const std::vector<std::string> free_parameters{"value_head.*"};

struct policy_shape {
  std::int64_t inputs = 157, actions = 5, width = 64;
  bool operator==(const policy_shape&) const = default;
};

/// How many numbers the observations of a game have.
template <class Game>
std::int64_t numbers_of() {
  std::int64_t numbers = 1;
  for (const auto size : Game::observation_shape()) numbers *= size;
  return numbers;
}

/// Initialised by LibTorch's generator: seed it before.
inline policy make_policy(const policy_shape& shape) {
  return policy{retain::mlp(shape.inputs, retain::mlp_options{.hidden = {shape.width, shape.width}}), retain::categorical_head{.actions = shape.actions},
                {.values = 2, .orthogonal = true}};
}

inline policy_shape shape_of(const policy& network) {
  const auto parameters = network->named_parameters();
  const auto& first = parameters["encoder.linear0.weight"];
  return {first.size(1), parameters["policy_head.out.weight"].size(0), first.size(0)};
}

inline policy copy_of(const policy& network) {
  auto copy = make_policy(shape_of(network));
  const at::NoGradGuard no_grad;
  auto to = copy->named_parameters();
  for (const auto& from : network->named_parameters()) to[from.key()].copy_(from.value());
  return copy;
}

inline void save_network(retain::state& out, const policy& network, const std::string& prefix) {
  const auto shape = shape_of(network);
  out.set(prefix + "kind", "montezuma policy 1");
  out.set(prefix + "inputs", shape.inputs);
  out.set(prefix + "actions", shape.actions);
  out.set(prefix + "width", shape.width);
  for (const auto& parameter : network->named_parameters()) out.set(prefix + "parameters." + parameter.key(), parameter.value().detach());
}

inline policy load_network(const retain::state& in, const std::string& prefix) {
  if (!in.contains(prefix + "kind") || in.text(prefix + "kind") != "montezuma policy 1")
    throw retain::state_error("the file holds no policy of this program");
  auto network = make_policy({in.integer(prefix + "inputs"), in.integer(prefix + "actions"), in.integer(prefix + "width")});
  const at::NoGradGuard no_grad;
  for (auto& parameter : network->named_parameters()) {
    const auto& saved = in.tensor(prefix + "parameters." + parameter.key());
    if (saved.sizes() != parameter.value().sizes()) throw retain::shape_error("the saved '" + parameter.key() + "' has another shape than its network");
    parameter.value().copy_(saved);
  }
  return network;
}

/// The action at a quantile in [0, 1) of softmax(logits), and its log-probability. Plain arithmetic on a handful of numbers: tensor
/// operations would cost more than the network does.
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
    if (p > 0) chosen = a;  // rounding may leave the last sum below the quantile: then it is the last action that can be
    sum += p;
    if (quantile < sum) break;
  }
  return {static_cast<std::int64_t>(chosen), static_cast<float>(static_cast<double>(logits[chosen] - greatest) - std::log(total))};
}

}  // namespace montezuma
