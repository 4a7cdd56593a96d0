// SPDX-License-Identifier: MIT
// Pictures of many runs: scores by method, and score and forgetting over training.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <map>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "../common/columns.hpp"
#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "../common/methods.hpp"
#include "../common/statistics.hpp"
#include "../common/table.hpp"
#include "runs.hpp"

namespace nethack {

namespace detail {

struct curve_point {
  double step, value, low, high;
};

/// Mean and 95 % interval of the training games that ended within a window before each of forty
/// steps: over games for one seed, over the means of the seeds for several.
inline std::vector<curve_point> score_curve(const std::vector<const evaluated*>& runs) {
  std::vector<std::map<std::string, std::vector<double>>> episodes;
  double last = 0;
  for (const auto* run : runs) {
    episodes.push_back(read_columns(run->folder / "episodes.csv"));
    for (const double step : episodes.back()["step"]) last = std::max(last, step);
  }
  std::vector<curve_point> curve;
  constexpr int points = 40;
  const double window = last / 8;
  const statistics::bootstrap_options quick{.resamples = 500};
  for (int i = 1; i <= points; ++i) {
    const double step = last * i / points;
    if (step < window / 2) continue;
    std::vector<double> games, seeds;
    for (auto& run : episodes) {
      const auto &steps = run["step"], &score = run["score"];
      std::vector<double> inside;
      for (std::size_t j = 0; j < std::min(steps.size(), score.size()); ++j)
        if (steps[j] > step - window && steps[j] <= step) inside.push_back(score[j]);
      if (inside.size() < 4) continue;
      seeds.push_back(statistics::mean(inside));
      games.insert(games.end(), inside.begin(), inside.end());
    }
    if (seeds.empty()) continue;
    const auto interval = statistics::bootstrap_interval(runs.size() > 1 ? seeds : games, quick);
    curve.push_back({step, statistics::mean(seeds), interval.low, interval.high});
  }
  return curve;
}

/// A column of metrics.csv, as mean and full range over seeds. Zeros are skipped, because the axis
/// is logarithmic.
inline std::vector<curve_point> metric_curve(const std::vector<const evaluated*>& runs,
                                             const std::string& name) {
  std::map<double, std::vector<double>> values;
  for (const auto* run : runs) {
    auto by_name = read_columns(run->folder / "metrics.csv");
    const auto &steps = by_name["global_step"], &values_there = by_name[name];
    for (std::size_t i = 0; i < std::min(steps.size(), values_there.size()); ++i)
      if (values_there[i] > 0) values[steps[i]].push_back(values_there[i]);
  }
  std::vector<curve_point> curve;
  for (const auto& [step, at] : values) {
    const auto [low, high] = std::minmax_element(at.begin(), at.end());
    curve.push_back({step, statistics::mean(at), *low, *high});
  }
  return curve;
}

inline void write_curve(std::ostream& data, const std::vector<curve_point>& curve) {
  for (const auto& point : curve)
    data << point.step / 1000 << ' ' << point.value << ' ' << point.low << ' ' << point.high
         << '\n';
  if (curve.empty()) data << "NaN NaN NaN NaN\n";
  data << "\n\n";
}

}  // namespace detail

/// Score and KL over training steps in three panels. Writes STEM.png and STEM.svg.
inline bool draw_curves(const run_group& group, const evaluated* clone,
                        const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  std::ostringstream data;
  std::array<std::string, 3> panels;
  std::string legend;  // one legend below all panels, drawn as an empty plot
  int index = 0;
  for (const auto& [method, runs] : group.methods) {
    const std::array<std::vector<detail::curve_point>, 3> curves{
        detail::score_curve(runs), detail::metric_curve(runs, "kl/close"),
        detail::metric_curve(runs, "kl/far")};
    for (std::size_t panel = 0; panel < 3; ++panel, ++index) {
      data << "# " << method << ": thousand steps, value, low, high\n";
      detail::write_curve(data, curves[panel]);
      if (curves[panel].empty()) continue;
      const std::string source = (panels[panel].empty() ? "" : ", ") +
                                 gnuplot::quoted(data_path.string()) + " index " +
                                 std::to_string(index) + " using ";
      const std::string color = std::string("'") + color_of(method) + "'";
      panels[panel] += source + "1:3:4 with filledcurves fillcolor rgb " + color +
                       " fillstyle transparent solid 0.15 notitle, " +
                       gnuplot::quoted(data_path.string()) + " index " + std::to_string(index) +
                       " using 1:2 with lines linewidth 2.5 linecolor rgb " + color + " notitle";
    }
    legend += std::string(legend.empty() ? "" : ", ") +
              "NaN with lines linewidth 2.5 linecolor rgb '" + color_of(method) + "' title " +
              gnuplot::quoted(legend_of(method));
  }
  write_file(data_path, data.str());
  const std::string dashed =
      " with lines dashtype 2 linewidth 1.5 linecolor rgb '#000000' title 'the clone, evaluated'";
  if (clone != nullptr) {
    panels[0] +=
        std::string(panels[0].empty() ? "" : ", ") + decimals(measures()[0].of(*clone), 2) + dashed;
    legend += ", NaN" + dashed;
  }
  const bool one_seed = std::all_of(group.methods.begin(), group.methods.end(),
                                    [](const auto& m) { return m.second.size() == 1; });
  std::ostringstream script;
  script << "set multiplot layout 1,3 title " << gnuplot::quoted("NetHack: " + group.title)
         << " font ',13'"
         << " margins 0.05,0.985,0.24,0.85 spacing 0.07,0\n"
         << "set xlabel 'training steps (thousands)'\nset border 3\nset tics nomirror\nset xrange "
            "[0:*]\nset key off\n"
         << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n";
  const std::array<std::string, 3> titles{"Score of training games",
                                          "Forgetting near: dungeon level 1 (CLOSE)",
                                          "Forgetting far: dungeon level 3 and deeper (FAR)"};
  const std::array<std::string, 3> units{
      std::string("mean points; band: 95 % over ") + (one_seed ? "games" : "seeds"),
      std::string("KL(clone ‖ policy), nats") + (one_seed ? "" : "; band: all seeds"),
      std::string("KL(clone ‖ policy), nats") + (one_seed ? "" : "; band: all seeds")};
  for (std::size_t panel = 0; panel < 3; ++panel) {
    if (panels[panel].empty()) {
      script << "set multiplot next\n";
      continue;
    }
    // Runs with and without retention differ by a factor of ten and more, so the scale is
    // logarithmic.
    script << (panel == 0 ? "set yrange [0:*]\n" : "set logscale y\nset yrange [0.002:*]\n")
           << "set title " << gnuplot::quoted(titles[panel]) << "\nset ylabel "
           << gnuplot::quoted(units[panel]) << "\nplot " << panels[panel] << "\n";
  }
  script << "set lmargin at screen 0.05\nset rmargin at screen 0.985\nset bmargin at screen 0\nset "
            "tmargin at screen 0.1\n"
         << "unset logscale\nunset border\nunset tics\nunset title\nunset xlabel\nunset "
            "ylabel\nset grid noxtics noytics\n"
         << "set key center center horizontal samplen 2\nset xrange [0:1]\nset yrange [0:1]\nplot "
         << legend << "\nunset multiplot\nreset";
  return gnuplot::draw(stem, script.str(), 1500, 520);
}

/// Score of new games by method: one point per seed, and the mean with its interval over seeds.
inline bool draw_scores(const run_group& group, const std::vector<evaluated>& runs,
                        const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  std::ostringstream data, tics;
  std::string plots;
  const auto source = gnuplot::quoted(data_path.string());
  for (std::size_t m = 0; m < group.methods.size(); ++m) {
    const auto& [method, seeds] = group.methods[m];
    const auto values = values_over(seeds, measures()[0]);
    data << "# " << method << ": place, score of a seed\n";
    for (std::size_t i = 0; i < values.size(); ++i) {
      const double offset =
          values.size() < 2
              ? 0
              : 0.36 * (static_cast<double>(i) / static_cast<double>(values.size() - 1) - 0.5);
      data << static_cast<double>(m) + offset << ' ' << values[i] << '\n';
    }
    const auto interval = statistics::bootstrap_interval(values);
    data << "\n\n"
         << m << ' ' << statistics::mean(values) << ' ' << interval.low << ' ' << interval.high
         << "\n\n\n";
    tics << (m ? ", " : "") << gnuplot::quoted(legend_of(method)) << ' ' << m;
    const std::string color = std::string("'") + color_of(method) + "'";
    plots +=
        (plots.empty() ? "" : ", ") + source + " index " + std::to_string(2 * m) +
        " using 1:2 with points pointtype 7 pointsize 0.8 linecolor rgb " + color + " notitle, " +
        source + " index " + std::to_string(2 * m + 1) +
        " using 1:2:3:4 with yerrorbars pointtype 5 pointsize 1.4 linewidth 2.5 linecolor rgb " +
        color + " notitle";
  }
  for (const auto& [name, dash] : {std::pair{"player", 3}, std::pair{"clone", 2}})
    if (const auto* reference = find_reference(runs, name))
      plots += ", " + decimals(measures()[0].of(*reference), 2) + " with lines dashtype " +
               std::to_string(dash) + " linewidth 1.5 linecolor rgb '#000000' title " +
               gnuplot::quoted(name == std::string("player") ? "scripted player" : "clone");
  write_file(data_path, data.str());
  std::ostringstream script;
  script << "set title " << gnuplot::quoted("NetHack, new games: " + group.title) << " . \"\\n\" . "
         << gnuplot::quoted("square: mean over seeds, bar: its 95 % interval, dot: one seed")
         << "\nset ylabel 'mean score of a policy (points)'\n"
         << "set grid ytics back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\n"
         << "set border 3\nset tics nomirror\nset key top left Left reverse\n"
         << "set xrange [-0.6:" << static_cast<double>(group.methods.size()) - 0.4
         << "]\nset yrange [0:*]\n"
         << "set xtics (" << tics.str() << ")\nplot " << plots;
  return gnuplot::draw(stem, script.str() + "\nreset", 1000, 560);
}

/// "careful recipe, training games of 300 turns" → "careful-300".
inline std::string group_slug(const run_group& group) {
  const auto* run = group.methods.front().second.front();
  return run->recipe + "-" + std::to_string(run->training_turns);
}

}  // namespace nethack
