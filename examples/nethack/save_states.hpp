// SPDX-License-Identifier: MIT
// Saved games for evaluation: the scripted player's first arrival at a dungeon level, as the paper
// starts its evaluation on level 4. So a policy can be evaluated there even if it does not reach
// the level by itself.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include "../common/interrupt.hpp"
#include "environment.hpp"
#include "evaluate.hpp"
#include "memory.hpp"
#include "player.hpp"
#include "results.hpp"

namespace nethack {

struct saved_game {
  std::filesystem::path file;
  int depth = 0, turn = 0, hp = 0, hp_max = 0, level = 0;
};

struct save_states_result {
  std::vector<saved_game> saved;
  long games = 0;  ///< games played; games - saved did not reach the level
};

/// The file of the memory at the save. A policy continues with this memory.
inline std::filesystem::path memory_file(std::filesystem::path save) {
  return save.replace_extension(".memory");
}

namespace detail {

/// Plays one new game until the hero stands on `depth` for the first time and the game waits for a
/// command. Returns false if the game ends before that.
inline bool play_to_depth(environment& game, player& hero, memory& mind, int depth,
                          std::uint64_t seed) {
  game.reset(seed);
  hero.reset(seed);
  mind.reset();
  mind.observe(game.view());
  while (!game.done() && !interrupt::requested()) {
    // The hero must stand exactly on this level (a trap door may lead deeper), because the folder's
    // name states the level.
    if (game.view().waiting == prompt::command && game.max_depth() >= depth)
      return game.view().stats.depth == depth && game.max_depth() == depth;
    const auto pressed = hero.next(game.view());
    game.step(pressed);
    if (!game.done()) mind.observe(game.view(), small_action_of(pressed));
  }
  return false;
}

}  // namespace detail

/// Writes `count` pairs of FOLDER/NNN.save and NNN.memory and removes the old ones. Calls
/// `report(saved, games)` after every game.
inline save_states_result make_saved_games(const std::filesystem::path& folder, int depth,
                                           int count, std::uint64_t seed,
                                           const std::function<void(long, long)>& report = {}) {
  std::filesystem::create_directories(folder);
  std::vector<std::filesystem::path> before;  // old files, which may be of another seed or more
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".save" || entry.path().extension() == ".memory")
      before.push_back(entry.path());
  for (const auto& file : before) std::filesystem::remove(file);
  environment_options options;
  options.turn_cap = 6000;
  environment game(options);
  player hero(seed);
  memory mind;
  save_states_result result;
  // A limit, because a player that cannot reach the level would never finish.
  const long most_games = 50L * count + 100;
  while (static_cast<int>(result.saved.size()) < count && result.games < most_games &&
         !interrupt::requested()) {
    // Held out, and different from the evaluation games that start at the beginning.
    const auto game_seed = held_out_games + ((seed & 0xfffffff) << 32) +
                           (static_cast<std::uint64_t>(depth) << 24) +
                           static_cast<std::uint64_t>(result.games);
    ++result.games;
    if (detail::play_to_depth(game, hero, mind, depth, game_seed)) {
      char name[16];
      std::snprintf(name, sizeof name, "%03zu.save", result.saved.size());
      const auto stats = game.view().stats;
      const auto file = folder / name;
      mind.write(memory_file(file));
      game.save(file);
      result.saved.push_back({file, stats.depth, stats.turn, stats.hp, stats.hp_max, stats.level});
    }
    if (report) report(static_cast<long>(result.saved.size()), result.games);
  }
  if (!interrupt::requested() && static_cast<int>(result.saved.size()) < count)
    throw std::runtime_error("the player reached depth " + std::to_string(depth) + " in only " +
                             std::to_string(result.saved.size()) + " of " +
                             std::to_string(result.games) + " games: ask for fewer saved games");
  return result;
}

}  // namespace nethack
