// SPDX-License-Identifier: MIT
// Pictures as SVG: curves with bands, points of seeds, and profiles. A method has a color, a dash
// and a marker, and its name stands beside its line. So the pictures can be read in print, and by
// color-blind readers.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "../../examples/common/progress.hpp"
#include "document.hpp"

namespace compare {

struct plot_point {
  double x, y, low = std::nan(""), high = std::nan("");
};

struct plot_line {
  std::string label;
  std::size_t style = 0;  ///< the same method has the same style in all pictures
  std::vector<plot_point> points;
};

struct plot_options {
  std::string title, x_label;
  double y_low = std::nan(""),
         y_high = std::nan("");  ///< the range of the values, if they have one
  bool steps = false;            ///< the lines are step functions
};

/// Round numbers that cover [low, high] in about `count` intervals.
inline std::vector<double> nice_ticks(double low, double high, int count = 5) {
  if (!(high > low)) high = low + 1;
  const double raw = (high - low) / count, power = std::pow(10, std::floor(std::log10(raw)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= raw * 0.999) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  const double first = std::floor(low / step + 1e-9);
  for (double i = first; i * step <= high + step * 1e-9 || ticks.size() < 2; ++i)
    ticks.push_back(i * step);
  if (ticks.back() < high - step * 1e-9) ticks.push_back(ticks.back() + step);
  return ticks;
}

namespace detail {

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

inline std::string tick_text(double value) {
  if (std::abs(value) >= 10'000) return short_number(value);
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", std::abs(value) < 1e-12 ? 0.0 : value);
  return text;
}

/// Moves labels apart so that none covers another, and keeps them between `top` and `bottom`.
inline void spread(std::vector<double>& places, double gap, double top, double bottom) {
  std::vector<std::size_t> order(places.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return places[a] < places[b]; });
  double least = top;
  for (const auto i : order) {
    places[i] = std::max(places[i], least);
    least = places[i] + gap;
  }
  double most = bottom;
  for (auto i = order.rbegin(); i != order.rend(); ++i) {
    places[*i] = std::min(places[*i], most);
    most = places[*i] - gap;
  }
}

inline std::string color(std::size_t style) { return "var(--c" + std::to_string(style % 7) + ")"; }

inline std::string dash(std::size_t style) {
  constexpr std::array<const char*, 5> dashes{"", "7 3", "2 2", "8 3 2 3", "4 4"};
  const std::string pattern = dashes[style % dashes.size()];
  return pattern.empty() ? "" : " stroke-dasharray=\"" + pattern + "\"";
}

inline std::string marker(std::size_t style, double x, double y, const std::string& title = {}) {
  const auto at = [&](double dx, double dy) { return number(x + dx) + "," + number(y + dy) + " "; };
  const auto shape = [&](const std::string& points) {
    return "<polygon points=\"" + points + "\"";
  };
  std::string text;
  switch (style % 6) {
    case 0: text = "<circle cx=\"" + number(x) + "\" cy=\"" + number(y) + "\" r=\"3\""; break;
    case 1: text = shape(at(-2.7, -2.7) + at(2.7, -2.7) + at(2.7, 2.7) + at(-2.7, 2.7)); break;
    case 2: text = shape(at(0, -3.6) + at(3.3, 2.4) + at(-3.3, 2.4)); break;
    case 3: text = shape(at(0, -4) + at(3.4, 0) + at(0, 4) + at(-3.4, 0)); break;
    case 4: text = shape(at(0, 3.6) + at(3.3, -2.4) + at(-3.3, -2.4)); break;
    default:
      text = shape(at(-1, -3.6) + at(1, -3.6) + at(1, -1) + at(3.6, -1) + at(3.6, 1) + at(1, 1) +
                   at(1, 3.6) + at(-1, 3.6) + at(-1, 1) + at(-3.6, 1) + at(-3.6, -1) + at(-1, -1));
  }
  text += " fill=\"" + color(style) + "\"";
  return text + (title.empty() ? "/>"
                               : "><title>" + html_text(title) + "</title></" +
                                     (style % 6 == 0 ? "circle>" : "polygon>"));
}

inline std::string label(double x, double y, const std::string& text,
                         const std::string& more = {}) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" fill=\"var(--ink)\"" + more + ">" +
         html_text(text) + "</text>";
}

inline std::string begin_svg(double width, double height, const std::string& title) {
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 " + number(width) + " " +
         number(height) + "\" role=\"img\" aria-label=\"" + html_text(title) +
         "\" font-size=\"12\">" + label(8, 16, title, " font-weight=\"600\"");
}

/// The frame of a picture: where values are, and the axes.
struct frame {
  double left = 46, right = 348, top = 30, bottom = 236, width = 470, height = 278;
  double x0, x1, y0, y1;
  double x(double value) const { return left + (value - x0) / (x1 - x0) * (right - left); }
  double y(double value) const { return bottom - (value - y0) / (y1 - y0) * (bottom - top); }

  std::string axes(const std::vector<double>& xs, const std::vector<double>& ys,
                   const std::string& x_label) const {
    std::string text;
    for (const double tick : ys)
      text += "<line x1=\"" + number(left) + "\" x2=\"" + number(right) + "\" y1=\"" +
              number(y(tick)) + "\" y2=\"" + number(y(tick)) + "\" stroke=\"var(--line)\"/>" +
              label(left - 5, y(tick) + 4, tick_text(tick), " text-anchor=\"end\"");
    for (const double tick : xs)
      text += "<line x1=\"" + number(x(tick)) + "\" x2=\"" + number(x(tick)) + "\" y1=\"" +
              number(bottom) + "\" y2=\"" + number(bottom + 4) + "\" stroke=\"var(--soft)\"/>" +
              label(x(tick), bottom + 17, tick_text(tick), " text-anchor=\"middle\"");
    text += "<line x1=\"" + number(left) + "\" x2=\"" + number(right) + "\" y1=\"" +
            number(bottom) + "\" y2=\"" + number(bottom) + "\" stroke=\"var(--soft)\"/>";
    return text + label((left + right) / 2, height - 6, x_label,
                        " text-anchor=\"middle\" fill-opacity=\".8\"");
  }
};

}  // namespace detail

/// Lines with bands. The axis of values has the range of the measure if it has one, and otherwise
/// contains 0 if the values are not far from it.
inline std::string plot_lines(const std::vector<plot_line>& lines, const plot_options& options) {
  using detail::number;
  double x_low = 1e300, x_high = -1e300, low = 1e300, high = -1e300;
  for (const auto& line : lines)
    for (const auto& p : line.points) {
      x_low = std::min(x_low, p.x);
      x_high = std::max(x_high, p.x);
      for (const double value : {p.y, p.low, p.high})
        if (std::isfinite(value)) {
          low = std::min(low, value);
          high = std::max(high, value);
        }
    }
  if (!(x_high >= x_low)) return {};
  if (low > 0 && low < 0.5 * high) low = 0;
  if (std::isfinite(options.y_low)) low = std::min(low, options.y_low);
  if (std::isfinite(options.y_high)) high = std::max(high, options.y_high);
  detail::frame in;
  const auto ys = nice_ticks(low, high);
  in.y0 = ys.front();
  in.y1 = ys.back();
  auto xs = nice_ticks(x_low, x_high, 4);
  in.x0 = x_low;
  in.x1 = x_high > x_low ? x_high : x_low + 1;
  std::erase_if(xs, [&](double tick) { return tick < in.x0 || tick > in.x1 * (1 + 1e-9); });
  auto text =
      detail::begin_svg(in.width, in.height, options.title) + in.axes(xs, ys, options.x_label);

  for (const auto& line : lines) {  // bands lie under all lines
    std::string upper, lower;
    for (const auto& p : line.points)
      if (std::isfinite(p.low)) upper += number(in.x(p.x)) + "," + number(in.y(p.high)) + " ";
    for (auto p = line.points.rbegin(); p != line.points.rend(); ++p)
      if (std::isfinite(p->low)) lower += number(in.x(p->x)) + "," + number(in.y(p->low)) + " ";
    if (!upper.empty())
      text += "<polygon points=\"" + upper + lower + "\" fill=\"" + detail::color(line.style) +
              "\" fill-opacity=\".16\"/>";
  }
  std::vector<double> places;
  for (std::size_t l = 0; l < lines.size(); ++l) {
    const auto& line = lines[l];
    if (line.points.empty()) {
      places.push_back(in.bottom);
      continue;
    }
    std::string path;
    double before = 0;
    for (std::size_t i = 0; i < line.points.size(); ++i) {
      const auto& p = line.points[i];
      if (i > 0 && options.steps) path += number(in.x(p.x)) + "," + number(before) + " ";
      before = in.y(p.y);
      path += number(in.x(p.x)) + "," + number(before) + " ";
    }
    text += "<polyline points=\"" + path + "\" fill=\"none\" stroke=\"" +
            detail::color(line.style) + "\" stroke-width=\"1.8\"" + detail::dash(line.style) + "/>";
    // markers at different places for each line, so that they do not cover each other
    const double gap = (in.right - in.left) / 4;
    double next =
        in.left + gap * (0.3 + static_cast<double>(l) / static_cast<double>(lines.size()));
    for (const auto& p : line.points)
      if (in.x(p.x) >= next) {
        text += detail::marker(
            line.style, in.x(p.x), in.y(p.y),
            line.label + ": " + detail::tick_text(p.y) + " at " + detail::tick_text(p.x));
        next += gap;
      }
    places.push_back(in.y(line.points.back().y));
  }
  auto moved = places;
  detail::spread(moved, 14, in.top + 4, in.bottom);
  for (std::size_t l = 0; l < lines.size(); ++l) {
    if (lines[l].points.empty()) continue;
    const double x = in.x(lines[l].points.back().x);
    text += "<polyline points=\"" + number(x) + "," + number(places[l]) + " " +
            number(in.right + 10) + "," + number(moved[l]) + "\" fill=\"none\" stroke=\"" +
            detail::color(lines[l].style) + "\" stroke-opacity=\".6\"/>" +
            detail::marker(lines[l].style, in.right + 14, moved[l]) +
            detail::label(in.right + 21, moved[l] + 4, lines[l].label);
  }
  return text + "</svg>";
}

/// One row for each method: its seeds, its mean, and its interval.
inline std::string plot_rows(const std::vector<plot_line>& lines, const plot_options& options) {
  using detail::number;
  double low = 1e300, high = -1e300;
  for (const auto& line : lines)
    for (const auto& p : line.points) {
      low = std::min(low, p.x);
      high = std::max(high, p.x);
    }
  if (!(high >= low)) return {};
  if (low > 0 && low < 0.5 * high) low = 0;
  if (std::isfinite(options.y_low)) low = std::min(low, options.y_low);
  if (std::isfinite(options.y_high)) high = std::max(high, options.y_high);
  detail::frame in;
  in.left = 118;
  in.right = 454;
  in.bottom = in.top + 26 * static_cast<double>(lines.size()) + 4;
  in.height = in.bottom + 42;
  const auto xs = nice_ticks(low, high);
  in.x0 = xs.front();
  in.x1 = xs.back();
  in.y0 = 0;
  in.y1 = 1;
  auto text =
      detail::begin_svg(in.width, in.height, options.title) + in.axes(xs, {}, options.x_label);
  for (std::size_t l = 0; l < lines.size(); ++l) {
    const double y = in.top + 26 * static_cast<double>(l) + 15;
    const auto& line = lines[l];
    text += detail::label(in.left - 10, y + 4, line.label, " text-anchor=\"end\"");
    for (std::size_t i = 0; i + 1 < line.points.size(); ++i) {  // the last point is the mean
      // equal values do not cover each other
      const double shift = 3.0 * (static_cast<double>(i % 3) - 1);
      text += "<g opacity=\".55\">" +
              detail::marker(line.style, in.x(line.points[i].x), y + shift,
                             line.label + ": " + detail::tick_text(line.points[i].x)) +
              "</g>";
    }
    if (line.points.empty()) continue;
    const auto& mean = line.points.back();
    if (std::isfinite(mean.low))
      text += "<line x1=\"" + number(in.x(mean.low)) + "\" x2=\"" + number(in.x(mean.high)) +
              "\" y1=\"" + number(y) + "\" y2=\"" + number(y) +
              "\" stroke=\"var(--ink)\" stroke-width=\"2\"/>";
    text += "<line x1=\"" + number(in.x(mean.x)) + "\" x2=\"" + number(in.x(mean.x)) + "\" y1=\"" +
            number(y - 8) + "\" y2=\"" + number(y + 8) +
            "\" stroke=\"var(--ink)\" stroke-width=\"2.5\"/>";
  }
  return text + "</svg>";
}

}  // namespace compare
