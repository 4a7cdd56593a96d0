// SPDX-License-Identifier: MIT
// Pictures of many runs: the success in known and in new stages, over training and at the end.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "../common/pictures.hpp"
#include "runs.hpp"

namespace robotic_sequence {
namespace detail {

/// One panel of a picture: what it shows, and the number of steps.
struct panel {
  std::string title;
  std::size_t source;  ///< index among the measured stages
  double thousand_steps;
};

/// The whole sequence, every stage, and the first 10 000 steps of the known stages, because these
/// may be lost within 10 000 steps.
inline std::vector<panel> panels_of(const run_group& group,
                                    const std::vector<std::string>& measured) {
  const double all_steps = static_cast<double>(group.steps) / 1000, first_steps = 10;
  std::vector<panel> panels;
  for (std::size_t i = 0; i < measured.size(); ++i)
    panels.push_back({measured[i] == whole
                          ? "whole sequence"
                          : measured[i] + (is_far(measured[i]) ? " (known)" : " (new)"),
                      i, all_steps});
  if (all_steps >= 3 * first_steps)
    for (std::size_t i = 0; i < measured.size(); ++i)
      if (is_far(measured[i]))
        panels.push_back({measured[i] + ", first 10 000 steps", i, first_steps});
  return panels;
}

}  // namespace detail

/// Success in the whole sequence and from the start of each stage, over training. Writes STEM.png
/// and STEM.svg.
inline bool draw_curves(const run_group& group, const std::filesystem::path& stem) {
  std::vector<std::string> measured{whole};
  measured.insert(measured.end(), group.stages.begin(), group.stages.end());
  const auto data_path = data_of(stem);
  std::ostringstream data;
  std::vector<std::string> plots(measured.size());
  int index = 0;
  for (const auto& [method, runs] : group.methods)
    for (std::size_t i = 0; i < measured.size(); ++i, ++index) {
      data << "# " << method << ", " << measured[i] << ": thousand steps, mean, low, high\n"
           << curve_text(runs,
                         [&](const finished_run& run) { return success_curve(run, measured[i]); })
           << "\n\n";
      plots[i] += (plots[i].empty() ? "" : ", ") + curve_plot(data_path, index, method);
    }
  write_file(data_path, data.str());
  const auto panels = detail::panels_of(group, measured);
  const auto gaps = [&](std::size_t width) { return (width - panels.size() % width) % width; };
  const std::size_t columns = gaps(3) <= gaps(4) ? 3 : 4,
                    rows = (panels.size() + columns - 1) / columns;
  const int height = 90 + 250 * static_cast<int>(rows);
  const double bottom = 92.0 / height, top = 1 - 58.0 / height;
  std::ostringstream script;
  script << "set multiplot layout " << rows << ',' << columns << " title "
         << gnuplot::quoted("Robotic sequence: " + group.title + "; mean success over " +
                            seeds_text(group) + ", band: 95 % interval")
         << " font ',12'"
         << " margins 0.035,0.985," << bottom << ',' << top << " spacing 0.04," << 78.0 / height
         << "\n"
         << "set border 3\nset tics nomirror\nset key off\nset xlabel 'training steps (thousands)' "
            "offset 0,0.4\nset yrange [0:1]\n"
         << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n";
  for (std::size_t i = 0; i < panels.size(); ++i)
    script << "set title " << gnuplot::quoted(panels[i].title)
           << " offset 0,-0.5\nset xrange [0:" << panels[i].thousand_steps << "]\nplot "
           << plots[panels[i].source] << "\n";
  script << "set lmargin at screen 0.05\nset rmargin at screen 0.985\nset bmargin at screen 0\nset "
            "tmargin at screen "
         << 36.0 / height << "\n"
         << "unset border\nunset tics\nunset title\nunset xlabel\nset grid noxtics noytics\n"
         << "set key center center horizontal Left reverse samplen 2\nset xrange [0:1]\nset yrange "
            "[0:1]\nplot "
         << legend_plot(group) << "\nunset multiplot\nreset";
  return gnuplot::draw(stem, script.str(), 1200, height);
}

/// The success in the whole sequence over training, by method: one point per seed, and the mean
/// with its interval.
inline bool draw_points(const run_group& group, const std::filesystem::path& stem) {
  return draw_method_points(
      group, stem, "Robotic sequence: " + group.title,
      "success in the whole sequence, over training", 1, [](const auto& runs) {
        return values_over(runs, [](const finished_run& run) { return mean_success(run, whole); });
      });
}

}  // namespace robotic_sequence
