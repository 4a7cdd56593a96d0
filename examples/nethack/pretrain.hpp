// SPDX-License-Identifier: MIT
// Behavioural cloning: a network learns to press the keys of the demonstrations.
#pragma once

#include "../common/adam.hpp"
#include "policy.hpp"
#include "training_states.hpp"

#include <retain/error.hpp>

#include <torch/nn/init.h>
#include <torch/utils.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

namespace nethack {

struct pretrain_options {
  policy_config network;
  double epochs = 2;
  double seconds = 0;            ///< stop after so long, the learning rate at its end by then; 0: when the epochs are through
  int batch_size = 512;
  double learning_rate = 1e-3;   ///< falls in a line to a fiftieth
  double longest_gradient = 4;
  int rare_repeats = 5;          ///< extra times that a state is shown whose key is rare and matters: see is_rare
  int validations = 8;           ///< times that the held-out games are asked
  std::uint64_t seed = 1;
};

struct fit {
  double loss = 0;      ///< cross-entropy in nats
  double accuracy = 0;  ///< share of states whose likeliest action is the player's
};

struct pretrain_progress {
  double done = 0;  ///< 0 to 1
  std::int64_t samples = 0;
  double seconds = 0, seconds_left = 0, samples_per_second = 0;
  fit training;     ///< over the last batches
  fit held_out;
  bool validated = false;  ///< held_out is new
};

/// Prayer is one key in two thousand, and without it a clone starves; a wrong answer to a question wastes the command. Accuracy
/// does not see it, play does: such states are shown more often.
inline bool is_rare(const features& state, int action) {
  const key code = small_actions[static_cast<std::size_t>(action)].code;
  if (code == 'e' || code == 'q' || code == '>' || code == keys::pray || code == keys::kick) return true;
  return std::find(state.rows.begin(), state.rows.begin() + state.row_count, table::question) != state.rows.begin() + state.row_count;
}

inline fit measure_fit(policy network, const training_states& states) {
  const at::NoGradGuard no_grad;
  fit sum;
  constexpr std::int64_t batch = 2048;
  for (std::int64_t start = 0; start < states.size(); start += batch) {
    const auto count = std::min(batch, states.size() - start);
    const retain::categorical said{network->logits(states.observations.narrow(0, start, count))};
    const auto wanted = states.actions.narrow(0, start, count);
    sum.loss -= said.log_prob(wanted).sum().item<double>();
    sum.accuracy += said.mode().eq(wanted).sum().item<double>();
  }
  const auto n = static_cast<double>(std::max<std::int64_t>(1, states.size()));
  return {sum.loss / n, sum.accuracy / n};
}

/// Clones `training`; `report` is called about five times a second and after every validation, and stops the training by answering
/// false: the policy so far is returned.
inline policy pretrain(const training_states& training, const training_states& held_out, const pretrain_options& options,
                       const std::function<bool(const pretrain_progress&)>& report = {}) {
  if (training.size() < options.batch_size)
    throw retain::config_error("pretrain: " + std::to_string(training.size()) + " demonstrated states are less than a batch of " +
                               std::to_string(options.batch_size));
  torch::manual_seed(options.seed);
  policy network{options.network};
  network->train();
  std::vector<std::pair<std::string, at::Tensor>> parameters;
  for (auto& parameter : network->named_parameters())
    if (parameter.key().rfind("value_head", 0) != 0) parameters.emplace_back(parameter.key(), parameter.value());
  ::training::adam optimizer(parameters, {.learning_rate = options.learning_rate});

  std::vector<std::int64_t> order;
  const auto* actions = training.actions.data_ptr<std::int64_t>();
  for (std::int64_t i = 0; i < training.size(); ++i)
    order.insert(order.end(), is_rare(training.at(i), static_cast<int>(actions[i])) ? 1 + static_cast<std::size_t>(options.rare_repeats) : 1u, i);

  using clock = std::chrono::steady_clock;
  const auto began = clock::now();
  auto reported = began;
  std::mt19937_64 dice(options.seed);
  const auto total = static_cast<std::int64_t>(options.epochs * static_cast<double>(order.size()));
  pretrain_progress now;
  double next_validation = 1.0 / options.validations, losses = 0, hits = 0;
  std::int64_t batches = 0;
  bool go_on = true;
  std::size_t position = order.size();
  while (go_on && now.done < 1) {
    if (position + static_cast<std::size_t>(options.batch_size) > order.size()) {
      std::shuffle(order.begin(), order.end(), dice);
      position = 0;
    }
    const auto indices = at::from_blob(order.data() + position, {options.batch_size}, at::kLong);
    position += static_cast<std::size_t>(options.batch_size);
    optimizer.set_learning_rate(options.learning_rate * std::max(0.02, 1 - now.done));
    const auto wanted = training.actions.index_select(0, indices);
    const retain::categorical said{network->logits(training.observations.index_select(0, indices))};
    const auto loss = -said.log_prob(wanted).mean();
    optimizer.zero_grad();
    loss.backward();
    optimizer.step(options.longest_gradient);
    losses += loss.item<double>();
    hits += said.mode().eq(wanted).sum().item<double>() / options.batch_size;
    ++batches;

    now.samples += options.batch_size;
    const auto moment = clock::now();
    now.seconds = std::chrono::duration<double>(moment - began).count();
    now.done = static_cast<double>(now.samples) / static_cast<double>(std::max<std::int64_t>(1, total));
    if (options.seconds > 0) now.done = std::max(now.done, now.seconds / options.seconds);
    now.done = std::min(1.0, now.done);
    now.validated = now.done >= next_validation && held_out.size() > 0;
    if (!now.validated && now.done < 1 && moment - reported < std::chrono::milliseconds(200)) continue;
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
