// SPDX-License-Identifier: MIT
// Draws the pyramid as text, for `play`, for documentation and for error messages.
#pragma once

#include <array>
#include <string>
#include <utility>

#include "pyramid.hpp"

namespace montezuma {

/// "@ hero   S skull   k key   | door   o coin   $ treasure   ^ fire   H ladder"
inline constexpr const char* drawing_legend =
    "@ hero  S skull  k key  | door  o coin  $ treasure  ^ fire  H ladder";

namespace detail {

inline constexpr std::array<std::pair<int, int>, room_count> room_places{
    {{0, 1}, {0, 2}, {0, 3}, {1, 0}, {1, 1}, {1, 2}, {1, 3}, {1, 4}}};

struct glyph {
  const char* text;
  int color;  ///< terminal color code; 0: the default color
};

inline glyph glyph_at(const pyramid& game, int room, int x, int y) {
  const auto& now = game.now();
  if (now.room == room && now.x == x && now.y == y) return {now.dead ? "*" : "@", 93};
  const auto& skull = game.where().room(room).skull;
  if (skull.row == y && now.skull_x[static_cast<std::size_t>(room)] == x) return {"S", 91};
  for (const auto& thing : game.where().in_room(room))
    if (thing.x == x && thing.y == y && !game.gone(thing)) {
      if (thing.door) return {"|", thing.which == 0 ? 91 : 94};
      switch (static_cast<item>(thing.which)) {
        case item::red_key: return {"k", 91};
        case item::blue_key: return {"k", 94};
        case item::coin: return {"o", 93};
        case item::treasure: return {"$", 93};
      }
    }
  switch (game.where().at(room, x, y)) {
    case cell::solid: return {"\u2588", 33};
    case cell::ladder: return {"H", 36};
    case cell::fire: return {"^", 91};
    default: return {" ", 0};
  }
}

}  // namespace detail

/// Draws all rooms at their places, with room 1 on top in the middle and room 7 at the right end,
/// one character per cell. With `color`, the text has terminal color codes.
inline std::string draw(const pyramid& game, bool color) {
  constexpr int across = 5, down = 2;
  std::string text;
  for (int line = 0; line < down * room_height; ++line) {
    std::string drawn;
    std::size_t end = 0;  // one past the last cell that is not empty
    for (int column = 0; column < across * room_width; ++column) {
      int room = -1;
      for (int r = 0; r < room_count; ++r)
        if (detail::room_places[static_cast<std::size_t>(r)] ==
            std::pair{line / room_height, column / room_width})
          room = r;
      const auto glyph =
          room < 0 ? detail::glyph{" ", 0}
                   : detail::glyph_at(game, room, column % room_width, line % room_height);
      if (color && glyph.color != 0) drawn += "\033[" + std::to_string(glyph.color) + "m";
      drawn += glyph.text;
      if (color && glyph.color != 0) drawn += "\033[0m";
      if (glyph.text != std::string(" ")) end = drawn.size();
    }
    drawn.resize(end);
    text += drawn + (color ? "\033[K\n" : "\n");
  }
  return text;
}

}  // namespace montezuma
