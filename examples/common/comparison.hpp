// SPDX-License-Identifier: MIT
// Means over seeds, in the format of all tables.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "statistics.hpp"
#include "table.hpp"

/// Returns the mean and its 95 % bootstrap interval, for example "4.71 [3.90 … 5.42]". Returns
/// only the mean for a single value.
inline std::string with_interval(const std::vector<double>& values, int digits) {
  std::string text = decimals(statistics::mean(values), digits);
  if (values.size() < 2) return text;
  const auto interval = statistics::bootstrap_interval(values);
  return text + " [" + range_text(interval.low, interval.high, digits) + "]";
}

/// Checks that each method and seed occurs only once in each group of `runs`, which must be
/// sorted. A seed that is counted twice would make the intervals too narrow. Throws
/// std::runtime_error with both folders if a seed occurs twice. Runs without a method have no seed
/// and are not checked.
template <class Run>
void check_one_run_a_seed(const std::vector<Run>& runs) {
  for (std::size_t i = 1; i < runs.size(); ++i) {
    const auto &one = runs[i - 1], &other = runs[i];
    if (!one.method.empty() && one.group() == other.group() && one.method == other.method &&
        one.seed == other.seed)
      throw std::runtime_error("two runs of " + one.method + ", seed " + std::to_string(one.seed) +
                               ": " + one.folder.string() + " and " + other.folder.string() +
                               ". A report counts each seed once: name only one of these folders");
  }
}

/// Returns the mean difference, its interval, and how many differences are above zero, for example
/// "+1.20 [0.40 … 2.10], 8/10".
inline std::string difference_text(const std::vector<double>& differences, int digits = 0) {
  if (differences.empty()) return "–";
  const auto wins =
      std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  std::string text = statistics::mean(differences) > 0 ? "+" : "";
  text += with_interval(differences, digits);
  text += ", ";
  text += std::to_string(wins);
  text += "/";
  text += std::to_string(differences.size());
  return text;
}
