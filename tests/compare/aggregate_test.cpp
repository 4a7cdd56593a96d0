// SPDX-License-Identifier: MIT
// Statistics against values by hand, and against rliable where it is installed.
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <random>
#include <string>

#include "../../benchmarks/compare/aggregate.hpp"
#include "../../benchmarks/compare/comparison_data.hpp"
#include "../../examples/common/temporary_folder.hpp"
#include "../common/program.hpp"

namespace aggregate_test {
using namespace compare;

TEST_CASE("means, medians and interquartile means of tasks", "[compare]") {
  const strata tasks{{1, 2, 3, 10}, {0, 0, 0, 4}, {5, 5, 5, 5}};
  CHECK(mean_of_tasks(tasks) == Approx((4.0 + 1 + 5) / 3));
  CHECK(median_of_tasks(tasks) == 4);
  CHECK(median_of_tasks({{1, 2, 3, 10}}) == 2.5);  // one task: of its runs
  // twelve values: 0 0 0 1 2 3 4 5 5 5 5 10; the middle six
  CHECK(interquartile_mean_of(tasks) == Approx((1.0 + 2 + 3 + 4 + 5 + 5) / 6));
}

TEST_CASE("the probability of improvement", "[compare]") {
  CHECK(probability_of_improvement({{1, 2}}, {{0, 0}}) == 1);
  CHECK(probability_of_improvement({{1, 1}}, {{1, 1, 1}}) == 0.5);
  // of 6 pairs: 2 > 1, 2 = 2, 2 < 3, 4 > 1 2 3
  CHECK(probability_of_improvement({{2, 4}}, {{1, 2, 3}}) == Approx(4.5 / 6));
  CHECK(probability_of_improvement({{2, 4}, {0}}, {{1, 2, 3}, {1}}) == Approx(4.5 / 12));
  CHECK(probability_of_improvement({{2}, {}}, {{1}, {1}}) == 1);  // only the tasks of both
  CHECK(std::isnan(probability_of_improvement({{}}, {{1}})));
}

TEST_CASE("a performance profile is a share, mean over tasks", "[compare]") {
  const strata tasks{{1, 2, 3, 4}, {3, 3}};
  CHECK(share_above(tasks, 0) == 1);
  CHECK(share_above(tasks, 2) == Approx((0.5 + 1) / 2));
  CHECK(share_above(tasks, 3) == Approx(0.125));  // above, not at
  CHECK(share_above(tasks, 4) == 0);
}

TEST_CASE("no interval below five seeds, in any task", "[compare]") {
  const auto missing = [](const statistics::interval& range) {
    return std::isnan(range.low) && std::isnan(range.high);
  };
  CHECK(missing(interval_of({{1, 2, 3, 4}}, mean_of_tasks)));
  CHECK(missing(interval_of({{1, 2, 3, 4, 5}, {1, 2, 3, 4}}, mean_of_tasks)));
  CHECK(missing(interval_of({{1, 2, 3, 4, 5}}, {{1, 2}}, probability_of_improvement)));
  const auto range = interval_of({{1, 2, 3, 4, 5}}, mean_of_tasks);
  CHECK(range.low < 3);
  CHECK(range.high > 3);
}

TEST_CASE("resamples stay within their task", "[compare]") {
  // Each task is constant, so every resample has the same mean; drawn from the joined runs it would
  // vary.
  const strata tasks{{0, 0, 0, 0, 0}, {10, 10, 10, 10, 10}};
  const auto range = interval_of(tasks, interquartile_mean_of);
  CHECK(range.low == 5);
  CHECK(range.high == 5);
}

TEST_CASE("the interval of the mean covers as often as it says", "[compare]") {
  std::mt19937_64 random(7);
  std::normal_distribution<double> normal;
  statistics::bootstrap_options options;
  options.resamples = 400;
  int covered = 0;
  constexpr int times = 400;
  for (int i = 0; i < times; ++i) {
    strata runs(1, std::vector<double>(20));
    for (double& value : runs.front()) value = normal(random);
    const auto range = interval_of(runs, mean_of_tasks, options);
    covered += range.low <= 0 && 0 <= range.high ? 1 : 0;
  }
  // The percentile bootstrap with 20 values covers about 93 %; the standard error here is 1.3 %.
  CHECK(covered > times * 0.89);
  CHECK(covered < times * 0.98);
}

TEST_CASE("areas, values between points, and common steps", "[compare]") {
  const curve a{{0, 0}, {10, 1}, {30, 1}}, b{{0, 5}, {20, 7}, {30, 8}};
  CHECK(area(a) == Approx((5.0 + 20) / 30));
  CHECK(area({{7, 3}}) == 3);
  CHECK(std::isnan(area({})));
  CHECK(value_at(a, 5) == 0.5);
  CHECK(value_at(b, 10) == 6);
  CHECK(value_at(b, 20) == 7);
  CHECK(std::isnan(value_at(a, 31)));
  CHECK(common_steps({&a, &b}) == std::vector<double>{0, 10, 20, 30});
  const curve later{{10, 0}, {20, 0}};
  CHECK(common_steps({&a, &later}) == std::vector<double>{10, 20});
}

TEST_CASE("forgetting and backward transfer by hand", "[compare]") {
  run_result run;
  run.curves["far"] = {{0, 0.5}, {1, 0.9}, {2, 0.2}, {3, 0.3}};
  measure_style style;
  style.name = "far";
  CHECK(transfer_of(run, style).forgetting == Approx(0.6));
  CHECK(transfer_of(run, style).backward == Approx(-0.2));
  style.higher_is_better = false;  // the best is .2
  CHECK(transfer_of(run, style).forgetting == Approx(0.1));
  CHECK(transfer_of(run, style).backward == Approx(0.2));
  style.name = "other";
  CHECK(std::isnan(transfer_of(run, style).forgetting));
}

TEST_CASE("rliable computes the same", "[compare]") {
  const char* wanted = std::getenv("RETAIN_RLIABLE_PYTHON");
  const programs::program python{wanted == nullptr ? "/usr/bin/env" : wanted};
  const std::string first = wanted == nullptr ? "python3 " : "";
  if (python(first + "-c 'from rliable import library'").code != 0) {
    skip_test("rliable is not installed; python3 -m venv V && V/bin/pip install rliable, and set "
              "RETAIN_RLIABLE_PYTHON=V/bin/python");
    return;
  }
  // 3 tasks of 8 runs: 24 is a multiple of 4, so both interquartile means are the same
  std::mt19937_64 random(3);
  std::uniform_real_distribution<double> uniform;
  strata x(3, std::vector<double>(8)), y = x;
  for (std::size_t t = 0; t < 3; ++t)
    for (std::size_t i = 0; i < 8; ++i) {
      x[t][i] = 0.3 + 0.2 * static_cast<double>(t) + 0.4 * uniform(random);
      y[t][i] = 0.2 + 0.2 * static_cast<double>(t) + 0.5 * uniform(random);
    }
  const temporary_folder folder;
  write_ordered(folder / "data.json", {{"x", x}, {"y", y}, {"thresholds", {0.4, 0.6, 0.8}}});
  const auto answer = python(first + "'" RETAIN_SOURCE "/tests/compare/rliable_values.py' '" +
                             folder.file("data.json") + "' '" + folder.file("answer.json") + "'");
  CAPTURE(answer.text);
  REQUIRE(answer.code == 0);
  const auto theirs = read_ordered(folder / "answer.json");
  const auto number = [&](const char* name) { return theirs.at(name).get<double>(); };
  CHECK(mean_of_tasks(x) == Approx(number("mean")));
  CHECK(median_of_tasks(x) == Approx(number("median")));
  CHECK(interquartile_mean_of(x) == Approx(number("iqm")));
  CHECK(probability_of_improvement(x, y) == Approx(number("poi")));
  for (std::size_t i = 0; i < 3; ++i)
    CHECK(share_above(x, std::vector<double>{0.4, 0.6, 0.8}[i]) ==
          Approx(theirs.at("profile").at(i).get<double>()));
  // Two bootstraps of thousands of resamples with other random numbers: a twentieth of the width.
  const auto close = [&](const statistics::interval& ours, const char* name) {
    const auto low = theirs.at(name).at(0).get<double>(),
               high = theirs.at(name).at(1).get<double>();
    CAPTURE(name, ours.low, low, ours.high, high);
    CHECK(std::abs(ours.low - low) < 0.05 * (high - low));
    CHECK(std::abs(ours.high - high) < 0.05 * (high - low));
  };
  close(interval_of(x, mean_of_tasks), "mean_interval");
  close(interval_of(x, interquartile_mean_of), "iqm_interval");
  close(interval_of(x, y, probability_of_improvement), "poi_interval");
}

}  // namespace aggregate_test
