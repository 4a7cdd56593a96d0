// SPDX-License-Identifier: MIT
// Which world a command plays in.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "pyramid.hpp"

namespace montezuma {

struct world_options {
  pyramid_options game;

  pyramid operator()(std::uint64_t seed) const { return pyramid(seed, game); }
  /// Games with dice of their own, none shared by two seeds.
  std::vector<pyramid> games(std::uint64_t seed, std::int64_t count) const {
    std::vector<pyramid> all;
    for (std::int64_t i = 0; i < count; ++i) all.push_back((*this)(seed * 100'003 + static_cast<std::uint64_t>(i)));
    return all;
  }
  nlohmann::json to_json() const { return {{"map", game.map}, {"sticky", game.sticky}, {"step_cap", game.step_cap}}; }
};

inline void declare_world(CLI::App* command, world_options& world) {
  const std::string group = "World";
  command->add_option("--map", world.game.map, "standard, or deep: long ladders, gaps to jump, a skull in the first room")
      ->check([](const std::string& name) {
        for (const auto* map : all_maps)
          if (map->name == name) return std::string();
        return "no map '" + name + "': there is " + map_names();
      })->capture_default_str()->group(group);
  command->add_option("--sticky", world.game.sticky, "Chance that a step repeats the action before it")->check(CLI::Range(0.0, 1.0))
      ->capture_default_str()->group(group);
  command->add_option("--step-cap", world.game.step_cap, "Steps of an episode; 0: the map's")->check(CLI::NonNegativeNumber)
      ->capture_default_str()->group(group);
}

}  // namespace montezuma
