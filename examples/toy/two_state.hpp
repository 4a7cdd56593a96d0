// SPDX-License-Identifier: MIT
// The two-state MDP of Wołczyk et al. 2024 (arXiv 2402.02868, section 2), a minimal problem in
// which fine-tuning forgets.
#pragma once

#include <Eigen/Dense>

#include <algorithm>
#include <cmath>
#include <vector>

namespace toy {

/// The policy has one parameter θ in [0, 1]. From s0 (CLOSE) the agent goes to s1 (FAR) with
/// probability θ. In s1 it stays with probability f(θ). Both skills depend on θ, so learning the
/// first skill changes the second:
///
///     from s0 to s1   θ         reward 1          from s1 to s1   f(θ)       reward 1
///     from s0 to s0   1 − θ     reward r0         from s1 to s0   1 − f(θ)   reward r1
///
///     f(θ) = 1 − εθ / (1 − ε/2)   for θ ≤ 1 − ε/2
///     f(θ) = 2θ − 1               for larger θ
///
/// For ε = 1, f is the V-shape 2 |θ − 1/2|.
struct two_state_mdp {
  double epsilon = 1, r0 = 0, r1 = -1, discount = 0.9;

  /// The θ of the kink of f, where f has its lowest value 1 − ε.
  double kink() const { return 1 - epsilon / 2; }
  double stay(double theta) const {
    return theta <= kink() ? 1 - epsilon * theta / kink() : 2 * theta - 1;
  }
  /// The derivative f'. At the kink, returns the left derivative.
  double stay_slope(double theta) const { return theta <= kink() ? -epsilon / kink() : 2; }
};

/// State coverage gap: the pre-trained policy has θ = 0. It is perfect in s1 but never leaves s0.
inline constexpr two_state_mdp coverage_gap{.epsilon = 1, .r0 = 0, .r1 = -1};
/// Imperfect cloning gap: the expert has θ = 1, and the cloned policy has a slightly smaller θ.
inline constexpr two_state_mdp cloning_gap{.epsilon = 0.05, .r0 = 0.99, .r1 = 0};

namespace detail {

struct bellman {
  Eigen::Matrix2d system;  // 1 − γP
  Eigen::Vector2d reward;
};

inline bellman bellman_of(const two_state_mdp& mdp, double theta) {
  const double f = mdp.stay(theta);
  Eigen::Matrix2d transition;
  transition << 1 - theta, theta,  //
      1 - f, f;
  return {Eigen::Matrix2d::Identity() - mdp.discount * transition,
          {theta + (1 - theta) * mdp.r0, f + (1 - f) * mdp.r1}};
}

}  // namespace detail

/// Returns (v(s0), v(s1)), the solution of the Bellman equations v = r + γPv, in units of
/// discounted reward.
inline Eigen::Vector2d values(const two_state_mdp& mdp, double theta) {
  const auto [system, reward] = detail::bellman_of(mdp, theta);
  return system.partialPivLu().solve(reward);
}

/// Returns dv/dθ for both states. Solves the derivative of the Bellman equations: (1 − γP) v' = r'
/// + γP'v.
inline Eigen::Vector2d value_slopes(const two_state_mdp& mdp, double theta) {
  const auto [system, reward] = detail::bellman_of(mdp, theta);
  const Eigen::PartialPivLU<Eigen::Matrix2d> solver(system);
  const Eigen::Vector2d v = solver.solve(reward);
  const double slope = mdp.stay_slope(theta);
  // the value of a small increase of the probability of s1
  const double step = mdp.discount * (v[1] - v[0]);
  return solver.solve(Eigen::Vector2d{1 - mdp.r0 + step, slope * (1 - mdp.r1 + step)});
}

/// The paper's formula for v(s0):
///
/// 1/(1−γ) · [θ + r0 (1−θ)(1−γf) + γθ r1 (1−f)] / (1 − γf + γθ)
///
/// It is an independent check of `values`, which does not use it.
inline double value_formula(const two_state_mdp& mdp, double theta) {
  const double f = mdp.stay(theta), g = mdp.discount;
  return (theta + mdp.r0 * (1 - theta) * (1 - g * f) + g * theta * mdp.r1 * (1 - f)) /
         ((1 - g) * (1 - g * f + g * theta));
}

struct optimum {
  double theta = 0, value = 0;
  /// the basin: gradient ascent from a start between low and high ends at this optimum
  double low = 0, high = 1;
};

/// Returns the local maxima of v(s0) on [0, 1] from left to right, with an accuracy of about
/// 1e-12. Maxima are sign changes of the exact slope, and the ends 0 and 1 if v(s0) increases
/// towards them.
inline std::vector<optimum> optima(const two_state_mdp& mdp, int cells = 4000) {
  const auto rising = [&](double theta) { return value_slopes(mdp, theta)[0] > 0; };
  std::vector<optimum> found;
  double bottom = 0;
  bool up = rising(0);
  if (!up) found.push_back({0, values(mdp, 0)[0], 0, 1});
  for (int i = 1; i <= cells; ++i) {
    double low = static_cast<double>(i - 1) / cells, high = static_cast<double>(i) / cells;
    if (rising(high) == up) continue;
    for (int halving = 0; halving < 50; ++halving) {
      const double middle = (low + high) / 2;
      (rising(middle) == up ? low : high) = middle;
    }
    if (up) {
      found.push_back({low, values(mdp, low)[0], bottom, 1});
    } else {
      bottom = high;
      found.back().high = bottom;
    }
    up = !up;
  }
  if (up) found.push_back({1, values(mdp, 1)[0], bottom, 1});
  return found;
}

struct ascent_options {
  double rate = 1e-4;        ///< θ moves by rate · dv(s0)/dθ
  double tolerance = 1e-12;  ///< a step shorter than this ends the ascent
  long most_steps = 2'000'000;
};

struct ascent {
  double start = 0, theta = 0, value = 0;
  long steps = 0;
  bool arrived = false;  ///< false if θ was still moving after `most_steps`
};

/// Models fine-tuning as projected gradient ascent on v(s0) with the exact gradient, θ ← clip(θ +
/// rate · dv(s0)/dθ, 0, 1).
inline ascent climb(const two_state_mdp& mdp, double start, const ascent_options& options = {}) {
  ascent path{start, start, 0, 0, false};
  while (path.steps < options.most_steps && !path.arrived) {
    const double next =
        std::clamp(path.theta + options.rate * value_slopes(mdp, path.theta)[0], 0.0, 1.0);
    path.arrived = std::abs(next - path.theta) < options.tolerance;
    path.theta = next;
    ++path.steps;
  }
  path.value = values(mdp, path.theta)[0];
  return path;
}

}  // namespace toy
