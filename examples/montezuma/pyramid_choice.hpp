// SPDX-License-Identifier: MIT
// Which pyramid a command plays in, as options of a command line and as JSON.
#pragma once

#include <string>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/option_checks.hpp"
#include "maps.hpp"
#include "pyramid_state.hpp"

namespace montezuma {

struct pyramid_choice {
  pyramid_options game;

  nlohmann::json to_json() const {
    return {{"map", game.map}, {"sticky", game.sticky}, {"step_cap", game.step_cap}};
  }
};

inline void declare_world(CLI::App* command, pyramid_choice& where) {
  const std::string group = "World";
  command
      ->add_option("--map", where.game.map,
                   "standard, or deep: long ladders, gaps to jump, a skull in the first room")
      ->check([](const std::string& name) {
        for (const auto* map : all_maps)
          if (map->name == name) return std::string();
        return "no map '" + name + "': there is " + map_names();
      })
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--sticky", where.game.sticky, "Chance that a step repeats the action before it")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--step-cap", where.game.step_cap,
                   "Steps of an episode; 0: the map's, or the real game's 4500")
      ->check(non_negative_number)
      ->capture_default_str()
      ->group(group);
}

}  // namespace montezuma
