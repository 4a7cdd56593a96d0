// SPDX-License-Identifier: MIT
// Pictures of many runs: what is kept and what is reached, over training and at the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "../common/methods.hpp"
#include "../common/statistics.hpp"
#include "runs.hpp"

namespace robotic_sequence {
namespace detail {

/// Success over training steps: mean and 95 % interval over seeds; the value alone for one seed.
inline std::string curve_text(const std::vector<const finished_run*>& runs, const std::string& stage) {
  std::map<double, std::vector<double>> at;
  for (const auto* run : runs)
    for (const auto& [step, value] : success_curve(*run, stage)) at[step].push_back(value);
  std::ostringstream text;
  for (const auto& [step, values] : at) {
    const auto interval = statistics::bootstrap_interval(values, {.resamples = 500});
    text << step / 1000 << ' ' << statistics::mean(values) << ' ' << interval.low << ' ' << interval.high << '\n';
  }
  if (at.empty()) text << "NaN NaN NaN NaN\n";
  return text.str();
}

/// "3 seeds", "2 to 3 seeds": a picture of few must say so.
inline std::string seeds_text(const run_group& group) {
  std::size_t least = group.methods.front().second.size(), most = least;
  for (const auto& [method, runs] : group.methods) {
    least = std::min(least, runs.size());
    most = std::max(most, runs.size());
  }
  return (least == most ? "" : std::to_string(least) + " to ") + std::to_string(most) + (most == 1 ? " seed" : " seeds");
}

inline std::filesystem::path data_of(std::filesystem::path stem) { return stem += ".dat"; }

/// One plot of a picture of several: what it shows, and of how many steps.
struct panel {
  std::string title;
  std::size_t source;  ///< place among the measured stages
  double thousand_steps;
};

/// The whole sequence, every stage, and the first 10 000 steps of what is known, which may be lost within them.
inline std::vector<panel> panels_of(const run_group& group, const std::vector<std::string>& measured) {
  const double all_steps = static_cast<double>(group.steps) / 1000, first_steps = 10;
  std::vector<panel> panels;
  for (std::size_t i = 0; i < measured.size(); ++i)
    panels.push_back({measured[i] == whole ? "whole sequence" : measured[i] + (is_far(measured[i]) ? " (known)" : " (new)"), i, all_steps});
  if (all_steps >= 3 * first_steps)
    for (std::size_t i = 0; i < measured.size(); ++i)
      if (is_far(measured[i])) panels.push_back({measured[i] + ", first 10 000 steps", i, first_steps});
  return panels;
}

}  // namespace detail

/// Success in the whole sequence and from the beginning of each stage, over training: STEM.png, STEM.svg.
inline bool draw_curves(const run_group& group, const std::filesystem::path& stem) {
  std::vector<std::string> measured{whole};
  measured.insert(measured.end(), group.stages.begin(), group.stages.end());
  const auto data_path = detail::data_of(stem);
  std::ostringstream data;
  std::vector<std::string> plots(measured.size());
  std::string legend;
  int index = 0;
  for (const auto& [method, runs] : group.methods) {
    const std::string color = std::string("'") + color_of(method) + "'";
    for (std::size_t i = 0; i < measured.size(); ++i, ++index) {
      data << "# " << method << ", " << measured[i] << ": thousand steps, mean, low, high\n" << detail::curve_text(runs, measured[i]) << "\n\n";
      const auto source = gnuplot::quoted(data_path.string()) + " index " + std::to_string(index);
      plots[i] += (plots[i].empty() ? "" : ", ") + source + " using 1:3:4 with filledcurves fillcolor rgb " + color +
                  " fillstyle transparent solid 0.13 notitle, " + source + " using 1:2 with lines linewidth 2.2 linecolor rgb " + color + " notitle";
    }
    legend += (legend.empty() ? "" : ", ") + std::string("NaN with lines linewidth 2.5 linecolor rgb ") + color + " title " +
              gnuplot::quoted(legend_of(method));
  }
  write_file(data_path, data.str());
  const auto panels = detail::panels_of(group, measured);
  const auto gaps = [&](std::size_t width) { return (width - panels.size() % width) % width; };
  const std::size_t columns = gaps(3) <= gaps(4) ? 3 : 4, rows = (panels.size() + columns - 1) / columns;
  const int height = 90 + 250 * static_cast<int>(rows);
  const double bottom = 92.0 / height, top = 1 - 58.0 / height;
  std::ostringstream script;
  script << "set multiplot layout " << rows << ',' << columns << " title "
         << gnuplot::quoted("Robotic sequence: " + group.title + "; mean success over " + detail::seeds_text(group) + ", band: 95 % interval") << " font ',12'"
         << " margins 0.035,0.985," << bottom << ',' << top << " spacing 0.04," << 78.0 / height << "\n"
         << "set border 3\nset tics nomirror\nset key off\nset xlabel 'training steps (thousands)' offset 0,0.4\nset yrange [0:1]\n"
         << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n";
  for (std::size_t i = 0; i < panels.size(); ++i)
    script << "set title " << gnuplot::quoted(panels[i].title) << " offset 0,-0.5\nset xrange [0:" << panels[i].thousand_steps << "]\nplot "
           << plots[panels[i].source] << "\n";
  script << "set lmargin at screen 0.05\nset rmargin at screen 0.985\nset bmargin at screen 0\nset tmargin at screen " << 36.0 / height << "\n"
         << "unset border\nunset tics\nunset title\nunset xlabel\nset grid noxtics noytics\n"
         << "set key center center horizontal Left reverse samplen 2\nset xrange [0:1]\nset yrange [0:1]\nplot " << legend << "\nunset multiplot\nreset";
  return gnuplot::draw(stem, script.str(), 1200, height);
}

/// The whole sequence's success over training by method: a point a seed, the mean with its interval.
inline bool draw_points(const run_group& group, const std::filesystem::path& stem) {
  const auto data_path = detail::data_of(stem);
  std::ostringstream data, tics;
  std::string plots;
  for (std::size_t m = 0; m < group.methods.size(); ++m) {
    const auto& [method, runs] = group.methods[m];
    const auto values = values_over(runs, [](const auto& run) { return mean_success(run, whole); });
    data << "# " << method << ": place, success of a seed\n";
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double offset = values.size() < 2 ? 0 : 0.36 * (static_cast<double>(i) / static_cast<double>(values.size() - 1) - 0.5);
      data << static_cast<double>(m) + offset << ' ' << values[i] << '\n';
    }
    if (values.empty()) data << m << " NaN\n";
    const auto interval = statistics::bootstrap_interval(values);
    data << "\n\n" << m << ' ' << statistics::mean(values) << ' ' << interval.low << ' ' << interval.high << "\n\n\n";
    tics << (m ? ", " : "") << gnuplot::quoted(legend_of(method)) << ' ' << m;
    const std::string color = std::string("'") + color_of(method) + "'", source = gnuplot::quoted(data_path.string()) + " index ";
    plots += (plots.empty() ? "" : ", ") + source + std::to_string(2 * m) + " using 1:2 with points pointtype 7 pointsize 0.8 linecolor rgb " + color +
             " notitle, " + source + std::to_string(2 * m + 1) + " using 1:2:3:4 with yerrorbars pointtype 5 pointsize 1.4 linewidth 2.5 linecolor rgb " +
             color + " notitle";
  }
  write_file(data_path, data.str());
  std::ostringstream script;
  script << "set title " << gnuplot::quoted("Robotic sequence: " + group.title) << " . \"\\n\" . "
         << gnuplot::quoted("square: mean over " + detail::seeds_text(group) + ", bar: its 95 % interval, dot: one seed")
         << "\nset ylabel 'success in the whole sequence, over training'\nset grid ytics back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n"
         << "set border 3\nset tics nomirror\nset xrange [-0.6:" << static_cast<double>(group.methods.size()) - 0.4 << "]\nset yrange [0:1]\n"
         << "set xtics (" << tics.str() << ")\nplot " << plots;
  return gnuplot::draw(stem, script.str() + "\nreset", 900, 480);
}

}  // namespace robotic_sequence
