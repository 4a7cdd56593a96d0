// SPDX-License-Identifier: MIT
// Statistics for small, heavy-tailed samples, and bootstrap intervals that are identical on every
// machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <span>
#include <stdexcept>
#include <vector>

namespace statistics {

struct interval {
  double low = std::numeric_limits<double>::quiet_NaN();
  double high = std::numeric_limits<double>::quiet_NaN();
};

struct bootstrap_options {
  std::size_t resamples = 10'000;
  double level = 0.95;
  std::uint64_t seed = 20'240'202;  ///< fixed, so that reports are reproducible
};

/// The mean. Returns NaN if `values` is empty, so that a report prints a gap.
inline double mean(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

/// The sample standard deviation (divided by n − 1). Returns NaN for fewer than two values.
inline double standard_deviation(std::span<const double> values) {
  if (values.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  const double center = mean(values);
  double sum = 0;
  for (const double value : values) sum += (value - center) * (value - center);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

/// Standard error of the mean.
inline double standard_error(std::span<const double> values) {
  return standard_deviation(values) / std::sqrt(static_cast<double>(values.size()));
}

namespace detail {
/// Linear interpolation between order statistics (type 7 of Hyndman and Fan, NumPy's and R's
/// default).
inline double sorted_quantile(std::span<const double> sorted, double p) {
  if (sorted.empty()) return std::numeric_limits<double>::quiet_NaN();
  const double place = p * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const auto above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

/// A uniform random number in 0 … n − 1. std::uniform_int_distribution is not used, because its
/// results depend on the standard library.
inline std::size_t below(std::mt19937_64& random, std::size_t n) {
  return static_cast<std::size_t>(((random() >> 32) * static_cast<std::uint64_t>(n)) >> 32);
}

inline interval percentile_interval(std::vector<double>& resampled, double level) {
  std::sort(resampled.begin(), resampled.end());
  return {sorted_quantile(resampled, (1 - level) / 2), sorted_quantile(resampled, (1 + level) / 2)};
}
}  // namespace detail

inline double quantile(std::span<const double> values, double p) {
  if (!(p >= 0 && p <= 1))
    throw std::invalid_argument("statistics::quantile: p must be between 0 and 1");
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  return detail::sorted_quantile(sorted, p);
}

inline double median(std::span<const double> values) { return quantile(values, 0.5); }

/// The mean of the middle half of the sorted values. A value on the boundary of a quarter has a
/// fractional weight, so that the result does not jump with n. rliable (scipy's trim_mean) instead
/// removes floor(n / 4) whole values at each end. Both methods give the same result if n is a
/// multiple of 4.
inline double interquartile_mean(std::span<const double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::vector<double> sorted(values.begin(), values.end());
  std::sort(sorted.begin(), sorted.end());
  const double n = static_cast<double>(sorted.size());
  double sum = 0, weights = 0;
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const double place = static_cast<double>(i);
    const double weight = std::max(0.0, std::min(place + 1, 0.75 * n) - std::max(place, 0.25 * n));
    sum += weight * sorted[i];
    weights += weight;
  }
  return sum / weights;
}

/// The percentile bootstrap interval of `statistic`, which takes a span and returns a double.
template <class Statistic>
interval bootstrap_interval(std::span<const double> values, Statistic statistic,
                            const bootstrap_options& options = {}) {
  if (values.empty()) return {};
  std::mt19937_64 random(options.seed);
  std::vector<double> draw(values.size()), resampled(options.resamples);
  for (double& result : resampled) {
    for (double& value : draw) value = values[detail::below(random, values.size())];
    result = statistic(std::span<const double>(draw));
  }
  return detail::percentile_interval(resampled, options.level);
}

/// The percentile bootstrap interval of the mean.
inline interval bootstrap_interval(std::span<const double> values,
                                   const bootstrap_options& options = {}) {
  return bootstrap_interval(
      values, [](std::span<const double> draw) { return mean(draw); }, options);
}

/// The bootstrap interval for paired values. Each resample draws whole pairs, so it keeps the
/// correlation between `a` and `b`. `statistic` takes two spans of equal length. Throws
/// std::invalid_argument if the lengths differ.
template <class Statistic>
interval paired_bootstrap_interval(std::span<const double> a, std::span<const double> b,
                                   Statistic statistic, const bootstrap_options& options = {}) {
  if (a.size() != b.size())
    throw std::invalid_argument(
        "statistics::paired_bootstrap_interval: the lists differ in length");
  if (a.empty()) return {};
  std::mt19937_64 random(options.seed);
  std::vector<double> one(a.size()), other(b.size()), resampled(options.resamples);
  for (double& result : resampled) {
    for (std::size_t i = 0; i < a.size(); ++i) {
      const auto drawn = detail::below(random, a.size());
      one[i] = a[drawn];
      other[i] = b[drawn];
    }
    result = statistic(std::span<const double>(one), std::span<const double>(other));
  }
  return detail::percentile_interval(resampled, options.level);
}

/// The bootstrap interval with resampling within each stratum. Use strata for conditions that were
/// chosen (for example starts or tasks), and values for random repetitions (for example seeds).
/// `statistic` gets the concatenation of all strata of a resample.
template <class Statistic>
interval stratified_bootstrap_interval(const std::vector<std::vector<double>>& strata,
                                       Statistic statistic, const bootstrap_options& options = {}) {
  std::size_t size = 0;
  for (const auto& stratum : strata) size += stratum.size();
  if (size == 0) return {};
  std::mt19937_64 random(options.seed);
  std::vector<double> draw(size), resampled(options.resamples);
  for (double& result : resampled) {
    auto place = draw.begin();
    for (const auto& stratum : strata)
      for (std::size_t i = 0; i < stratum.size(); ++i)
        *place++ = stratum[detail::below(random, stratum.size())];
    result = statistic(std::span<const double>(draw));
  }
  return detail::percentile_interval(resampled, options.level);
}

/// The bootstrap interval for runs with several games each. Each resample draws seeds, and then
/// games within each drawn seed. The statistic is the mean over seeds of the mean over games. With
/// one game per seed, this is the ordinary bootstrap. Throws std::invalid_argument if a seed has no
/// games.
inline interval seeds_and_games_interval(const std::vector<std::vector<double>>& seeds,
                                         const bootstrap_options& options = {}) {
  if (seeds.empty()) return {};
  for (const auto& games : seeds)
    if (games.empty())
      throw std::invalid_argument("statistics::seeds_and_games_interval: a seed without games");
  std::mt19937_64 random(options.seed);
  std::vector<double> resampled(options.resamples);
  for (double& result : resampled) {
    double total = 0;
    for (std::size_t i = 0; i < seeds.size(); ++i) {
      const auto& games = seeds[detail::below(random, seeds.size())];
      double sum = 0;
      for (std::size_t j = 0; j < games.size(); ++j)
        sum += games[detail::below(random, games.size())];
      total += sum / static_cast<double>(games.size());
    }
    result = total / static_cast<double>(seeds.size());
  }
  return detail::percentile_interval(resampled, options.level);
}

struct paired_result {
  double difference = std::numeric_limits<double>::quiet_NaN();  ///< mean of a − b
  interval confidence;
  std::size_t pairs = 0, wins = 0, ties = 0;  ///< a win: a > b
};

/// The mean of a[i] − b[i] with its bootstrap interval. a[i] and b[i] must come from the same game
/// or the same seed, so that common effects cancel. Throws std::invalid_argument if the lengths
/// differ.
inline paired_result paired_difference(std::span<const double> a, std::span<const double> b,
                                       const bootstrap_options& options = {}) {
  if (a.size() != b.size())
    throw std::invalid_argument("statistics::paired_difference: the lists differ in length");
  std::vector<double> differences(a.size());
  paired_result result;
  result.pairs = a.size();
  for (std::size_t i = 0; i < a.size(); ++i) {
    differences[i] = a[i] - b[i];
    if (differences[i] > 0) ++result.wins;
    if (!(differences[i] > 0) && !(differences[i] < 0)) ++result.ties;
  }
  result.difference = mean(differences);
  result.confidence = bootstrap_interval(differences, options);
  return result;
}

}  // namespace statistics
