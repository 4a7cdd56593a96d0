// SPDX-License-Identifier: MIT
// Shared code for pictures and tables of many runs. A group has a `title` and `methods`: pairs
// (name, runs) in the order of the tables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "comparison.hpp"
#include "files.hpp"
#include "gnuplot.hpp"
#include "methods.hpp"
#include "statistics.hpp"
#include "table.hpp"

/// The number of seeds as text, for example "3 seeds" or "2 to 3 seeds".
template <class Group>
std::string seeds_text(const Group& group) {
  std::size_t least = group.methods.front().second.size(), most = least;
  for (const auto& [method, runs] : group.methods) {
    least = std::min(least, runs.size());
    most = std::max(most, runs.size());
  }
  return (least == most ? "" : std::to_string(least) + " to ") + std::to_string(most) +
         (most == 1 ? " seed" : " seeds");
}

/// The path of the file with the data of a picture.
inline std::filesystem::path data_of(std::filesystem::path stem) { return stem += ".dat"; }

/// Returns one text line per step: steps in thousands, the mean over runs, and the ends of the 95
/// % interval. For a single run, the interval has no width. `points_of(run)` returns the pairs
/// (step, value) of a run.
template <class Runs, class Points>
std::string curve_text(const Runs& runs, Points points_of) {
  std::map<double, std::vector<double>> at;
  for (const auto* run : runs)
    for (const auto& [step, value] : points_of(*run)) at[step].push_back(value);
  std::ostringstream text;
  for (const auto& [step, values] : at) {
    const auto interval = statistics::bootstrap_interval(values, {.resamples = 500});
    text << step / 1000 << ' ' << statistics::mean(values) << ' ' << interval.low << ' '
         << interval.high << '\n';
  }
  if (at.empty()) text << "NaN NaN NaN NaN\n";
  return text.str();
}

/// The gnuplot commands that draw block `index` of the curve_text() lines: a band with its mean.
inline std::string curve_plot(const std::filesystem::path& data, int index,
                              const std::string& method) {
  const std::string color = std::string("'") + color_of(method) + "'",
                    source = gnuplot::quoted(data.string()) + " index " + std::to_string(index);
  return source + " using 1:3:4 with filledcurves fillcolor rgb " + color +
         " fillstyle transparent solid 0.13 notitle, " + source +
         " using 1:2 with lines linewidth 2.2 linecolor rgb " + color + " notitle";
}

/// The gnuplot commands for a legend without curves, for a picture with several plots.
template <class Group>
std::string legend_plot(const Group& group) {
  std::string legend;
  for (const auto& [method, runs] : group.methods)
    legend += (legend.empty() ? "" : ", ") +
              std::string("NaN with lines linewidth 2.5 linecolor rgb '") + color_of(method) +
              "' title " + gnuplot::quoted(legend_of(method));
  return legend;
}

/// Draws one measure for each method: one point per run, and the mean with its 95 % interval.
/// Writes STEM.png, STEM.svg and STEM.dat. `values_of(runs)` returns the values of the runs that
/// have one. The y axis ends at `greatest`; 0 means at the largest value.
template <class Group, class Values>
bool draw_method_points(const Group& group, const std::filesystem::path& stem,
                        const std::string& title, const std::string& what, double greatest,
                        Values values_of) {
  const auto data_path = data_of(stem);
  std::ostringstream data, tics;
  std::string plots;
  for (std::size_t m = 0; m < group.methods.size(); ++m) {
    const auto& [method, runs] = group.methods[m];
    const std::vector<double> values = values_of(runs);
    data << "# " << method << ": place, value of a seed\n";
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double offset =
          values.size() < 2
              ? 0
              : 0.36 * (static_cast<double>(i) / static_cast<double>(values.size() - 1) - 0.5);
      data << static_cast<double>(m) + offset << ' ' << values[i] << '\n';
    }
    if (values.empty()) data << m << " NaN\n";
    const auto interval = statistics::bootstrap_interval(values);
    data << "\n\n"
         << m << ' ' << statistics::mean(values) << ' ' << interval.low << ' ' << interval.high
         << "\n\n\n";
    tics << (m ? ", " : "") << gnuplot::quoted(legend_of(method)) << ' ' << m;
    const std::string color = std::string("'") + color_of(method) + "'",
                      source = gnuplot::quoted(data_path.string()) + " index ";
    plots +=
        (plots.empty() ? "" : ", ") + source + std::to_string(2 * m) +
        " using 1:2 with points pointtype 7 pointsize 0.8 linecolor rgb " + color + " notitle, " +
        source + std::to_string(2 * m + 1) +
        " using 1:2:3:4 with yerrorbars pointtype 5 pointsize 1.4 linewidth 2.5 linecolor rgb " +
        color + " notitle";
  }
  write_file(data_path, data.str());
  std::ostringstream script;
  script << "set title " << gnuplot::quoted(title) << " . \"\\n\" . "
         << gnuplot::quoted("square: mean over " + seeds_text(group) +
                            ", bar: its 95 % interval, dot: one seed")
         << "\nset ylabel " << gnuplot::quoted(what)
         << "\nset grid ytics back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n"
         << "set border 3\nset tics nomirror\nset xrange [-0.6:"
         << static_cast<double>(group.methods.size()) - 0.4
         << "]\nset yrange [0:" << (greatest > 0 ? decimals(greatest, 2) : "*") << "]\nset xtics ("
         << tics.str() << ")\nplot " << plots;
  return gnuplot::draw(stem, script.str() + "\nreset", 900, 480);
}

/// A Markdown table that compares every method with every other method. `differences(one, other)`
/// returns the differences between the runs of two methods, seed by seed.
template <class Group, class Differences>
std::string paired_table(const Group& group, const std::string& what, Differences differences) {
  std::vector<std::string> against{"row − column, " + what};
  for (const auto& [method, seeds] : group.methods) against.push_back(method);
  text_table order(against);
  for (const auto& [method, seeds] : group.methods) {
    std::vector<std::string> row{method};
    for (const auto& [other, others] : group.methods)
      row.push_back(other == method ? "–" : difference_text(differences(seeds, others), 2));
    order.add(row);
  }
  return "Differences per seed, from the same teacher: mean [95 % interval over seeds], seeds "
         "above zero. With so many intervals, at least one in twenty does not contain zero by "
         "chance.\n\n" +
         order.markdown() + "\n";
}

/// Draws the pictures of each group into `out` and returns Markdown that shows them.
template <class Groups, class Curves, class Points>
std::string draw_groups(const Groups& groups, const std::filesystem::path& out, Curves draw_curves,
                        Points draw_points) {
  std::string markdown;
  for (const auto& group : groups) {
    if (draw_curves(group, out / ("curves-" + group.slug)))
      markdown += "![" + group.title + ", over training](curves-" + group.slug + ".png)\n\n";
    if (draw_points(group, out / ("points-" + group.slug)))
      markdown += "![" + group.title + ", each seed](points-" + group.slug + ".png)\n\n";
  }
  return markdown;
}
