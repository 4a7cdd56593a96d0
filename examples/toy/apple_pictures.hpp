// SPDX-License-Identifier: MIT
// Pictures of AppleRetrieval: curves over training, the plane of the two logits, what each penalty
// charges, strengths.
#pragma once

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "../common/files.hpp"
#include "../common/gnuplot.hpp"
#include "apple_report.hpp"

namespace toy {

namespace detail {

inline std::string color_of(const apple_arm& arm) {
  return std::string("'") + method_named(arm.method).color + "'";
}

/// The gnuplot settings at the start of every panel.
inline constexpr const char* panel_style =
    "set border 3\nset tics nomirror\nset key off\nset grid back linetype 1 linewidth 0.7 "
    "linecolor rgb '#dddddd'\n";

/// One legend for all panels at the bottom of the picture, drawn as an empty plot.
inline std::string legend(const std::vector<apple_arm>& arms, double top) {
  std::ostringstream script;
  script << "set lmargin at screen 0\nset rmargin at screen 1\nset bmargin at screen 0\nset "
            "tmargin at screen "
         << top
         << "\nunset logscale\nunset border\nunset tics\nunset title\nunset xlabel\nunset "
            "ylabel\nunset label\nunset arrow\n"
         << "set grid noxtics noytics\n"
         << "set key center center horizontal samplen 1.5 font ',10'\nset xrange [0:1]\nset yrange "
            "[0:1]\nplot ";
  for (std::size_t arm = 0; arm < arms.size(); ++arm)
    script << (arm ? ", " : "") << "NaN with lines linewidth 2.5 linecolor rgb "
           << color_of(arms[arm]) << " title " << gnuplot::quoted(arm_title(arms[arm]));
  script << "\nunset multiplot\nreset";
  return script.str();
}

/// The displayed range of the two logits, and the success of whole episodes in it, as data for
/// `plot … with image`.
inline constexpr double low1 = -3.5, high1 = 4, low2 = -5.5, high2 = 3;
inline std::string success_grid(const apple_world& world, int cells = 60) {
  std::ostringstream data;
  for (int i = 0; i <= cells; ++i) {
    for (int j = 0; j <= cells; ++j) {
      const double z1 = low1 + (high1 - low1) * i / cells, z2 = low2 + (high2 - low2) * j / cells;
      data << z1 << ' ' << z2 << ' '
           << decimals(exact_outcome(world, sigmoid(z1), sigmoid(z2)).success, 3) << '\n';
    }
    data << '\n';
  }
  return data.str() + "\n";
}
inline std::string plane_style() {
  std::ostringstream script;
  script
      << "set xrange [" << low1 << ":" << high1 << "]\nset yrange [" << low2 << ":" << high2
      << "]\n"
      << "set xlabel 'logit of going right in phase 1, where right is correct'\nset ylabel 'logit "
         "of going right in phase 2, where left is correct'\n"
      << "set palette defined (0 '#ffffff', 1 '#bbbbbb')\nset cbrange [0:1]\nunset "
         "colorbox\nunset grid\n";
  return script.str();
}

}  // namespace detail

/// Draws success over updates, with one column per world. The upper row shows the success of whole
/// episodes, the lower row the success of phase 2 alone.
inline bool draw_curves(const apple_plan& plan, const std::vector<apple_curves>& curves,
                        const std::vector<std::size_t>& worlds,
                        std::string (*name)(const apple_world&), const std::string& title,
                        const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  const auto source = gnuplot::quoted(data_path.string());
  std::ostringstream data, script;
  script << "set multiplot layout 2," << worlds.size() << " title " << gnuplot::quoted(title)
         << " font ',13' "
         << "margins 0.05,0.98,0.15,0.88 spacing 0.025,0.09\n"
         << detail::panel_style << "set xrange [0:" << plan.updates
         << "]\nset yrange [-0.03:1.03]\nset ytics 0.25\n"
         << "set xtics " << std::max(1, plan.updates / 2) << "\n";
  int index = 0;
  for (const bool far : {false, true}) {
    for (std::size_t column = 0; column < worlds.size(); ++column) {
      std::string plots;
      for (std::size_t arm = 0; arm < plan.arms.size(); ++arm, ++index) {
        const auto& both = curves[worlds[column] * plan.arms.size() + arm];
        for (const auto& point : far ? both.far : both.full)
          data << point.update << ' ' << point.mean << ' ' << point.low << ' ' << point.high
               << '\n';
        data << "\n\n";
        const auto place = source + " index " + std::to_string(index) + " using ",
                   color = detail::color_of(plan.arms[arm]);
        plots += (plots.empty() ? "" : ", ") + place + "1:3:4 with filledcurves fillcolor rgb " +
                 color + " fillstyle transparent solid 0.15, " + place +
                 "1:2 with lines linewidth 2 linecolor rgb " + color;
      }
      script << "set title " << gnuplot::quoted(far ? "" : name(plan.worlds[worlds[column]]))
             << "\n"
             << (column == 0
                     ? std::string("set ylabel ") + (far ? "'phase 2 alone'" : "'whole episode'") +
                           "\nset format y '%g'\n"
                     : std::string("unset ylabel\nset format y ''\n"))
             << (far ? "set xlabel 'updates'\n" : "unset xlabel\n") << "plot " << plots << "\n";
    }
  }
  write_file(data_path, data.str());
  script << detail::legend(plan.arms, 0.07);
  return gnuplot::draw(stem, script.str(), 1300, 640);
}

/// Draws the paths of policies in the plane of the two logits, which determine the policy. The
/// background shows the success of whole episodes.
inline bool draw_plane(const apple_plan& plan, const std::vector<apple_run>& runs,
                       std::size_t world_index, const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  const auto source = gnuplot::quoted(data_path.string());
  const auto& world = plan.worlds[world_index];
  std::ostringstream data, script;
  data << detail::success_grid(world);
  std::string paths;
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
    // The mean of both logits over seeds at each measurement. The paths of single seeds are close
    // to this mean.
    std::vector<const apple_run*> own;
    for (const auto& run : runs)
      if (run.world == world_index && run.arm == arm) own.push_back(&run);
    for (std::size_t i = 0; i < own.front()->points.size(); ++i) {
      double z1 = 0, z2 = 0;
      for (const auto* run : own) z1 += run->points[i].logit1, z2 += run->points[i].logit2;
      data << z1 / static_cast<double>(own.size()) << ' ' << z2 / static_cast<double>(own.size())
           << '\n';
    }
    data << "\n\n";
    const auto place = source + " index " + std::to_string(arm + 1),
               color = detail::color_of(plan.arms[arm]);
    const auto points = [&](const std::string& which, double size) {
      return ", " + place + " using 1:2 every " + which + " with points pointtype 7 pointsize " +
             decimals(size, 1) + " linecolor rgb " + color + " notitle";
    };
    paths += ", " + place + " using 1:2 with lines linewidth 2.5 linecolor rgb " + color +
             " title " + gnuplot::quoted(arm_title(plan.arms[arm])) + points("10", 0.6) +
             points("::" + std::to_string(own.front()->points.size() - 1), 1.6);
  }
  write_file(data_path, data.str());
  script << "set title "
         << gnuplot::quoted("Fine-tuning in the plane of the two logits, " + distance_text(world) +
                            ", " + signal_text(world))
         << " font ',13'\n"
         << "set border 3\nset tics nomirror\n"
         << detail::plane_style() << "set rmargin 30\nset key outside right center reverse Left "
         << "title \"dot: " << 10 * plan.every
         << " updates\\nlarge dot: the end\\ngray: whole episodes\\nsucceed\\n\" left\n"
         << "plot " << source << " index 0 using 1:2:3 with image notitle" << paths;
  return gnuplot::draw(stem, script.str() + "\nreset", 1000, 560);
}

/// Draws the penalties, all scaled to the same curvature in the logit of phase 2. The left panel
/// shows them as functions of this logit, the right panel as level lines in the plane of both
/// logits.
inline bool draw_charges(const apple_world& world, double mastery,
                         const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  write_file(data_path, detail::success_grid(world));
  const double z2 = -std::log(mastery / (1 - mastery)), p = sigmoid(z2),
               square = world.signal * world.signal;
  std::ostringstream script;
  script.precision(10);
  script << "p = " << p << "\nF = " << p * (1 - p) << "\nz2 = " << z2 << "\nc2 = "
         << square
         // pre-training starts at zero and moves along (c, 1)
         << "\nz1 = " << z2 * (1 - square) / (1 + square) << "\n"
         << "set multiplot layout 1,2 title "
         << gnuplot::quoted("Penalties of equal curvature, " + signal_text(world))
         << " font ',13' margins 0.06,0.99,0.22,0.86 spacing 0.08,0\n"
         << detail::panel_style << "set samples 600\n"
         << "kl(z) = p * log(p * (1 + exp(-z))) + (1 - p) * log((1 - p) * (1 + exp(z)))\n";
  const auto line = [](const char* method, const std::string& what, int dash = 1) {
    return what + " with lines linewidth 2.5 dashtype " + std::to_string(dash) +
           " linecolor rgb '" + method_named(method).color + "'";
  };
  script << "set title 'for phase 2 alone: quadratics (one curve) and KL'\nset xlabel 'logit of "
            "going right in phase 2'\nset ylabel 'nats'\n"
         << "set xrange [-7:3]\nset yrange [0:2]\nset arrow 1 from z2, graph 0 to z2, graph 1 "
            "nohead dashtype 3\n"
         << "set label 1 'pre-trained' at z2, graph 0.95 offset 0.5,0\n"
         << "plot " << line("kfac", "F / 2 * (x - z2)**2") << ", "
         << line("ewc", "F / 2 * (x - z2)**2", 2) << ", " << line("l2", "F / 2 * (x - z2)**2", 4)
         << ", " << line("bc", "kl(x)") << "\n"
         << "unset arrow 1\nset label 1 'pre-trained' at z1, z2 point pointtype 7 pointsize 1.2 "
            "offset 0.8,-0.6 front\n"
         << "set title 'level lines: the penalty of a change of 1.5 in the logit of phase 2'\n"
         << detail::plane_style()
         << "set parametric\nset trange [0:2*pi]\nr = 1.5\nlong = r * sqrt((1 + 1 / c2) / "
            "2)\nshort = r * sqrt((1 + c2) / 2)\n"
         // Bisection for the two values of z2 at which the KL equals the quadratics at a distance
         // of 1.5.
         << "level = F / 2 * r**2\nlow = -30.\nhigh = z2\n"
         << "do for [i=1:60] { m = (low + high) / 2; if (kl(m) > level) { low = m } else { high = "
            "m } }\nbelow = low\nlow = z2\nhigh = 20.\n"
         << "do for [i=1:60] { m = (low + high) / 2; if (kl(m) > level) { high = m } else { low = "
            "m } }\nabove = high\n"
         << "across(t) = -10 + t / (2 * pi) * 20\n"
         << "ellipse(sign, t) = (long * cos(t) + sign * short * sin(t)) / sqrt(2)\n"
         << "plot " << gnuplot::quoted(data_path.string()) << " using 1:2:3 with image, "
         << line("l2", "z1 + ellipse(1, t), z2 + ellipse(-1, t)") << ", "
         << line("ewc", "z1 + r * cos(t), z2 + r * sin(t)") << ", "
         << line("kfac", "across(t), z2 + r") << ", " << line("kfac", "across(t), z2 - r") << ", "
         << line("bc", "across(t), above") << ", " << line("bc", "across(t), below")
         << "\nunset parametric\n"
         << detail::legend({{"l2", 0}, {"ewc", 0}, {"kfac", 0}, {"bc", 0}}, 0.1);
  return gnuplot::draw(stem, script.str(), 1200, 520);
}

/// Draws the success over training and the kept phase-2 success for each strength, with one line
/// per method and one point per strength.
inline bool draw_strengths(const apple_plan& plan, const std::vector<apple_run>& runs,
                           const std::filesystem::path& stem) {
  auto data_path = stem;
  data_path += ".dat";
  const auto source = gnuplot::quoted(data_path.string());
  std::ostringstream data, script;
  std::string left, right;
  std::vector<apple_arm> shown;
  int index = 0;
  for (const auto& method : apple_methods) {
    bool any = false;
    for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
      if (plan.arms[arm].method != method.name) continue;
      any = true;
      const auto area = over_seeds(runs, 0, arm, apple_measures[2].of),
                 far = over_seeds(runs, 0, arm, apple_measures[0].of);
      const auto interval = statistics::bootstrap_interval(area, {.resamples = 1000});
      data << plan.arms[arm].strength << ' ' << statistics::mean(area) << ' ' << interval.low << ' '
           << interval.high << ' ' << statistics::mean(far) << '\n';
    }
    if (!any) continue;
    data << "\n\n";
    shown.push_back({method.name, 0});
    const auto place = source + " index " + std::to_string(index++) + " using ",
               color = std::string("'") + method.color + "'";
    if (method.strength > 0) {
      left += (left.empty() ? "" : ", ") + place +
              "1:2:3:4 with yerrorlines pointtype 7 pointsize 0.8 linewidth 2 linecolor rgb " +
              color;
      right += (right.empty() ? "" : ", ") + place +
               "5:2 with linespoints pointtype 7 pointsize 0.9 linewidth 2 linecolor rgb " + color;
    } else {
      right += (right.empty() ? "" : ", ") + place +
               "5:2 with points pointtype 9 pointsize 2 linecolor rgb " + color;
    }
  }
  write_file(data_path, data.str());
  const auto title = "Strengths, " + distance_text(plan.worlds[0]) + ", " +
                     signal_text(plan.worlds[0]) + ", " + std::to_string(plan.seeds.size()) +
                     " seeds that are in no other figure";
  script << "set multiplot layout 1,2 title " << gnuplot::quoted(title)
         << " font ',13' margins 0.06,0.985,0.24,0.86 spacing 0.07,0\n"
         << detail::panel_style
         << "set ylabel 'success of whole episodes, mean over training'\nset yrange [0:0.9]\n"
         << "set title 'effect of the strength (bar: 95 % over seeds)'\nset xlabel "
            "'strength'\n"
         << "set logscale x\nset format x '10^{%L}'\nset autoscale x\n"
         << "plot " << left
         << "\nunset logscale x\nset format x '%g'\nset title 'phase 2 kept, and success "
            "over training (triangles: plain, scratch)'\n"
         << "set xlabel 'phase-2 success, lowest during training'\nset xrange [-0.02:1.02]\nplot "
         << right << "\n"
         << detail::legend(shown, 0.1);
  return gnuplot::draw(stem, script.str(), 1200, 500);
}

}  // namespace toy
