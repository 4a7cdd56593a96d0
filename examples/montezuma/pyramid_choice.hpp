// SPDX-License-Identifier: MIT
// The pyramid of a command, as options of a command line and as JSON.
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
        return "there is no map '" + name + "': choose one of " + map_names();
      })
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--sticky", where.game.sticky, "Chance that a step repeats the previous action")
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()
      ->group(group);
  command
      ->add_option("--step-cap", where.game.step_cap,
                   "Steps per episode; 0: the default of the map, or 4500 for the real game")
      ->check(non_negative_number)
      ->capture_default_str()
      ->group(group);
}

}  // namespace montezuma
