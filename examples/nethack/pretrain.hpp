// SPDX-License-Identifier: MIT
// Behavioral cloning: trains a network to press the keys of the demonstrations.
#pragma once

#include "../common/adam.hpp"
#include "policy.hpp"
#include "pretrain_order.hpp"
#include "training_states.hpp"

#include <retain/error.hpp>

#include <torch/nn/init.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace nethack {

struct pretrain_options {
  policy_config network;
  double epochs = 2;
  /// time limit, with the learning rate at its end by then; 0: no limit
  double seconds = 0;
  int batch_size = 512;  ///< states per optimizer step
  /// for a recurrent policy: a step learns from this many steps of batch_size / stretch games
  int stretch = 16;
  double learning_rate = 1e-3;  ///< falls linearly to a fiftieth
  double longest_gradient = 4;
  /// extra repetitions of a state with a rare, important key: see is_rare
  int rare_repeats = 5;
  int validations = 8;  ///< number of evaluations on the held-out games
  std::uint64_t seed = 1;
};

struct fit {
  double loss = 0;      ///< cross-entropy in nats
  double accuracy = 0;  ///< share of states with the player's key as the most likely action
};

struct pretrain_progress {
  double done = 0;  ///< 0 to 1
  std::int64_t samples = 0;
  double seconds = 0, seconds_left = 0, samples_per_second = 0;
  fit training;  ///< over the last batches
  fit held_out;
  bool validated = false;  ///< whether held_out is new
};

/// The logits of `network` on every state, with games followed from their starts: [n, actions].
inline at::Tensor logits_of(policy network, const training_states& states) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> logits;
  if (!network->recurrent()) {
    for (const auto& batch : at::split(states.observations, 2048))
      logits.push_back(network->logits(batch));
    return at::cat(logits);
  }
  constexpr std::int64_t lanes = 32, steps = 64;
  auto all = at::empty({states.size(), network->config().actions});
  game_lanes walk(games_of(states), lanes);
  auto state = network->initial_state(lanes);
  while (!walk.exhausted()) {
    const auto indices = walk.next(steps);
    auto [said, next] = network->follow(gather(states.observations, indices.clamp_min(0)), state);
    const auto there = indices.flatten().ge(0).nonzero().squeeze(-1);
    all.index_copy_(0, indices.flatten().index_select(0, there),
                    said.flatten(0, 1).index_select(0, there));
    state = std::move(next);
  }
  return all;
}

inline fit measure_fit(policy network, const training_states& states) {
  if (states.size() == 0) return {};
  const at::NoGradGuard no_grad;
  const retain::categorical said{logits_of(network, states)};
  const auto n = static_cast<double>(states.size());
  return {-said.log_prob(states.actions).sum(at::kDouble).item<double>() / n,
          said.mode().eq(states.actions).sum().item<double>() / n};
}

/// Clones `training`. Calls `report` about five times per second and after every validation. If
/// `report` returns false, the training stops and the current policy is returned.
inline policy pretrain(const training_states& training, const training_states& held_out,
                       const pretrain_options& options,
                       const std::function<bool(const pretrain_progress&)>& report = {}) {
  const bool recurrent = options.network.core != core_kind::none;
  if (recurrent && (options.stretch < 1 || options.batch_size % options.stretch != 0))
    throw retain::config_error("pretrain: a batch of " + std::to_string(options.batch_size) +
                               " states does not divide into stretches of " +
                               std::to_string(options.stretch));
  if (training.size() < options.batch_size)
    throw retain::config_error("pretrain: " + std::to_string(training.size()) +
                               " demonstrated states are fewer than a batch of " +
                               std::to_string(options.batch_size));
  torch::manual_seed(options.seed);
  policy network{options.network};
  network->train();
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  for (auto& parameter : network->named_parameters())
    if (parameter.key().rfind("value_head", 0) != 0)
      parameters.emplace_back(parameter.key(), parameter.value());
  ::training::adam optimizer(parameters, {.learning_rate = options.learning_rate});

  const auto repeats = repeats_of(training, options.rare_repeats);
  std::unique_ptr<learning_order> order;
  if (recurrent)
    order = std::make_unique<games_side_by_side>(
        training, repeats, options.stretch, options.batch_size / options.stretch, options.seed);
  else
    order = std::make_unique<shuffled_states>(repeats, options.batch_size, options.seed);

  using clock = std::chrono::steady_clock;
  const auto began = clock::now();
  auto reported = began;
  const auto total = static_cast<std::int64_t>(options.epochs * static_cast<double>(order->size()));
  pretrain_progress now;
  double next_validation = 1.0 / options.validations, losses = 0, hits = 0;
  std::int64_t batches = 0;
  bool go_on = true;
  at::Tensor state;
  while (go_on && now.done < 1) {
    const auto indices = order->next();
    optimizer.set_learning_rate(options.learning_rate * std::max(0.02, 1 - now.done));
    const auto wanted = gather(training.actions, indices);
    const auto [logits, after] = network->follow(gather(training.observations, indices), state);
    if (recurrent) state = after.detach();  // the next batch continues in the same games
    const retain::categorical said{logits};
    const auto loss = order->mean(-said.log_prob(wanted), indices);
    optimizer.zero_grad();
    loss.backward();
    optimizer.step(options.longest_gradient);
    losses += loss.item<double>();
    hits += said.mode().eq(wanted).sum().item<double>() / options.batch_size;
    ++batches;

    now.samples += options.batch_size;
    const auto moment = clock::now();
    now.seconds = std::chrono::duration<double>(moment - began).count();
    now.done =
        static_cast<double>(now.samples) / static_cast<double>(std::max<std::int64_t>(1, total));
    if (options.seconds > 0) now.done = std::max(now.done, now.seconds / options.seconds);
    now.done = std::min(1.0, now.done);
    now.validated = now.done >= next_validation && held_out.size() > 0;
    if (!now.validated && now.done < 1 && moment - reported < std::chrono::milliseconds(200))
      continue;
    reported = moment;
    now.training = {losses / static_cast<double>(batches), hits / static_cast<double>(batches)};
    losses = hits = 0;
    batches = 0;
    now.samples_per_second = static_cast<double>(now.samples) / now.seconds;
    now.seconds_left = now.seconds * (1 - now.done) / now.done;
    if (now.validated) {
      next_validation += 1.0 / options.validations;
      network->eval();
      now.held_out = measure_fit(network, held_out);
      network->train();
    }
    if (report) go_on = report(now);
  }
  network->eval();
  return network;
}

}  // namespace nethack
