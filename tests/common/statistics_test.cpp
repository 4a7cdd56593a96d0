// SPDX-License-Identifier: MIT
#include "../../examples/common/statistics.hpp"

#include <array>
#include "support.hpp"

namespace common_statistics_test {

namespace {
std::vector<double> one_to(int n) {
  std::vector<double> values;
  for (int i = 1; i <= n; ++i) values.push_back(i);
  return values;
}
}  // namespace

TEST_CASE("pairs are drawn together", "[statistics]") {
  const std::vector<double> a{1, 2, 3, 10}, b{2, 4, 6, 20};
  const auto ratio = [](std::span<const double> x, std::span<const double> y) {
    return statistics::mean(y) / statistics::mean(x);
  };
  const auto always = statistics::paired_bootstrap_interval(a, b, ratio);
  CHECK(always.low == Approx(2));  // in every draw, which the two by themselves would not have
  CHECK(always.high == Approx(2));
  const auto first = [](std::span<const double> x, std::span<const double>) {
    return statistics::mean(x);
  };
  CHECK(statistics::paired_bootstrap_interval(a, b, first).low ==
        statistics::bootstrap_interval(a).low);
  CHECK(std::isnan(statistics::paired_bootstrap_interval(std::span<const double>(),
                                                         std::span<const double>(), ratio)
                       .low));
  CHECK_THROWS_AS(
      statistics::paired_bootstrap_interval(a, std::span<const double>(b).first(3), ratio),
      std::invalid_argument);
}

TEST_CASE("mean, spread and quantiles have their closed forms", "[statistics]") {
  const auto values = one_to(9);
  CHECK(statistics::mean(values) == Approx(5));
  CHECK(statistics::median(values) == Approx(5));
  CHECK(statistics::standard_deviation(values) == Approx(std::sqrt(7.5)));  // n(n+1)/12 for 1 … n
  CHECK(statistics::standard_error(values) == Approx(std::sqrt(7.5 / 9)));
  CHECK(statistics::quantile(values, 0) == 1);
  CHECK(statistics::quantile(values, 0.25) == Approx(3));
  CHECK(statistics::quantile(values, 1) == 9);
  CHECK(statistics::quantile(std::array{3.0, 1.0}, 0.25) == Approx(1.5));
  CHECK_THROWS_AS(statistics::quantile(values, 1.5), std::invalid_argument);
}

TEST_CASE("the interquartile mean ignores the outer quarters", "[statistics]") {
  CHECK(statistics::interquartile_mean(one_to(8)) == Approx(4.5));
  CHECK(statistics::interquartile_mean(std::array{-1e9, 2.0, 4.0, 1e9}) == Approx(3));
  // Five values: the borders cut 2 and 4 at a quarter, (0.75·2 + 3 + 0.75·4) / 2.5.
  CHECK(statistics::interquartile_mean(one_to(5)) == Approx(3));
  CHECK(statistics::interquartile_mean(std::array{0.0, 0.0, 0.0, 0.0, 10.0}) == Approx(0));
  CHECK(statistics::interquartile_mean(std::array{7.0}) == Approx(7));
}

TEST_CASE("no values give a gap, not a crash", "[statistics]") {
  CHECK(std::isnan(statistics::mean({})));
  CHECK(std::isnan(statistics::median({})));
  CHECK(std::isnan(statistics::interquartile_mean({})));
  CHECK(std::isnan(statistics::standard_deviation(std::array{1.0})));
  CHECK(std::isnan(statistics::bootstrap_interval(std::span<const double>()).low));
  CHECK(std::isnan(statistics::stratified_bootstrap_interval({}, statistics::mean).low));
}

TEST_CASE("the bootstrap interval of a mean is near the normal one, and repeats exactly",
          "[statistics]") {
  std::mt19937_64 random(3);
  std::vector<double> values(400);
  for (double& value : values)
    value = 10 + 2 * std::sqrt(12.0) * (static_cast<double>(random() >> 11) * 0x1p-53 - 0.5);
  const auto found = statistics::bootstrap_interval(values);
  const double half = 1.96 * statistics::standard_error(values);
  CHECK(found.low == Approx(statistics::mean(values) - half).margin(0.03));
  CHECK(found.high == Approx(statistics::mean(values) + half).margin(0.03));
  const auto again = statistics::bootstrap_interval(values);
  CHECK(found.low == again.low);
  CHECK(found.high == again.high);
  const auto other = statistics::bootstrap_interval(values, {.seed = 1});
  CHECK(found.low != other.low);
}

TEST_CASE("two values have a bootstrap distribution that can be written down", "[statistics]") {
  // The mean of two draws from {0, 1} is 0, ½, 1 with ¼, ½, ¼: the middle 50 % runs from the edge
  // of 0 to the edge of 1.
  const auto wide = statistics::bootstrap_interval(std::array{0.0, 1.0}, {.level = 0.95});
  CHECK(wide.low == 0);
  CHECK(wide.high == 1);
  const auto narrow = statistics::bootstrap_interval(std::array{0.0, 1.0}, {.level = 0.4});
  CHECK(narrow.low == 0.5);
  CHECK(narrow.high == 0.5);
}

TEST_CASE("strata keep their differences out of the interval", "[statistics]") {
  const std::vector<std::vector<double>> strata{{0, 0, 0}, {100, 100, 100}};
  const auto within = statistics::stratified_bootstrap_interval(strata, statistics::mean);
  CHECK(within.low == Approx(50));
  CHECK(within.high == Approx(50));
  const auto across =
      statistics::bootstrap_interval(std::array{0.0, 0.0, 0.0, 100.0, 100.0, 100.0});
  CHECK(across.low < 30);
}

TEST_CASE("seeds and games: games equal within a seed leave the bootstrap over seeds",
          "[statistics]") {
  const std::vector<std::vector<double>> seeds{{1, 1}, {2, 2}, {3, 3}, {4, 4}};
  const auto nested = statistics::seeds_and_games_interval(seeds);
  const auto plain = statistics::bootstrap_interval(one_to(4));
  CHECK(nested.low == Approx(plain.low).margin(0.26));
  CHECK(nested.high == Approx(plain.high).margin(0.26));
  CHECK_THROWS_AS(statistics::seeds_and_games_interval({{1.0}, {}}), std::invalid_argument);
}

TEST_CASE("a paired difference cancels what the pairs share", "[statistics]") {
  const std::vector<double> easy{1, 50, 900}, better{2, 51, 901};
  const auto result = statistics::paired_difference(better, easy);
  CHECK(result.difference == Approx(1));
  CHECK(result.confidence.low == Approx(1));
  CHECK(result.confidence.high == Approx(1));
  CHECK(result.pairs == 3);
  CHECK(result.wins == 3);
  CHECK(result.ties == 0);
  CHECK_THROWS_AS(statistics::paired_difference(better, std::span(easy).first(2)),
                  std::invalid_argument);
}

}  // namespace common_statistics_test
