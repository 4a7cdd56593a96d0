// SPDX-License-Identifier: MIT
// Pictures of many runs: the success in the far room and the return, over training and at the end.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "../common/pictures.hpp"
#include "../common/table.hpp"
#include "runs.hpp"

namespace montezuma {
namespace detail {

/// (step, value) of a column. Skips rows without a value.
inline std::vector<std::pair<double, double>> points_of(const finished_run& run,
                                                        const std::string& name) {
  std::vector<std::pair<double, double>> points;
  const auto steps = run.curves.find("global_step"), values = run.curves.find(name);
  if (steps == run.curves.end() || values == run.curves.end()) return points;
  for (std::size_t i = 0; i < std::min(steps->second.size(), values->second.size()); ++i)
    if (std::isfinite(values->second[i])) points.emplace_back(steps->second[i], values->second[i]);
  return points;
}

/// The range of a return is known for the maps, but not for the real game.
inline bool of_pyramid(const run_group& group) {
  return group.methods.front().second.front()->map != "ale";
}
inline std::string title_of(const run_group& group) {
  return (of_pyramid(group) ? "Pyramid, " : "Montezuma's Revenge, ") + group.title;
}

struct curve_panel {
  std::string column, title, unit, highest;
};

/// The pyramid: the success in the far room, and from room 1 the return (at most 8 in the maps) and
/// the number of rooms visited (of 8). The real game: the success, the return from where the
/// teacher's training began if that was in several places, and the return from room 1.
inline std::array<curve_panel, 3> panels_of(const finished_run& run) {
  const bool pyramid = run.map != "ale",
             places = !pyramid && !points_of(run, "places/return").empty();
  const curve_panel kept{"far/success",
                         "What is kept: success in room " + std::to_string(run.far_room),
                         "share of games", "1"},
      reached{"start/return", "What is reached: return from room 1", "mean return",
              pyramid ? "8" : "*"},
      visited{"start/rooms", "What is visited: rooms from room 1", "mean number of rooms",
              pyramid ? "8" : "*"};
  if (places)
    return {kept,
            {"places/return", "What is kept: return from the teacher's places", "mean return", "*"},
            reached};
  return {kept, reached, visited};
}

/// The upper end of a panel's axis. gnuplot itself would take [0:1] for a method that is always 0,
/// and cut off the others.
inline std::string highest_of(const run_group& group, const curve_panel& panel) {
  if (panel.highest != "*") return panel.highest;
  double highest = 0;
  for (const auto& [method, runs] : group.methods)
    for (const auto* run : runs)
      for (const auto& [step, value] : points_of(*run, panel.column))
        highest = std::max(highest, value);
  return highest > 0 ? decimals(1.05 * highest, 2) : "1";
}

}  // namespace detail

/// Three panels over training: see detail::panels_of. Writes STEM.png and STEM.svg.
inline bool draw_curves(const run_group& group, const std::filesystem::path& stem) {
  const auto data_path = data_of(stem);
  std::ostringstream data;
  const auto* some = group.methods.front().second.front();
  const auto shown = detail::panels_of(*some);
  std::array<std::string, 3> panels;
  int index = 0;
  for (const auto& [method, runs] : group.methods)
    for (std::size_t panel = 0; panel < panels.size(); ++panel, ++index) {
      data << "# " << method << ": thousand steps, mean, low, high\n"
           << curve_text(runs,
                         [&](const finished_run& run) {
                           return detail::points_of(run, shown[panel].column);
                         })
           << "\n\n";
      panels[panel] += (panels[panel].empty() ? "" : ", ") + curve_plot(data_path, index, method);
    }
  write_file(data_path, data.str());
  long last = 0;
  for (const auto& [method, runs] : group.methods)
    for (const auto* run : runs) last = std::max(last, run->steps);
  std::ostringstream script;
  script << "set multiplot layout 1,3 title "
         << gnuplot::quoted(detail::title_of(group) + ": mean over " + seeds_text(group) +
                            ", band: 95 % interval")
         << " font ',12'"
         << " margins 0.05,0.985,0.24,0.84 spacing 0.055,0\n"
         << "set xlabel 'training steps from room 1 (thousands)'\nset border 3\nset tics "
            "nomirror\nset xrange [0:"
         << last / 1000 << "]\nset key off\n"
         << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n";
  for (std::size_t panel = 0; panel < panels.size(); ++panel)
    script << "set yrange [0:" << detail::highest_of(group, shown[panel]) << "]\nset title "
           << gnuplot::quoted(shown[panel].title) << "\nset ylabel "
           << gnuplot::quoted(shown[panel].unit) << "\nplot " << panels[panel] << "\n";
  script << "set lmargin at screen 0.05\nset rmargin at screen 0.985\nset bmargin at screen 0\nset "
            "tmargin at screen 0.1\n"
         << "unset border\nunset tics\nunset title\nunset xlabel\nunset ylabel\nset grid noxtics "
            "noytics\n"
         << "set key center center horizontal samplen 2\nset xrange [0:1]\nset yrange [0:1]\nplot "
         << legend_plot(group) << "\nunset multiplot\nreset";
  return gnuplot::draw(stem, script.str(), 1400, 430);
}

/// Return from room 1 over training, by method: one point per seed, and the mean with its interval.
inline bool draw_points(const run_group& group, const std::filesystem::path& stem) {
  return draw_method_points(
      group, stem, detail::title_of(group), "return from room 1, mean over training",
      detail::of_pyramid(group) ? 8 : 0,
      [](const auto& runs) { return values_over(runs, measures()[return_mean]); });
}

}  // namespace montezuma
