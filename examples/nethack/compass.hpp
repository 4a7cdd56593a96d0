// SPDX-License-Identifier: MIT
// The first step to the nearest stairs, unexplored place and gold.
#pragma once

#include "cells.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <utility>

namespace nethack {

/// Directions in the order of the first eight small actions: k l j h u n b y.
inline constexpr std::array<std::pair<int, int>, 8> direction_steps{
    {{-1, 0}, {0, 1}, {1, 0}, {0, -1}, {-1, 1}, {1, 1}, {1, -1}, {-1, -1}}};
inline constexpr int no_direction = 8;

struct bearing {
  int direction = no_direction;
  int distance = 0;
};

struct compass {
  bearing stairs, unexplored, gold;
};

/// Cells from which something new can be seen: unvisited doors and corridors, and the border of the
/// lit area, next to blank cells.
inline std::array<row_bits, rows> unexplored_cells(const screen_map& map,
                                                   const std::array<row_bits, rows>& visited) {
  // the outermost columns and rows never belong to a level
  constexpr row_bits inner = (row_bits{1} << (columns - 1)) - 2;
  std::array<row_bits, rows> unknown{}, result{};
  for (int row = first_map_row + 1; row < last_map_row; ++row)
    unknown[static_cast<std::size_t>(row)] =
        map.plane(blank)[static_cast<std::size_t>(row)] & inner;
  for (std::size_t row = first_map_row; row <= last_map_row; ++row) {
    const row_bits here = unknown[row], vertical = unknown[row - 1] | unknown[row + 1];
    const row_bits straight = (here << 1) | (here >> 1) | vertical;
    const row_bits diagonal = (vertical << 1) | (vertical >> 1);
    // corridors have diagonal turns, rooms end in walls
    const row_bits passage = map.plane(corridor)[row];
    result[row] = ~visited[row] & (map.plane(door)[row] |
                                   (map.plane(ground)[row] & (straight | (passage & diagonal))));
  }
  return result;
}

/// Breadth-first search from the hero over cells that can be walked, a whole wave at a time. Nobody
/// walks diagonally through a door. The hero hides its own cell, so the memory says whether this
/// cell is a door.
inline compass find_bearings(const screen_map& map, int hero_row, int hero_column,
                             bool hero_in_door, const std::array<row_bits, rows>& unexplored) {
  constexpr std::size_t longest = 96;
  // waves[d]: the cells d steps away; kept for the way back
  thread_local std::array<std::array<row_bits, rows>, longest> waves;
  std::array<row_bits, rows> open = map.plane(walkable);
  std::array<row_bits, rows> doors = map.plane(door);
  if (hero_in_door) doors[static_cast<std::size_t>(hero_row)] |= bit(hero_column);
  open[static_cast<std::size_t>(hero_row)] &= ~bit(hero_column);

  waves[0].fill(0);
  waves[0][static_cast<std::size_t>(hero_row)] = bit(hero_column);
  int top = hero_row, bottom = hero_row;  // the rows of the newest wave

  const auto first_step = [&](std::size_t distance, int row, int column) {
    // Back through the waves. Straight steps are tried first, as a player would do.
    int direction = no_direction;
    for (std::size_t wave = distance; wave-- > 0;) {
      for (int d = 0; d < 8; ++d) {
        const int from_row = row - direction_steps[static_cast<std::size_t>(d)].first;
        const int from_column = column - direction_steps[static_cast<std::size_t>(d)].second;
        if (from_row < first_map_row || from_row > last_map_row || from_column < 0 ||
            from_column >= columns)
          continue;
        if (!has(waves[wave][static_cast<std::size_t>(from_row)], from_column)) continue;
        if (d >= 4 && (has(doors[static_cast<std::size_t>(row)], column) ||
                       has(doors[static_cast<std::size_t>(from_row)], from_column)))
          continue;
        direction = d;
        row = from_row;
        column = from_column;
        break;
      }
    }
    return bearing{direction, static_cast<int>(distance)};
  };

  compass found;
  struct search {
    bearing* target;
    const std::array<row_bits, rows>* goal;
    bool over;
  };
  const auto nowhere = [](const std::array<row_bits, rows>& goal) {
    return std::ranges::all_of(goal, [](row_bits row) { return row == 0; });
  };
  std::array<search, 3> searches{{{&found.stairs, &map.plane(stairs_down), false},
                                  {&found.unexplored, &unexplored, false},
                                  {&found.gold, &map.plane(gold), false}}};
  // most screens show no gold: then do not search the whole level
  for (search& one : searches) one.over = nowhere(*one.goal);
  const auto look = [&](search& one, std::size_t distance) {
    for (int row = top; row <= bottom; ++row)
      if (const row_bits hit = waves[distance][static_cast<std::size_t>(row)] &
                               (*one.goal)[static_cast<std::size_t>(row)]) {
        *one.target = first_step(distance, row, lowest(hit));
        one.over = true;
        return;
      }
  };

  for (std::size_t distance = 1;
       distance < longest && !std::ranges::all_of(searches, &search::over); ++distance) {
    const auto& before = waves[distance - 1];
    auto& now = waves[distance];
    now.fill(0);
    bool any = false;
    int new_top = rows, new_bottom = 0;
    for (int row = std::max(first_map_row, top - 1); row <= std::min(last_map_row, bottom + 1);
         ++row) {
      const auto r = static_cast<std::size_t>(row);
      const row_bits vertical = before[r - 1] | before[r + 1];
      const row_bits slanted = (before[r - 1] & ~doors[r - 1]) | (before[r + 1] & ~doors[r + 1]);
      const row_bits reached = ((before[r] << 1) | (before[r] >> 1) | vertical |
                                (((slanted << 1) | (slanted >> 1)) & ~doors[r])) &
                               open[r];
      now[r] = reached;
      open[r] &= ~reached;
      if (reached) {
        any = true;
        new_top = std::min(new_top, row);
        new_bottom = row;
      }
    }
    if (!any) break;
    top = new_top;
    bottom = new_bottom;
    for (search& one : searches)
      if (!one.over) look(one, distance);
  }
  return found;
}

}  // namespace nethack
