// SPDX-License-Identifier: MIT
// A game's screen as text with ANSI colors, for a terminal.
#pragma once

#include <cstdint>
#include <string>

#include "observation.hpp"

namespace nethack {

/// Twenty-four lines, without the blanks at their ends, so that a printed frame stays small.
inline std::string screen_text(const observation& seen, bool colors) {
  std::string text;
  for (int row = 0; row < rows; ++row) {
    int width = columns;
    while (width > 0 && seen.character(row, width - 1) == ' ') --width;
    int current = -1;  // the current color of the terminal; -1: the default
    for (int column = 0; column < width; ++column) {
      const std::uint8_t character = seen.character(row, column);
      const bool hero =
          seen.waiting == prompt::command && row == seen.cursor_row && column == seen.cursor_column;
      const int wanted = hero ? 31 : seen.color(row, column);
      if (colors && wanted != current && character != ' ') {
        const bool bright = (wanted & 8) != 0, inverse = (wanted & 16) != 0;
        // NetHack's "no color" and gray are the terminal's own foreground. NetHack's dark blue is
        // not readable on black.
        const int shade = wanted & 7;
        text += "\033[0";
        if (inverse) text += ";7";
        if (shade != 7 && !(shade == 0 && !bright))
          text.append(";").append(std::to_string((bright || shade == 4 ? 90 : 30) + shade));
        else if (bright)
          text += ";1";
        text += 'm';
        current = wanted;
      }
      text += character >= 32 && character < 127 ? static_cast<char>(character) : ' ';
    }
    if (current != -1) text += "\033[0m";
    text += colors ? "\033[K\n" : "\n";
  }
  return text;
}

}  // namespace nethack
