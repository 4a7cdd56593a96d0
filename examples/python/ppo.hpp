// SPDX-License-Identifier: MIT
// A small PPO on several environments of Gymnasium with discrete actions.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <random>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <retain/categorical.hpp>
#include <retain/loss/gae.hpp>
#include <retain/loss/ppo.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/mlp.hpp>
#include <retain/retention.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "../common/adam.hpp"
#include "../common/interrupt.hpp"
#include "gymnasium.hpp"

namespace on_gymnasium {

using policy = retain::actor_critic<retain::mlp, retain::categorical_head>;

/// Initialized by LibTorch's generator. Seed the generator before.
inline policy make_policy(const python::environment& where) {
  return policy{retain::mlp(static_cast<std::int64_t>(where.observation_size()),
                            retain::mlp_options{.hidden = {64, 64}}),
                retain::categorical_head{.actions = where.actions()},
                {.values = 1, .orthogonal = true}};
}
inline policy copy_of(const policy& from, const python::environment& where) {
  auto copy = make_policy(where);
  const at::NoGradGuard no_grad;
  auto to = copy->named_parameters();
  for (const auto& each : from->named_parameters()) to[each.key()].copy_(each.value());
  return copy;
}

/// Makes an environment, with what was changed in it.
using maker = std::function<python::environment()>;

inline at::Tensor seen_by(const python::environment& where) {
  const auto now = where.observation();
  return at::tensor(at::ArrayRef<float>(now.data(), now.size())).unsqueeze(0);
}

inline int drawn(const at::Tensor& probabilities, std::mt19937_64& dice) {
  const auto* each = probabilities.data_ptr<float>();
  std::discrete_distribution<int> any(each, each + probabilities.numel());
  return any(dice);
}

/// The returns of `episodes` episodes, which `seed` alone decides. `seen`: takes the observations.
inline std::vector<double> play(policy& network, const maker& make, int episodes,
                                std::uint32_t seed, std::vector<at::Tensor>* seen = nullptr) {
  const at::NoGradGuard no_grad;
  auto where = make();
  std::mt19937_64 dice(seed);
  std::vector<double> returns;
  for (int episode = 0; episode < episodes; ++episode) {
    where.reset(seed + static_cast<std::uint32_t>(episode));
    returns.push_back(0);
    for (bool ended = false; !ended;) {
      if (interrupt::requested()) throw std::runtime_error("stopped");
      auto now = seen_by(where);
      const auto step =
          where.step(drawn(network->forward(now).log_probs().exp().contiguous(), dice));
      if (seen != nullptr) seen->push_back(std::move(now));
      returns.back() += step.reward;
      ended = step.ended();
    }
  }
  return returns;
}

struct steps_seen {
  at::Tensor observations;
};
using terms = retain::retention<steps_seen>;

struct settings {
  std::int64_t steps = 50'000, environments = 8, horizon = 128, minibatch = 256;
  int epochs = 6;
  double learning_rate = 1e-3, clip = 0.2, entropy = 0.01, value_weight = 0.5, gamma = 0.99;
  std::uint32_t seed = 1;
};

/// Trains `network` itself. `report` is called after every rollout with the steps so far.
inline void train(policy& network, const maker& make, const settings& how, terms& keep,
                  const std::function<void(std::int64_t)>& report) {
  std::vector<python::environment> all;
  for (std::int64_t i = 0; i < how.environments; ++i) {
    all.push_back(make());
    all.back().reset(how.seed * 1000 + static_cast<std::uint32_t>(i));
  }
  std::vector<std::pair<std::string, at::Tensor>> learning;
  for (auto& each : network->named_parameters()) learning.emplace_back(each.key(), each.value());
  training::adam optimizer(std::move(learning), {.learning_rate = how.learning_rate});
  std::mt19937_64 dice(how.seed);
  const auto now_of = [](const std::vector<python::environment>& many) {
    std::vector<at::Tensor> rows;
    for (const auto& each : many) rows.push_back(seen_by(each));
    return at::cat(rows);
  };
  const auto shape = std::vector<std::int64_t>{how.horizon, how.environments};
  for (std::int64_t done = 0; done < how.steps; done += how.horizon * how.environments) {
    if (interrupt::requested()) throw std::runtime_error("stopped");
    auto rewards = at::zeros(shape), terminated = at::zeros(shape), truncated = at::zeros(shape),
         cut_values = at::zeros(shape), values = at::zeros(shape), log_probs = at::zeros(shape);
    auto actions = at::zeros(shape, at::kLong);
    std::vector<at::Tensor> observations;
    at::Tensor last;
    {
      const at::NoGradGuard no_grad;
      for (std::int64_t t = 0; t < how.horizon; ++t) {
        observations.push_back(now_of(all));
        const auto said = network->evaluate(observations.back());
        values[t].copy_(said.values.squeeze(-1));
        const auto chances = said.distribution.log_probs().exp().contiguous();
        for (std::int64_t i = 0; i < how.environments; ++i) {
          auto& one = all[static_cast<std::size_t>(i)];
          const int action = drawn(chances[i], dice);
          const auto step = one.step(action);
          actions[t][i] = action;
          rewards[t][i] = step.reward;
          terminated[t][i] = step.terminated ? 1 : 0;
          truncated[t][i] = step.truncated && !step.terminated ? 1 : 0;
          if (step.truncated && !step.terminated)
            cut_values[t][i] = network->evaluate(seen_by(one)).values.item<double>();
          if (step.ended()) one.reset();
        }
        log_probs[t].copy_(said.distribution.log_prob(actions[t]));
      }
      last = network->evaluate(now_of(all)).values.squeeze(-1);
    }
    const auto estimates = retain::gae({.rewards = rewards,
                                        .values = values,
                                        .last_value = last,
                                        .terminated = terminated,
                                        .truncated = truncated,
                                        .truncated_values = cut_values},
                                       {.gamma = how.gamma});
    const auto rows = at::cat(observations), chosen = actions.flatten(),
               before = log_probs.flatten(), targets = estimates.returns.flatten(),
               advantages = retain::normalized(estimates.advantages.flatten());
    std::vector<std::int64_t> order(static_cast<std::size_t>(rows.size(0)));
    for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
    for (int epoch = 0; epoch < how.epochs; ++epoch) {
      std::shuffle(order.begin(), order.end(), dice);
      for (const auto& some : at::tensor(order).split(how.minibatch)) {
        const steps_seen batch{rows.index_select(0, some)};
        const auto said = network->evaluate(batch.observations);
        const auto surrogate = retain::ppo_policy_loss(
            said.distribution.log_prob(chosen.index_select(0, some)), before.index_select(0, some),
            advantages.index_select(0, some), {.lowest = 1 - how.clip, .highest = 1 + how.clip});
        const auto value_loss =
            retain::ppo_value_loss(said.values.squeeze(-1), targets.index_select(0, some));
        optimizer.zero_grad();
        (surrogate.loss + how.value_weight * value_loss -
         how.entropy * said.distribution.entropy().mean())
            .backward();
        if (const auto distance = keep.distillation(
                [&](const at::Tensor& states) { return network->forward(states); }, batch);
            distance.defined() && distance.requires_grad())
          distance.backward();
        keep.add_gradient(*network);
        optimizer.step();
      }
    }
    report(done + how.horizon * how.environments);
  }
}

}  // namespace on_gymnasium
