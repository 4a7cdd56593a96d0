// SPDX-License-Identifier: MIT
// Draws a stage from above, as text for a terminal and as an image file: the shapes of the MuJoCo
// model, and the goal.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "sequence.hpp"

namespace robotic_sequence {

inline constexpr const char* drawing_legend =
    "@ tip of the arm  + arm  O object  X goal of the object  # wall  : rail";

namespace detail {

/// A line with thickness (for a point: a disc) or a rectangle, on the table.
struct shape {
  point center, axis;  ///< axis: of length 1
  double half = 0;     ///< half of the length along the axis
  double radius = 0;   ///< of a line; for a rectangle half of the width
  bool rectangle = false;
  int layer = 0;  ///< higher layers hide lower layers
  char glyph = ' ';
  int terminal_color = 0;
  std::array<double, 3> color{};

  /// The distance from a place to the shape, in meters; negative inside.
  double outside(point at) const {
    const point from_center = at - center;
    const double along = std::abs(dot(from_center, axis)),
                 beside = std::abs(cross(axis, from_center));
    if (!rectangle) return std::hypot(std::max(along - half, 0.0), beside) - radius;
    const double dx = along - half, dy = beside - radius;
    return std::hypot(std::max(dx, 0.0), std::max(dy, 0.0)) + std::min(std::max(dx, dy), 0.0);
  }
};

inline constexpr int goal_layer = 2;

/// Sorted from the lowest to the highest layer.
inline std::vector<shape> shapes_of(const sequence& world) {
  constexpr std::array<char, 5> glyphs{':', 'O', '#', '+', '@'};
  constexpr std::array<int, 5> terminal_colors{90, 96, 33, 37, 93};
  const auto& model = world.model();
  const auto& data = world.data();
  std::vector<shape> all;
  for (int i = 0; i < model.ngeom; ++i) {
    const double* size = model.geom_size + 3 * i;
    const double* turn = data.geom_xmat + 9 * i;  // its columns are the shape's own axes
    const auto layer = static_cast<std::size_t>(std::clamp(model.geom_group[i], 0, 4));
    shape made{.center = {data.geom_xpos[3 * i], data.geom_xpos[3 * i + 1]},
               .axis = {turn[0], turn[3]},
               .radius = size[0],
               .layer = model.geom_group[i],
               .glyph = glyphs[layer],
               .terminal_color = terminal_colors[layer]};
    for (std::size_t c = 0; c < 3; ++c)
      made.color[c] = static_cast<double>(model.geom_rgba[4 * i + static_cast<int>(c)]);
    if (model.geom_type[i] == mjGEOM_CAPSULE) {  // flat on the table: its own z axis is its length
      made.axis = {turn[2], turn[5]};
      made.half = size[1];
    } else if (model.geom_type[i] == mjGEOM_BOX) {
      made.rectangle = true;
      made.half = size[0];
      made.radius = size[1];
    }
    all.push_back(made);
  }
  all.push_back({.center = world.where().goal,
                 .axis = {1, 0},
                 .radius = 0.014,
                 .layer = goal_layer,
                 .glyph = 'X',
                 .terminal_color = 92,
                 .color = {0, 0.62, 0.45}});
  std::stable_sort(all.begin(), all.end(),
                   [](const shape& a, const shape& b) { return a.layer < b.layer; });
  return all;
}

/// The visible area, in meters.
inline constexpr double view_left = -0.48, view_near = -0.4, view_size = 0.96;

}  // namespace detail

/// 64 columns and 32 rows of cells, 1.5 by 3 cm each. With `color`, has terminal color codes.
inline std::string draw(const sequence& world, bool color) {
  constexpr int columns = 64, rows = 32;
  constexpr double width = detail::view_size / columns, height = detail::view_size / rows;
  const auto shapes = detail::shapes_of(world);
  std::string text;
  for (int row = 0; row < rows; ++row) {
    std::string drawn;
    std::size_t end = 0;  // one past the last cell that is not empty
    for (int column = 0; column < columns; ++column) {
      const point at{detail::view_left + (column + 0.5) * width,
                     detail::view_near + (rows - row - 0.5) * height};
      const auto seen =
          std::find_if(shapes.rbegin(), shapes.rend(),
                       [&](const detail::shape& each) { return each.outside(at) < width / 2; });
      if (seen == shapes.rend()) {
        drawn += ' ';
        continue;
      }
      drawn += color
                   ? "\033[" + std::to_string(seen->terminal_color) + "m" + seen->glyph + "\033[0m"
                   : std::string(1, seen->glyph);
      end = drawn.size();
    }
    drawn.resize(end);
    text += drawn + (color ? "\033[K\n" : "\n");
  }
  return text;
}

/// The bytes of a PPM image (P6), `pixels` high and wide, with smooth edges.
inline std::string ppm(const sequence& world, int pixels = 480) {
  const auto shapes = detail::shapes_of(world);
  const double pixel = detail::view_size / pixels;
  std::string bytes = "P6\n" + std::to_string(pixels) + " " + std::to_string(pixels) + "\n255\n";
  for (int row = 0; row < pixels; ++row)
    for (int column = 0; column < pixels; ++column) {
      const point at{detail::view_left + (column + 0.5) * pixel,
                     detail::view_near + (pixels - row - 0.5) * pixel};
      std::array<double, 3> color{0.97, 0.96, 0.93};
      for (const auto& each : shapes) {
        const double covered = std::clamp(0.5 - each.outside(at) / pixel, 0.0, 1.0);
        for (std::size_t c = 0; c < 3; ++c) color[c] += covered * (each.color[c] - color[c]);
      }
      for (const double part : color)
        bytes += static_cast<char>(static_cast<unsigned char>(std::lround(255 * part)));
    }
  return bytes;
}

}  // namespace robotic_sequence
