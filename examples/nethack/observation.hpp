// SPDX-License-Identifier: MIT
// The observation of an agent after each key.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace nethack {

inline constexpr int rows = 24;
inline constexpr int columns = 80;

/// The input that the game waits for. The environment answers --More-- and menus itself, so an
/// agent gets only `command` (a turn) and `question` (a key that completes the current command).
enum class prompt : std::uint8_t { command, question };

/// The numbers of the status lines: `blstats()` of the NetHack Learning Environment with names.
struct status {
  int strength = 0, strength_percent = 0, dexterity = 0, constitution = 0, intelligence = 0,
      wisdom = 0, charisma = 0;
  int hp = 0, hp_max = 0, energy = 0, energy_max = 0, armor_class = 0;
  int depth = 0;  ///< dungeon level, 1 at the start
  int gold = 0;
  int level = 0;       ///< experience level
  int experience = 0;  ///< experience points
  int turn = 0;        ///< game time
  int hunger = 1;      ///< 0 satiated, 1 normal, 2 hungry, 3 weak, 4 fainting, 5 fainted
  int burden = 0;      ///< 0 none to 5 overloaded
  int condition = 0;   ///< bits as in the NetHack Learning Environment
  int alignment = 0;   ///< -1 chaotic, 0 neutral, 1 lawful
  int score = 0;       ///< the game's own running score
  int hit_dice = 0;    ///< the monster's level while polymorphed, else 0

  bool operator==(const status&) const = default;
};

struct observation {
  std::array<std::uint8_t, rows * columns> chars{};  ///< tty_chars, row by row
  /// tty_colors: 0..7, +8 bright, +16 inverse (a pet or an object highlighted)
  std::array<std::uint8_t, rows * columns> colors{};
  /// tty_cursor; on the hero when `waiting` is command
  int cursor_row = 0, cursor_column = 0;
  /// the cursor at the last command
  int hero_row = 1, hero_column = 0;
  /// all text on the message line since the last key
  std::string message;
  prompt waiting = prompt::command;
  status stats;
  /// bit r: row r differs from the previous observation
  std::uint32_t changed_rows = (1u << rows) - 1;

  std::uint8_t character(int row, int column) const {
    return chars[static_cast<std::size_t>(row * columns + column)];
  }
  std::uint8_t color(int row, int column) const {
    return colors[static_cast<std::size_t>(row * columns + column)];
  }
  std::string_view line(int row) const {
    return {reinterpret_cast<const char*>(chars.data()) + row * columns,
            static_cast<std::size_t>(columns)};
  }
};

}  // namespace nethack
