// SPDX-License-Identifier: MIT
// Draws the real game's screen in a terminal.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include <sys/ioctl.h>
#include <unistd.h>

#include "frames.hpp"

namespace montezuma {

struct text_size {
  int columns = 80, lines = 27;
};

/// The size of the terminal, or of a page where the output is none.
inline text_size terminal_size() {
  winsize now{};
  if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &now) != 0 || now.ws_col == 0 || now.ws_row == 0) return {};
  return {now.ws_col, now.ws_row};
}

namespace detail {

using color = std::array<int, 3>;

/// The mean color of the part [from, to) of the screen, in 1/`columns` of its width and 1/`rows` of
/// its height.
inline color mean_color(const std::vector<std::uint8_t>& colors, std::size_t column,
                        std::size_t columns, std::size_t row, std::size_t rows) {
  const auto left = column * screen_columns / columns, top = row * screen_rows / rows;
  const auto right = std::max(left + 1, (column + 1) * screen_columns / columns),
             bottom = std::max(top + 1, (row + 1) * screen_rows / rows);
  color sum{};
  for (std::size_t y = top; y < bottom; ++y)
    for (std::size_t x = left; x < right; ++x)
      for (std::size_t c = 0; c < 3; ++c) sum[c] += colors[(y * screen_columns + x) * 3 + c];
  for (auto& each : sum) each /= static_cast<int>((right - left) * (bottom - top));
  return sum;
}

}  // namespace detail

/// `colors`: 210 × 160 × 3 numbers. The console's pixels are twice as wide as high, and so is half
/// of a character high as it is wide: the picture is as large as fits above one more line. With
/// `color`, a character is the upper half of its cell, in two colors; without, a shade.
inline std::string draw_screen(const std::vector<std::uint8_t>& colors, text_size size,
                               bool color) {
  const auto columns = static_cast<std::size_t>(
      std::clamp(std::min(size.columns, (size.lines - 1) * 640 / 210), 20, 160));
  const std::size_t lines = columns * 210 / 640, rows = 2 * lines;
  std::string text;
  for (std::size_t line = 0; line < lines; ++line) {
    detail::color upper_before{-1, -1, -1}, lower_before = upper_before;
    for (std::size_t column = 0; column < columns; ++column) {
      const auto upper = detail::mean_color(colors, column, columns, 2 * line, rows),
                 lower = detail::mean_color(colors, column, columns, 2 * line + 1, rows);
      if (!color) {
        constexpr std::array<char, 10> shades{' ', '.', ':', '-', '=', '+', '*', '#', '%', '@'};
        int light = 0;
        for (std::size_t c = 0; c < 3; ++c) light += upper[c] + lower[c];
        text += shades[static_cast<std::size_t>(std::min(light * 10 / (6 * 192), 9))];
        continue;
      }
      const auto paint = [&](const char* place, const detail::color& now, detail::color& before) {
        if (now == before) return;
        before = now;
        text += std::string("\033[") + place + ";2;" + std::to_string(now[0]) + ";" +
                std::to_string(now[1]) + ";" + std::to_string(now[2]) + "m";
      };
      paint("38", upper, upper_before);
      paint("48", lower, lower_before);
      text += "\u2580";
    }
    if (!color) text.erase(text.find_last_not_of(' ') + 1);
    text += color ? "\033[0m\033[K\n" : "\n";
  }
  return text;
}

}  // namespace montezuma
