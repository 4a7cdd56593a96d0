// SPDX-License-Identifier: MIT
// A policy that plays many games. It keeps the memory of each game and evaluates the network once
// for all games.
#pragma once

#include "environment.hpp"
#include "memory.hpp"
#include "policy.hpp"

#include <ATen/ATen.h>

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <random>
#include <span>
#include <vector>

namespace nethack {

/// The action at a quantile in [0, 1) of the distribution with these `logits`.
inline int action_at_quantile(std::span<const float> logits, double quantile,
                              double temperature = 1) {
  double largest = -1e30, total = 0;
  for (const float logit : logits) largest = std::max(largest, static_cast<double>(logit));
  for (const float logit : logits)
    total += std::exp((static_cast<double>(logit) - largest) / temperature);
  double left = quantile * total;
  for (std::size_t action = 0; action + 1 < logits.size(); ++action) {
    left -= std::exp((static_cast<double>(logits[action]) - largest) / temperature);
    if (left < 0) return static_cast<int>(action);
  }
  return static_cast<int>(logits.size()) - 1;
}

struct agent_options {
  /// 0 always takes the most likely action; below 1 the small policy tends to get stuck
  double temperature = 1;
};

/// A game is identified by its place, 0 … places − 1:
///
///     agent who{network, places};
///     who.begin(place, game.view(), seed);     // at the start of each game
///     // indices of small_actions, one for each game that waits for a key
///     auto actions = who.act(places, views);
///
/// Each game has its own random state, from its seed. So the actions in a game do not depend on the
/// other games.
class agent {
 public:
  agent(policy network, std::size_t places, agent_options options = {})
      : network_(std::move(network)),
        options_(options),
        seats_(places),
        states_(network_->initial_state(static_cast<std::int64_t>(places))) {
    network_->eval();
  }

  void begin(std::size_t place, const observation& first, std::uint64_t seed) {
    seats_[place].mind.reset();
    start(place, first, seed);
  }
  /// For a game that continues from a save. `memory_file` is a file that memory::write wrote when
  /// the game was saved. It has no state of a recurrent policy, because no policy had played. The
  /// state starts as in a new game.
  void begin_from(std::size_t place, const observation& first, std::uint64_t seed,
                  const std::filesystem::path& memory_file) {
    seats_[place].mind.read(memory_file);
    start(place, first, seed);
  }

  std::vector<int> act(std::span<const std::size_t> places,
                       std::span<const observation* const> views) {
    const at::NoGradGuard no_graph;
    records_.resize(places.size());
    for (std::size_t i = 0; i < places.size(); ++i) {
      seat& one = seats_[places[i]];
      if (one.last_action != memory::no_action) one.mind.observe(*views[i], one.last_action);
      records_[i] = encode(*views[i], one.mind, network_->config().features());
      records_[i].first = one.last_action == memory::no_action;
    }
    const auto indices =
        at::tensor(std::vector<std::int64_t>(places.begin(), places.end()), at::kLong);
    auto [logits, next] = network_->follow(to_tensor(records_), states_.index_select(0, indices));
    states_.index_copy_(0, indices, next);
    logits_ = logits.contiguous();
    std::vector<int> chosen(places.size());
    const auto actions = static_cast<std::size_t>(logits_.size(1));
    for (std::size_t i = 0; i < places.size(); ++i) {
      seat& one = seats_[places[i]];
      const std::span<const float> row{logits_.data_ptr<float>() + i * actions, actions};
      if (options_.temperature > 0)
        chosen[i] = action_at_quantile(row, std::uniform_real_distribution<double>()(one.dice),
                                       options_.temperature);
      else
        chosen[i] = static_cast<int>(std::max_element(row.begin(), row.end()) - row.begin());
      one.last_action = chosen[i];
    }
    return chosen;
  }

  /// The logits of the last act(): [games, actions].
  const at::Tensor& logits() const { return logits_; }
  const memory& mind(std::size_t place) const { return seats_[place].mind; }

 private:
  struct seat {
    memory mind;
    std::mt19937_64 dice;
    int last_action = memory::no_action;
  };
  void start(std::size_t place, const observation& first, std::uint64_t seed) {
    seats_[place].mind.observe(first);
    seats_[place].dice.seed(seed);
    seats_[place].last_action = memory::no_action;
  }

  policy network_;
  agent_options options_;
  std::vector<seat> seats_;
  at::Tensor states_;  // of the network, one row for each place
  std::vector<features> records_;
  at::Tensor logits_;
};

}  // namespace nethack
