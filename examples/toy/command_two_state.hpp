// SPDX-License-Identifier: MIT
// The command `toy two-state`.
#pragma once

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "../common/option_checks.hpp"
#include "../common/table.hpp"
#include "two_state.hpp"

namespace toy {

struct two_state_options {
  std::string out = "runs/toy/two-state";
  double epsilon = cloning_gap.epsilon;
  std::vector<double> noise{0.02, 0.03, 0.05};
  int starts = 101, points = 1000;
  ascent_options climbing;
};

/// An MDP with a name and the parameters θ of the pre-trained policies.
struct two_state_scenario {
  std::string name, title;
  two_state_mdp mdp;
  std::vector<double> starts;
};

inline std::vector<two_state_scenario> scenarios(const two_state_options& options) {
  auto cloned = cloning_gap;
  cloned.epsilon = options.epsilon;
  std::vector<double> clones;
  for (const double noise : options.noise) clones.push_back(1 - noise);
  return {{"scg", "State coverage gap: pre-trained in FAR only", coverage_gap, {0}},
          {"icg", "Imperfect cloning gap: a clone of θ = 1", cloned, clones}};
}

/// Draws v(s0) over θ with its maxima, f(θ) as a dashed line, and arrows for the gradient ascents
/// from the scenario's starts.
inline bool draw_two_state(const std::vector<two_state_scenario>& all,
                           const std::vector<std::vector<ascent>>& climbs,
                           const two_state_options& options, const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  std::ostringstream data, script;
  script
      << "set multiplot layout 1,2 title 'The two-state MDP: one parameter for two skills (arrows: "
         "where gradient ascent leads)' font ',13' "
      << "margins 0.05,0.93,0.14,0.84 spacing 0.14,0\n"
      << "set border 11\nset tics nomirror\nset y2tics 0,0.25\nset y2range [0:1.05]\nset xrange "
         "[-0.02:1.02]\n"
      << "set grid back linetype 1 linewidth 0.7 linecolor rgb '#dddddd'\nset xlabel 'θ = P(s0 → "
         "s1)'\n"
      << "set ylabel 'v(s0), discounted reward'\nset y2label 'f(θ) = P(s1 → s1), skill in FAR'\n";
  for (std::size_t s = 0; s < all.size(); ++s) {
    const auto& mdp = all[s].mdp;
    for (int i = 0; i <= options.points; ++i) {
      const double theta = static_cast<double>(i) / options.points;
      data << theta << ' ' << values(mdp, theta)[0] << ' ' << mdp.stay(theta) << '\n';
    }
    data << "\n\n";
    for (const auto& best : optima(mdp)) data << best.theta << ' ' << best.value << '\n';
    data << "\n\n";
    int arrow = 0;
    script << "unset arrow\n";
    for (const auto& path : climbs[s]) {
      data << path.start << ' ' << values(mdp, path.start)[0] << '\n';
      if (std::abs(path.theta - path.start) < 0.05) continue;
      ++arrow;
      const double height = 0.04 + 0.05 * arrow;  // arrows along the curve would overlap
      script << "set arrow " << arrow << " from " << path.start << ", graph " << height << " to "
             << path.theta << ", graph " << height << " linewidth 2 linecolor rgb '"
             << gnuplot::vermilion << "' filled\n";
    }
    data << "\n\n";
    const auto place = gnuplot::quoted(data_path.string()) + " index ";
    const auto index = static_cast<int>(3 * s);
    script << "set title " << gnuplot::quoted(all[s].title) << "\nset key "
           << (s == 0 ? "at graph 0.68, 0.97" : "at graph 0.9, 0.84") << "\n"
           << "plot " << place << index
           << " using 1:3 axes x1y2 with lines dashtype 2 linewidth 1.5 linecolor rgb '"
           << gnuplot::gray << "' title 'f(θ)', " << place << index
           << " using 1:2 with lines linewidth 2.5 linecolor rgb '" << gnuplot::blue
           << "' title 'v(s0)', " << place << index + 1
           << " using 1:2 with points pointtype 7 pointsize 1.5 linecolor rgb '" << gnuplot::green
           << "' title 'local maxima', " << place << index + 2
           << " using 1:2 with points pointtype 9 pointsize 1.8 linecolor rgb '"
           << gnuplot::vermilion << "' title 'pre-trained'\n";
  }
  write_file(data_path, data.str());
  return gnuplot::draw(stem, script.str() + "unset multiplot\nreset", 1200, 480);
}

inline int two_state(const two_state_options& options) {
  const std::filesystem::path out = options.out;
  const auto all = scenarios(options);
  text_table maxima(
      {"scenario", "local maximum θ", "v(s0)", "skill in FAR f(θ)", "basin of ascent"});
  text_table told({"scenario", "start θ", "v(s0)", "end θ", "v(s0)", "steps"});
  text_table rows({"scenario", "theta", "f", "v0", "v1"}),
      ends({"scenario", "start", "end", "value", "steps", "arrived"});
  nlohmann::json file;
  std::vector<std::vector<ascent>> climbs;
  for (const auto& [name, title, mdp, starts] : all) {
    nlohmann::json found = nlohmann::json::array();
    for (const auto& best : optima(mdp)) {
      maxima.add({title, decimals(best.theta, 4), decimals(best.value, 4),
                  decimals(mdp.stay(best.theta), 4), range_text(best.low, best.high, 4)});
      found.push_back(
          {{"theta", best.theta}, {"value", best.value}, {"basin", {best.low, best.high}}});
    }
    file[name] = {{"epsilon", mdp.epsilon},
                  {"r0", mdp.r0},
                  {"r1", mdp.r1},
                  {"discount", mdp.discount},
                  {"optima", std::move(found)}};
    for (int i = 0; i <= options.points; ++i) {
      const double theta = static_cast<double>(i) / options.points;
      const auto v = values(mdp, theta);
      rows.add({name, decimals(theta, 6), decimals(mdp.stay(theta), 10), decimals(v[0], 10),
                decimals(v[1], 10)});
    }
    const auto note = [&ends, name = name](const ascent& path) {
      ends.add({name, decimals(path.start, 6), decimals(path.theta, 10), decimals(path.value, 10),
                std::to_string(path.steps), path.arrived ? "1" : "0"});
    };
    climbs.emplace_back();
    for (const double start : starts) {
      const auto path = climb(mdp, start, options.climbing);
      climbs.back().push_back(path);
      told.add({title, decimals(start, 3), decimals(values(mdp, start)[0], 4),
                decimals(path.theta, 4) + (path.arrived ? "" : " (still moving)"),
                decimals(path.value, 4), std::to_string(path.steps)});
      note(path);
    }
    for (int i = 0; i < options.starts; ++i)
      note(climb(mdp, static_cast<double>(i) / std::max(1, options.starts - 1), options.climbing));
  }
  const std::string text = maxima.markdown() + "\n" + told.markdown() + "\n";
  write_file(out / "table.md", text);
  write_file(out / "curve.csv", rows.csv());
  write_file(out / "ascents.csv", ends.csv());
  write_json(out / "two-state.json", file);
  draw_two_state(all, climbs, options, out / "two-state");
  std::cout << text << "in " << out.string() << "\n";
  return 0;
}

inline void add_two_state(CLI::App& app, std::function<int()>& chosen) {
  auto options = std::make_shared<two_state_options>();
  auto* command = app.add_subcommand(
      "two-state", "The two-state MDP: exact values, optima, and the ends of gradient ascent");
  command->add_option("--out", options->out, "Folder for tables, CSV, JSON and pictures")
      ->capture_default_str();
  command
      ->add_option("--epsilon", options->epsilon,
                   "ε of the imperfect cloning gap: a smaller ε makes the peak narrower")
      ->check(CLI::Range(0.001, 1.0))
      ->capture_default_str();
  command
      ->add_option("--noise", options->noise,
                   "Starts of gradient ascent in the imperfect cloning gap: distances from θ = 1")
      ->delimiter(',')
      ->check(CLI::Range(0.0, 1.0))
      ->capture_default_str();
  command
      ->add_option("--starts", options->starts,
                   "Number of equally spaced starts θ for the ascents in ascents.csv")
      ->check(CLI::Range(1, 100'000))
      ->capture_default_str();
  command
      ->add_option("--rate", options->climbing.rate, "Learning rate: θ changes by rate · dv(s0)/dθ")
      ->check(positive_number)
      ->capture_default_str();
  command->add_option("--points", options->points, "Number of points of the curve in curve.csv")
      ->check(CLI::Range(2, 1'000'000))
      ->capture_default_str();
  command->callback([&chosen, options] { chosen = [options] { return two_state(*options); }; });
}

}  // namespace toy
