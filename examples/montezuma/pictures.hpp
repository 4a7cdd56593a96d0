// SPDX-License-Identifier: MIT
// Pictures of many runs: what is kept and what is reached, over training and at the end.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
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

namespace montezuma {
namespace detail {

/// A column over training steps: mean and 95 % interval over seeds; the value alone for one seed.
inline std::string curve_text(const std::vector<const finished_run*>& runs, const std::string& name) {
  std::map<double, std::vector<double>> at;
  for (const auto* run : runs) {
    const auto steps = run->curves.find("global_step"), values = run->curves.find(name);
    if (steps == run->curves.end() || values == run->curves.end()) continue;
    for (std::size_t i = 0; i < std::min(steps->second.size(), values->second.size()); ++i)
      if (std::isfinite(values->second[i])) at[steps->second[i]].push_back(values->second[i]);
  }
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

}  // namespace detail

/// Over training: success in the far room; from room 1 the return, of which 8 is the greatest that the maps pay, and the rooms visited, of which
/// there are 8. STEM.png, STEM.svg.
inline bool draw_curves(const run_group& group, const std::filesystem::path& stem) {
  const auto data_path = detail::data_of(stem);
  std::ostringstream data;
  constexpr std::array<const char*, 3> columns{"far/success", "start/return", "start/rooms"};
  std::array<std::string, columns.size()> panels;
  std::string legend;
  int index = 0;
  for (const auto& [method, runs] : group.methods) {
    const std::string color = std::string("'") + color_of(method) + "'";
    for (std::size_t panel = 0; panel < panels.size(); ++panel, ++index) {
      data << "# " << method << ": thousand steps, mean, low, high\n" << detail::curve_text(runs, columns[panel]) << "\n\n";
      const auto source = gnuplot::quoted(data_path.string()) + " index " + std::to_string(index);
      panels[panel] += (panels[panel].empty() ? "" : ", ") + source + " using 1:3:4 with filledcurves fillcolor rgb " + color +
                       " fillstyle transparent solid 0.15 notitle, " + source + " using 1:2 with lines linewidth 2.2 linecolor rgb " + color + " notitle";
    }
    legend += (legend.empty() ? "" : ", ") + std::string("NaN with lines linewidth 2.5 linecolor rgb ") + color + " title " + gnuplot::quoted(legend_of(method));
  }
  write_file(data_path, data.str());
  const auto* some = group.methods.front().second.front();
  long last = 0;
  for (const auto& [method, runs] : group.methods)
    for (const auto* run : runs) last = std::max(last, run->steps);
  std::ostringstream script;
  script << "set multiplot layout 1,3 title " << gnuplot::quoted("Pyramid, " + group.title + ": mean over " + detail::seeds_text(group) + ", band: 95 % interval") << " font ',12'"
         << " margins 0.05,0.985,0.24,0.84 spacing 0.055,0\n"
         << "set xlabel 'training steps from room 1 (thousands)'\nset border 3\nset tics nomirror\nset xrange [0:" << last / 1000 << "]\nset key off\n"
         << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n"
         << "set yrange [0:1]\nset title 'What is kept: success in room " << some->far_room << "'\nset ylabel 'share of games'\nplot " << panels[0]
         << "\nset yrange [0:8]\nset title 'What is reached: return from room 1'\nset ylabel 'mean return'\nplot " << panels[1]
         << "\nset title 'How far it comes: rooms from room 1'\nset ylabel 'mean number of rooms'\nplot " << panels[2] << "\n"
         << "set lmargin at screen 0.05\nset rmargin at screen 0.985\nset bmargin at screen 0\nset tmargin at screen 0.1\n"
         << "unset border\nunset tics\nunset title\nunset xlabel\nunset ylabel\nset grid noxtics noytics\n"
         << "set key center center horizontal samplen 2\nset xrange [0:1]\nset yrange [0:1]\nplot " << legend << "\nunset multiplot\nreset";
  return gnuplot::draw(stem, script.str(), 1400, 430);
}

/// Return from room 1 over training by method: a point a seed, the mean with its interval.
inline bool draw_points(const run_group& group, const std::filesystem::path& stem) {
  const auto data_path = detail::data_of(stem);
  std::ostringstream data, tics;
  std::string plots;
  for (std::size_t m = 0; m < group.methods.size(); ++m) {
    const auto& [method, runs] = group.methods[m];
    const auto values = values_over(runs, measures()[return_mean]);
    data << "# " << method << ": place, return of a seed\n";
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double offset = values.size() < 2 ? 0 : 0.36 * (static_cast<double>(i) / static_cast<double>(values.size() - 1) - 0.5);
      data << static_cast<double>(m) + offset << ' ' << values[i] << '\n';
    }
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
  script << "set title " << gnuplot::quoted("Pyramid, " + group.title) << " . \"\\n\" . "
         << gnuplot::quoted("square: mean over " + detail::seeds_text(group) + ", bar: its 95 % interval, dot: one seed")
         << "\nset ylabel 'return from room 1, mean over training'\nset grid ytics back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n"
         << "set border 3\nset tics nomirror\nset xrange [-0.6:" << static_cast<double>(group.methods.size()) - 0.4 << "]\nset yrange [0:8]\n"
         << "set xtics (" << tics.str() << ")\nplot " << plots;
  return gnuplot::draw(stem, script.str() + "\nreset", 900, 480);
}

}  // namespace montezuma
