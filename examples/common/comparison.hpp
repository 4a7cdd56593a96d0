// SPDX-License-Identifier: MIT
// Means over seeds as they stand in every table.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "statistics.hpp"
#include "table.hpp"

/// "4.71 [3.90 … 5.42]": mean and 95 % bootstrap interval; the mean alone for a single value.
inline std::string with_interval(const std::vector<double>& values, int digits) {
  std::string text = decimals(statistics::mean(values), digits);
  if (values.size() < 2) return text;
  const auto interval = statistics::bootstrap_interval(values);
  return text + " [" + range_text(interval.low, interval.high, digits) + "]";
}

/// "+1.20 [0.40 … 2.10], 8/10": the same of differences, and how many are above zero.
inline std::string difference_text(const std::vector<double>& differences, int digits = 0) {
  if (differences.empty()) return "–";
  const auto wins = std::count_if(differences.begin(), differences.end(), [](double d) { return d > 0; });
  std::string text = statistics::mean(differences) > 0 ? "+" : "";
  text += with_interval(differences, digits);
  text += ", ";
  text += std::to_string(wins);
  text += "/";
  text += std::to_string(differences.size());
  return text;
}
