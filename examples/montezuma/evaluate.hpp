// SPDX-License-Identifier: MIT
// Measures how well a policy plays from a room.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>

#include "../common/statistics.hpp"
#include "games.hpp"
#include "policy.hpp"

namespace montezuma {

/// Plays one episode in each of `games` parallel games from `room`. `make(seed)` makes a game.
/// Equal seeds play equal games. `as_trained`: episodes begin as those of training do.
template <trainable_policy P, class Make>
std::vector<episode> play_episodes(P& network, Make make, int room, int count, std::uint64_t seed,
                                   bool as_trained = false) {
  using game_type = decltype(make(seed));
  const at::NoGradGuard no_grad;
  const auto shape = game_type::observation_shape();
  std::size_t numbers = 1;
  for (const auto size : shape) numbers *= static_cast<std::size_t>(size);
  struct seat {
    game_type game;
    std::mt19937_64 dice;
    episode so_far;
    std::uint64_t visited;
    std::size_t index;
  };
  std::vector<seat> seats;
  std::vector<episode> finished(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) {
    const auto own = seed * 1'000'003 + static_cast<std::uint64_t>(i);
    seats.push_back({make(own), std::mt19937_64(own), {}, 0, static_cast<std::size_t>(i)});
    if (as_trained)
      begin_training(seats.back().game, room);
    else
      seats.back().game.reset(room);
    seats.back().visited = std::uint64_t{1} << seats.back().game.room();
  }
  std::uniform_real_distribution<double> quantile;
  while (!seats.empty()) {
    auto sizes = shape;
    sizes.insert(sizes.begin(), static_cast<std::int64_t>(seats.size()));
    auto observations = at::empty(sizes, observation_type<game_type>);
    auto* values = observations.template data_ptr<typename game_type::value_type>();
    for (std::size_t i = 0; i < seats.size(); ++i) seats[i].game.observe(values + i * numbers);
    const auto logits = network->forward(observations).logits.contiguous();
    const auto actions = static_cast<std::size_t>(logits.size(1));
    std::size_t kept = 0;
    for (std::size_t i = 0; i < seats.size(); ++i) {
      auto& one = seats[i];
      const auto chosen = draw_action({logits.template data_ptr<float>() + i * actions, actions},
                                      quantile(one.dice));
      const auto result = one.game.step(static_cast<int>(chosen.action));
      one.so_far.reward += static_cast<double>(result.reward);
      ++one.so_far.steps;
      one.visited |= std::uint64_t{1} << one.game.room();
      if (result.ended) {
        one.so_far.rooms = std::popcount(one.visited);
        one.so_far.succeeded = one.game.succeeded();
        finished[one.index] = one.so_far;
      } else {
        if (kept != i) seats[kept] = std::move(one);
        ++kept;
      }
    }
    seats.erase(seats.begin() + static_cast<std::ptrdiff_t>(kept), seats.end());
  }
  return finished;
}

struct summary {
  double success = 0, reward = 0, rooms = 0, steps = 0;  ///< means over episodes
};

inline summary summary_of(const std::vector<episode>& episodes) {
  summary mean;
  const auto n = static_cast<double>(episodes.size());
  for (const auto& one : episodes) {
    mean.success += (one.succeeded ? 1 : 0) / n;
    mean.reward += one.reward / n;
    mean.rooms += one.rooms / n;
    mean.steps += static_cast<double>(one.steps) / n;
  }
  return mean;
}

/// States that a policy visits in episodes of training from `room`, [count, observation], in the
/// order of play, one game after the other. `every`: keeps each N-th state.
template <trainable_policy P, class Make>
at::Tensor visited_states(P& network, Make make, int room, std::int64_t count, std::uint64_t seed,
                          std::int64_t every = 1) {
  const at::NoGradGuard no_grad;
  auto game = make(seed);
  std::mt19937_64 dice(seed);
  std::uniform_real_distribution<double> quantile;
  auto sizes = game.observation_shape();
  sizes.insert(sizes.begin(), count);
  auto states = at::empty(sizes, observation_type<decltype(game)>);
  begin_training(game, room);
  for (std::int64_t i = 0; i < count * every; ++i) {
    auto row = states.narrow(0, i / every, 1);
    game.observe(row.template data_ptr<typename decltype(game)::value_type>());
    const auto logits = network->forward(row).logits.contiguous();
    const auto chosen =
        draw_action({logits.template data_ptr<float>(), static_cast<std::size_t>(logits.size(1))},
                    quantile(dice));
    if (game.step(static_cast<int>(chosen.action)).ended) begin_training(game, room);
  }
  return states;
}

}  // namespace montezuma
