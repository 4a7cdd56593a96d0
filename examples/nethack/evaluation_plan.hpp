// SPDX-License-Identifier: MIT
// What an evaluation plays.
#pragma once

#include <string>
#include <vector>

namespace nethack {

/// Games to play: new ones, and every saved game of some folders.
struct evaluation_plan {
  int games = 200, turns = 2000;
  std::vector<std::string> from;  ///< folders of saved games
  int repeats = 1;                ///< times each saved game is played
  int saved_turns = 1000;         ///< cap of a game that begins from a save
};

}  // namespace nethack
