// SPDX-License-Identifier: MIT
// The rooms of the pyramid, as text.
#pragma once

#include <array>
#include <string>
#include <string_view>

namespace montezuma {

inline constexpr int room_count = 8, room_width = 11, room_height = 9;

/// The room behind each side of a room, -1 for no passage. The passages are those of rooms 0 to 7
/// of the real game:
///
///           0 - 1 - 2
///           |       |
///       3 - 4 - 5 - 6 - 7
struct neighbours {
  int left, right, up, down;
};
inline constexpr std::array<neighbours, room_count> adjacency{{{-1, 1, -1, 4},
                                                               {0, 2, -1, -1},
                                                               {1, -1, -1, 6},
                                                               {-1, 4, -1, -1},
                                                               {3, 5, 0, -1},
                                                               {4, 6, -1, -1},
                                                               {5, 7, 2, -1},
                                                               {6, -1, -1, -1}}};

/// The position of a hero who has just entered a room, the room it came from, and what it has done
/// before.
struct arrival {
  int x, y, from;
  bool has_red_opened, has_blue_opened;
};

/// A skull moves back and forth on a row, between two columns; row -1 for no skull.
struct patrol {
  int row, first, last;
};

/// # solid   H ladder   X fire   K red key   D red door   B blue key   E blue door   C coin   T
/// treasure   . air
struct room_map {
  std::array<std::string_view, room_height> rows;
  arrival start;
  patrol skull{-1, 0, 0};
};

struct pyramid_map {
  std::string_view name, title;
  int step_cap;  ///< steps per episode
  std::array<room_map, room_count> rooms;
};

/// The task: take the red key in room 1, open the red door, go down through rooms 2 and 6 to room
/// 7, pass the skull, and take the blue key. Then go back to the blue door of room 6 (or of room
/// 1), and over the coin in room 5 to the treasure in room 3. The corridor at the top of room 7
/// ends in a shaft.
inline constexpr pyramid_map standard_map{
    "standard",
    "eight rooms; a lethal shaft and a skull in room 7, a skull before the treasure",
    250,
    {{
        {{"###########", "#.........#", "#.........#", "#.........#", "#.........#", "#.........#",
          "#.........E", "#####H#####", "#####H#####"},
         {9, 6, 1, true, true}},
        {{"###########", "#.........#", "#.........#", "#.........#", "#.........#", "#.........#",
          "E.........D", "#########H#", "#K.......H#"},
         {5, 6, -1, false, false}},
        {{"###########", "#.........#", "#.........#", "#.........#", "#.........#", "#.........#",
          "D.........#", "######H####", "######H####"},
         {1, 6, 1, true, false}},
        {{"###########", "#.........#", "#.........#", "#T.........", "###########", "###########",
          "###########", "###########", "###########"},
         {10, 3, 4, true, true},
         {3, 4, 8}},
        {{"#####H#####", "#....H....#", "#....H....#", ".....H.....", "###########", "###########",
          "###########", "###########", "###########"},
         {10, 3, 5, true, true}},
        {{"###########", "#....C....#", "#..H###H..#", "...H###H..E", "###########", "###########",
          "###########", "###########", "###########"},
         {9, 3, 6, true, true}},
        {{"######H####", "######H####", "#.....H...#", "E.....H....", "###########", "###########",
          "###########", "###########", "###########"},
         {6, 0, 2, true, false}},
        {{"###########", "#.........#", "#.........#", ".H........#", "#H#######.#", "#H......#.#",
          "#H.....H#.#", "#######H#.#", "#.B....H#.#"},
         {0, 3, 6, true, false},
         {6, 3, 6}},
    }}};

/// The same goal with more dangers: long ladders, gaps to jump, a skull in the first room and fire
/// before the treasure.
inline constexpr pyramid_map deep_map{
    "deep",
    "long ladders, gaps to jump, a skull in room 1 and fire in room 4",
    400,
    {{
        {{"###########", "#.........#", "#.........E", "#####H#####", "#####H#####", "#####H#####",
          "#####H#####", "#####H#####", "#####H#####"},
         {9, 2, 1, true, true}},
        {{"###########", "#.........#", "E....H....D", "####.H.####", "#K...H....#", "#H...H....#",
          "#H...H....#", "#H...H....#", "###########"},
         {5, 2, -1, false, false},
         {7, 2, 4}},
        {{"###########", "#.........#", "D.........#", "####.#H####", "####.#H####", "####.#H####",
          "####.#H####", "####.#H####", "######H####"},
         {1, 2, 1, true, false}},
        {{"###########", "#.........#", "#.........#", "#T.........", "###########", "###########",
          "###########", "###########", "###########"},
         {10, 3, 4, true, true},
         {3, 3, 8}},
        {{"#####H#####", "#....H....#", "#....H....#", "..X..H.....", "###########", "###########",
          "###########", "###########", "###########"},
         {10, 3, 5, true, true}},
        {{"###########", "#....C....#", "#..H###H..#", "...H###H..E", "###########", "###########",
          "###########", "###########", "###########"},
         {9, 3, 6, true, true}},
        {{"######H####", "######H####", "#.....H...#", "E.....H....", "###########", "###########",
          "###########", "###########", "###########"},
         {6, 0, 2, true, false}},
        {{"###########", "#.........#", "#.........#", ".H........#", "#H#######.#", "#H......#.#",
          "#H.....H#.#", "#######H#.#", "#.B....H#.#"},
         {0, 3, 6, true, false},
         {6, 2, 6}},
    }}};

inline constexpr std::array<const pyramid_map*, 2> all_maps{&standard_map, &deep_map};

/// "standard, deep", for messages.
inline std::string map_names() {
  std::string names;
  for (const auto* map : all_maps) names += (names.empty() ? "" : ", ") + std::string(map->name);
  return names;
}

}  // namespace montezuma
