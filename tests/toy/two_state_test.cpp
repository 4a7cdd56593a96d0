// SPDX-License-Identifier: MIT
#include "toy/two_state.hpp"

#include <cmath>

#include "../nethack/catch2.hpp"

namespace toy_two_state_test {

TEST_CASE("two-state MDP: the four optima of the paper", "[toy][two_state]") {
  const auto gap = toy::optima(toy::coverage_gap);
  REQUIRE(gap.size() == 2);
  CHECK(std::abs(gap[0].theta - 1.0 / 9) < 1e-9);
  CHECK(std::abs(gap[0].value - 20.0 / 9) < 1e-9);
  CHECK(std::abs(gap[1].theta - 1) < 1e-12);
  CHECK(std::abs(gap[1].value - 10) < 1e-9);
  CHECK(std::abs(gap[0].high - 0.5) < 1e-9);
  CHECK(std::abs(gap[1].low - 0.5) < 1e-9);

  const auto cloned = toy::optima(toy::cloning_gap);
  REQUIRE(cloned.size() == 2);
  CHECK(std::abs(cloned[0].theta - 0.080) < 1e-3);
  CHECK(std::abs(cloned[0].value - 9.929) < 1e-3);
  CHECK(std::abs(cloned[1].theta - 1) < 1e-12);
  CHECK(std::abs(cloned[1].value - 10) < 1e-9);
  CHECK(std::abs(cloned[1].low - 0.975) < 1e-9);
}

TEST_CASE("two-state MDP: the formula is the solution of the Bellman equations",
          "[toy][two_state]") {
  for (const double epsilon : {1.0, 0.4, 0.05})
    for (const double r0 : {0.0, 0.99, -0.7})
      for (const double r1 : {-1.0, 0.0, 0.3})
        for (const double discount : {0.0, 0.5, 0.9})
          for (int i = 0; i <= 200; ++i) {
            const toy::two_state_mdp mdp{epsilon, r0, r1, discount};
            const double theta = i / 200.0;
            REQUIRE(std::abs(toy::values(mdp, theta)[0] - toy::value_formula(mdp, theta)) < 1e-12);
          }
}

TEST_CASE("two-state MDP: values are those of a long walk", "[toy][two_state]") {
  // Probabilities of the two states carried forward step by step, from either start.
  const toy::two_state_mdp mdp{0.3, 0.2, -0.4, 0.9};
  const double theta = 0.37, f = 1 - 0.3 * theta / 0.85;
  for (const int start : {0, 1}) {
    double in0 = start == 0 ? 1 : 0, total = 0, weight = 1;
    for (int t = 0; t < 600; ++t, weight *= mdp.discount) {
      total +=
          weight * (in0 * (theta * 1 + (1 - theta) * 0.2) + (1 - in0) * (f * 1 + (1 - f) * -0.4));
      in0 = in0 * (1 - theta) + (1 - in0) * (1 - f);
    }
    CHECK(toy::values(mdp, theta)[start] == Approx(total).epsilon(1e-12));
  }
}

TEST_CASE("two-state MDP: slopes against finite differences", "[toy][two_state]") {
  for (const auto& mdp : {toy::coverage_gap, toy::cloning_gap})
    for (int i = 1; i < 400; ++i) {
      const double theta = (i + 0.3) / 400.3, h = 1e-6;
      if (std::abs(theta - mdp.kink()) < 2 * h) continue;
      const Eigen::Vector2d slope = toy::value_slopes(mdp, theta),
                            numeric = (toy::values(mdp, theta + h) - toy::values(mdp, theta - h)) /
                                      (2 * h);
      REQUIRE((slope - numeric).norm() < 1e-5 * (1 + slope.norm()));
    }
}

TEST_CASE("two-state MDP: ascent from anywhere ends in the optimum of its basin",
          "[toy][two_state]") {
  for (const auto& mdp : {toy::coverage_gap, toy::cloning_gap}) {
    const auto best = toy::optima(mdp);
    for (int i = 0; i <= 80; ++i) {
      const double start = i / 80.0;
      const auto path = toy::climb(mdp, start);
      CAPTURE(mdp.epsilon, start, path.theta);
      // at the kink the slope is that of its left side
      const auto& expected = start <= best[0].high ? best[0] : best[1];
      CHECK(path.arrived);
      CHECK(std::abs(path.theta - expected.theta) < 1e-3);
      CHECK(std::abs(path.value - expected.value) < 1e-3);
    }
  }
  CHECK(!toy::climb(toy::coverage_gap, 0, {.most_steps = 10}).arrived);
}

TEST_CASE("two-state MDP: narrow peaks and the V-shape are one family", "[toy][two_state]") {
  for (const double theta : {0.0, 0.2, 0.5, 0.7, 1.0})
    CHECK(toy::coverage_gap.stay(theta) == Approx(2 * std::abs(theta - 0.5)).margin(1e-15));
  CHECK(toy::cloning_gap.stay(0.975) == Approx(0.95));
  CHECK(toy::cloning_gap.stay(1) == Approx(1));
}

}  // namespace toy_two_state_test
