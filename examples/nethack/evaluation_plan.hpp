// SPDX-License-Identifier: MIT
// The games of an evaluation.
#pragma once

#include <string>
#include <vector>

#include "game_source.hpp"

namespace nethack {

/// The games to play: new games, and every saved game of some folders.
struct evaluation_plan {
  int games = 200, turns = 2000;
  std::vector<std::string> from;  ///< folders of saved games
  int repeats = 1;                ///< number of games from each saved game
  int saved_turns = 1000;         ///< cap of a game that begins from a save
  game_source source;
};

}  // namespace nethack
