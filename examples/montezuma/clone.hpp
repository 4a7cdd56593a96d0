// SPDX-License-Identifier: MIT
// Behavioral cloning of a policy from few of its games, in which some recorded actions are wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <retain/error.hpp>
#include <retain/loss/negative_log_likelihood.hpp>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "../common/adam.hpp"
#include "games.hpp"
#include "policy.hpp"

namespace montezuma {

/// The observations of an expert, [n, observation], and the recorded actions, [n].
struct demonstrations {
  at::Tensor observations, actions;
};

/// Plays `episodes` games of `expert` from `room`, one after the other. The expert's own actions
/// are played. With chance `noise` the recorded action is replaced by a random action.
template <trainable_policy P, class Make>
demonstrations demonstrate(P& expert, Make make, int room, int episodes, double noise,
                           std::uint64_t seed) {
  const at::NoGradGuard no_grad;
  auto game = make(seed);
  using game_type = decltype(game);
  std::mt19937_64 dice(seed), mistakes(seed + 1);
  std::uniform_real_distribution<double> quantile;
  std::uniform_int_distribution<std::int64_t> any(0, game_type::actions - 1);
  auto sizes = game_type::observation_shape();
  sizes.insert(sizes.begin(), 1);
  std::vector<at::Tensor> seen;
  std::vector<std::int64_t> done;
  for (int played = 0; played < episodes; ++played) {
    game.reset(room);
    for (bool ended = false; !ended;) {
      auto now = at::empty(sizes, observation_type<game_type>);
      game.observe(now.template data_ptr<typename game_type::value_type>());
      const auto logits = expert->forward(now).logits.contiguous();
      const auto chosen =
          draw_action({logits.template data_ptr<float>(), static_cast<std::size_t>(logits.size(1))},
                      quantile(dice));
      seen.push_back(std::move(now));
      done.push_back(quantile(mistakes) < noise ? any(mistakes) : chosen.action);
      ended = game.step(static_cast<int>(chosen.action)).ended;
    }
  }
  return {at::cat(seen), at::tensor(done, at::kLong)};
}

struct cloning_settings {
  std::int64_t steps = 3000, batch = 256;
  double learning_rate = 1e-3;
  std::uint64_t seed = 1;
};

/// Returns a new policy with the expert's shape that has learned the actions of `shown`. Batches
/// are drawn with replacement, and the loss is retain::negative_log_likelihood. The value heads
/// stay untrained, because `shown` has no rewards.
template <trainable_policy P>
P clone_from(const demonstrations& shown, const P& expert, const cloning_settings& settings) {
  if (!shown.actions.defined() || shown.actions.size(0) == 0)
    throw retain::config_error("cloning needs demonstrations, and `shown` has none");
  at::manual_seed(settings.seed);
  auto network = make_policy(shape_of(expert));
  std::vector<std::pair<std::string, at::Tensor>> learning;
  for (auto& parameter : network->named_parameters())
    learning.emplace_back(parameter.key(), parameter.value());
  training::adam optimizer(std::move(learning), {.learning_rate = settings.learning_rate});
  std::mt19937_64 dice(settings.seed);
  std::uniform_int_distribution<std::int64_t> any(0, shown.actions.size(0) - 1);
  auto rows = at::empty({settings.batch}, at::kLong);
  for (std::int64_t step = 0; step < settings.steps; ++step) {
    for (auto& row : std::span(rows.template data_ptr<std::int64_t>(),
                               static_cast<std::size_t>(settings.batch)))
      row = any(dice);
    optimizer.zero_grad();
    retain::negative_log_likelihood(network->forward(shown.observations.index_select(0, rows)),
                                    shown.actions.index_select(0, rows))
        .loss.backward();
    optimizer.step();
  }
  return network;
}

}  // namespace montezuma
