// SPDX-License-Identifier: MIT
// The grid of strengths and the rules that choose a strength.
#pragma once

#include <cmath>
#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include "../common/statistics.hpp"
#include "apple_report.hpp"

namespace toy {

/// Seventeen strengths, a quarter of a decade apart, for each method with a strength. A method
/// without a strength occurs once.
inline std::vector<apple_arm> strength_grid(const std::vector<std::string>& methods) {
  std::vector<apple_arm> arms;
  for (const auto& method : methods) {
    const bool any = method_named(method).strength > 0;
    for (int i = 0; i < (any ? 17 : 1); ++i) {
      // rounded to two digits: 1, 1.8, 3.2, 5.6, 10
      const double exact = std::pow(10.0, i / 4.0), digits = i < 4 ? 10 : std::pow(10.0, 1 - i / 4);
      arms.push_back(
          {method, any ? std::round(exact * digits) / digits * (method == "l2" ? 0.01 : 1) : 0});
    }
  }
  return arms;
}

/// The strengths that two rules choose from a grid. `learns` has the strengths with the largest
/// mean success over training. `keeps` has the same, but only among strengths that keep phase 2,
/// with a lowest success of at least 0.9 (mean over seeds). A method without such a strength is not
/// in `keeps`.
struct chosen_strengths {
  std::vector<apple_arm> learns, keeps;
};

inline chosen_strengths choose(const apple_plan& plan, const std::vector<apple_run>& runs) {
  chosen_strengths chosen;
  std::map<std::string, double> best, best_kept;
  std::map<std::string, apple_arm> first, second;
  for (std::size_t arm = 0; arm < plan.arms.size(); ++arm) {
    const auto& name = plan.arms[arm].method;
    const double area = statistics::mean(over_seeds(runs, 0, arm, apple_measures[2].of));
    const double kept = statistics::mean(over_seeds(runs, 0, arm, apple_measures[0].of));
    if (!best.count(name) || area > best[name]) best[name] = area, first[name] = plan.arms[arm];
    if (kept >= 0.9 && (!best_kept.count(name) || area > best_kept[name]))
      best_kept[name] = area, second[name] = plan.arms[arm];
  }
  for (const auto& method : apple_methods) {
    if (first.count(method.name)) chosen.learns.push_back(first[method.name]);
    if (second.count(method.name) && method.strength > 0)
      chosen.keeps.push_back(second[method.name]);
  }
  return chosen;
}

}  // namespace toy
