// SPDX-License-Identifier: MIT
// Statistics over seeds and tasks, as in Agarwal et al. 2021, "Deep Reinforcement Learning at the
// Edge of the Statistical Precipice" (rliable). Runs of one task are a stratum: resamples draw runs
// within each task, because tasks are chosen and seeds are random.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <utility>
#include <vector>

#include "../../examples/common/statistics.hpp"

namespace compare {

/// One list of runs for each task.
using strata = std::vector<std::vector<double>>;

/// Fewer seeds have no interval: with four values the bootstrap draws one of 35 multisets, and its
/// 95 % interval covers the mean far less often than it says.
inline constexpr std::size_t seeds_for_an_interval = 5, seeds_without_a_warning = 10;

inline std::vector<double> joined(const strata& tasks) {
  std::vector<double> all;
  for (const auto& runs : tasks) all.insert(all.end(), runs.begin(), runs.end());
  return all;
}

/// The mean over tasks of the mean over runs.
inline double mean_of_tasks(const strata& tasks) {
  std::vector<double> means;
  for (const auto& runs : tasks) means.push_back(statistics::mean(runs));
  return statistics::mean(means);
}

/// rliable's median: the median over tasks of the mean over runs. For one task, the median over
/// runs, because the median of one mean would be this mean.
inline double median_of_tasks(const strata& tasks) {
  if (tasks.size() == 1) return statistics::median(tasks.front());
  std::vector<double> means;
  for (const auto& runs : tasks) means.push_back(statistics::mean(runs));
  return statistics::median(means);
}

/// The interquartile mean over all runs of all tasks.
inline double interquartile_mean_of(const strata& tasks) {
  return statistics::interquartile_mean(joined(tasks));
}

/// P(X > Y) + P(X = Y) / 2 for a run of each, as the mean over tasks: the Mann–Whitney statistic
/// divided by its maximum. Tasks that one of the two lacks do not count.
inline double probability_of_improvement(const strata& x, const strata& y) {
  double sum = 0;
  std::size_t tasks = 0;
  for (std::size_t t = 0; t < std::min(x.size(), y.size()); ++t) {
    if (x[t].empty() || y[t].empty()) continue;
    double wins = 0;
    for (const double a : x[t])
      for (const double b : y[t]) wins += a > b ? 1 : a < b ? 0 : 0.5;
    sum += wins / static_cast<double>(x[t].size() * y[t].size());
    ++tasks;
  }
  return tasks == 0 ? std::nan("") : sum / static_cast<double>(tasks);
}

/// The share of runs above `threshold`, as the mean over tasks: a point of the performance profile.
inline double share_above(const strata& tasks, double threshold) {
  std::vector<double> shares;
  for (const auto& runs : tasks)
    if (!runs.empty())
      shares.push_back(static_cast<double>(std::count_if(runs.begin(), runs.end(),
                                                         [&](double v) { return v > threshold; })) /
                       static_cast<double>(runs.size()));
  return statistics::mean(shares);
}

namespace detail {
inline void draw_from(const strata& from, strata& to, std::mt19937_64& random) {
  to.resize(from.size());
  for (std::size_t t = 0; t < from.size(); ++t) {
    to[t].resize(from[t].size());
    for (double& value : to[t]) value = from[t][statistics::detail::below(random, from[t].size())];
  }
}

inline bool enough(const strata& tasks) {
  return !tasks.empty() && std::all_of(tasks.begin(), tasks.end(), [](const auto& runs) {
    return runs.size() >= seeds_for_an_interval;
  });
}
}  // namespace detail

/// The stratified percentile bootstrap interval of `statistic(strata)`. NaN if a task has fewer
/// than `seeds_for_an_interval` runs.
template <class Statistic>
statistics::interval interval_of(const strata& tasks, Statistic statistic,
                                 const statistics::bootstrap_options& options = {}) {
  if (!detail::enough(tasks)) return {};
  std::mt19937_64 random(options.seed);
  strata draw;
  std::vector<double> resampled(options.resamples);
  for (double& result : resampled) {
    detail::draw_from(tasks, draw, random);
    result = statistic(draw);
  }
  return statistics::detail::percentile_interval(resampled, options.level);
}

/// The same for two groups of independent runs.
template <class Statistic>
statistics::interval interval_of(const strata& x, const strata& y, Statistic statistic,
                                 const statistics::bootstrap_options& options = {}) {
  if (!detail::enough(x) || !detail::enough(y)) return {};
  std::mt19937_64 random(options.seed);
  strata one, other;
  std::vector<double> resampled(options.resamples);
  for (double& result : resampled) {
    detail::draw_from(x, one, random);
    detail::draw_from(y, other, random);
    result = statistic(one, other);
  }
  return statistics::detail::percentile_interval(resampled, options.level);
}

}  // namespace compare
