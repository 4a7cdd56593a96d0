// SPDX-License-Identifier: MIT
// A network as a player of evaluation games.
#pragma once

#include <cstddef>
#include <memory>
#include <utility>
#include <vector>

#include "agent.hpp"
#include "evaluate.hpp"
#include "save_states.hpp"

namespace nethack {

class policy_player : public game_player {
 public:
  policy_player(policy network, std::size_t places) : agent_(std::move(network), places) {}

  void begin(std::size_t place, const environment& game, const game_start& start) override {
    if (start.saved.empty())
      agent_.begin(place, game.view(), start.seed);
    else
      agent_.begin_from(place, game.view(), start.seed, memory_file(start.saved));
  }

  std::vector<nethack::key> choose(
      const std::vector<std::size_t>& places,
      const std::vector<std::unique_ptr<environment>>& games) override {
    std::vector<const observation*> views;
    for (const auto place : places) views.push_back(&games[place]->view());
    std::vector<nethack::key> chosen;
    for (const int action : agent_.act(places, views))
      chosen.push_back(small_actions[static_cast<std::size_t>(action)].code);
    return chosen;
  }

 private:
  agent agent_;
};

}  // namespace nethack
