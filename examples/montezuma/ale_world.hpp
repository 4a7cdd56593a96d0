// SPDX-License-Identifier: MIT
// The real game as the world of a command, on any machine that plays it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include <retain/state.hpp>

#include "ale_game.hpp"
#include "pixel_policy.hpp"
#include "world.hpp"

namespace montezuma {

template <ale_machine Machine>
struct ale_world {
  using game_type = ale_game<Machine>;
  using policy_type = pixel_policy;
  static constexpr const char *pretrain_preset = "paper", *finetune_preset = "paper";

  std::function<Machine(std::uint64_t seed)> machine;
  std::shared_ptr<const room_states> states;  ///< null: none
  ale_options game;

  game_type operator()(std::uint64_t seed) const {
    return game_type(machine(seed), seed, states, game);
  }
  pixel_policy new_policy(std::int64_t) const {
    return make_policy(pixel_shape{game_type::actions});
  }
  std::vector<int> rooms() const {
    std::vector<int> all{game_type::first_room};
    if (states != nullptr)
      for (const auto& [room, some] : states->rooms)
        if (room != game_type::first_room && !some.empty()) all.push_back(room);
    return all;
  }
  /// Reports group runs by "map".
  nlohmann::json to_json() const {
    return {{"map", "ale"},
            {"sticky", game.sticky},
            {"step_cap", game.step_cap},
            {"saved_states", states == nullptr ? "none" : states->text()}};
  }
  void save(retain::state& out) const {
    out.set("map", "ale");
    out.set("sticky", game.sticky);
    out.set("step_cap", game.step_cap);
  }
  void load(const retain::state& in) {
    game.sticky = in.number("sticky");
    game.step_cap = in.integer<int>("step_cap");
  }
};

}  // namespace montezuma
