// SPDX-License-Identifier: MIT
// AppleRetrieval (Wołczyk et al. 2024, arXiv 2402.02868, section 2): the agent walks on a line to
// an apple and back, with a policy of two parameters.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace toy {

/// In phase 1 (CLOSE) the agent walks from 0 to the apple at `distance`; the correct action is
/// right. In phase 2 (FAR) it walks home to 0; the correct action is left. A correct step has the
/// reward 1, every other step −1. No step leads below 0.
struct apple_world {
  int distance = 30;     ///< M: steps to the apple
  double signal = 0.25;  ///< c: the observation is −c in phase 1 and +c in phase 2
  int cap = 100;         ///< most steps of an episode, for both phases together
};

class apple_retrieval {
 public:
  /// Starts an episode in phase 1 at 0, or in phase 2 at the apple with all steps left.
  explicit apple_retrieval(const apple_world& world, int phase = 1)
      : world_(world), phase_(phase), place_(phase == 1 ? 0 : world.distance) {}

  /// Makes a step to the right or to the left, and returns the reward.
  double step(bool right) {
    const double reward = right == (phase_ == 1) ? 1 : -1;
    if (right)
      ++place_;
    else if (place_ > 0)
      --place_;
    ++steps_;
    if (phase_ == 1 && place_ >= world_.distance)
      phase_ = 2;
    else if (phase_ == 2 && place_ == 0)
      home_ = true;
    return reward;
  }

  double observation() const { return phase_ == 1 ? -world_.signal : world_.signal; }
  bool over() const { return home_ || steps_ >= world_.cap; }
  bool success() const { return home_; }
  int phase() const { return phase_; }
  int place() const { return place_; }
  int steps() const { return steps_; }

 private:
  apple_world world_;
  int phase_, place_, steps_ = 0;
  bool home_ = false;
};

inline double sigmoid(double z) { return 1 / (1 + std::exp(-z)); }

/// π(right | o) = σ(w·o + b).
struct apple_weights {
  double w = 0, b = 0;

  double logit(const apple_world& world, int phase) const {
    return (phase == 1 ? -world.signal : world.signal) * w + b;
  }
  double right(const apple_world& world, int phase) const { return sigmoid(logit(world, phase)); }
};

/// The exact results of a policy, computed from the probabilities of all positions.
struct apple_outcome {
  double reach = 0;    ///< probability of reaching the apple
  double success = 0;  ///< probability of reaching the apple and getting home
  double reward = 0;   ///< expected sum of rewards
};

/// Computes the exact results from the probabilities `right1` and `right2` of the action right in
/// phases 1 and 2, for an episode that starts in `phase`. Takes about 10 µs for 100 steps.
inline apple_outcome exact_outcome(const apple_world& world, double right1, double right2,
                                   int phase = 1) {
  const auto apple = static_cast<std::size_t>(world.distance);
  const auto last = apple + static_cast<std::size_t>(world.cap);  // no episode gets farther
  std::vector<double> there(apple + 1), back(last + 2), next_there(apple + 1), next_back(last + 2);
  apple_outcome all;
  (phase == 1 ? there[0] : back[apple]) = 1;
  if (phase == 2) all.reach = 1;
  double on_the_way = phase == 1 ? 1 : 0, on_the_way_back = 1 - on_the_way;
  std::size_t far = phase == 1 ? 0 : apple;  // the farthest position that phase 2 can have reached
  for (int t = 0; t < world.cap; ++t) {
    all.reward += on_the_way * (2 * right1 - 1) + on_the_way_back * (1 - 2 * right2);
    const double arriving = there[apple - 1] * right1;
    if (on_the_way > 0) {
      next_there[0] = (there[0] + (apple > 1 ? there[1] : 0)) * (1 - right1);
      for (std::size_t x = 1; x < apple; ++x)
        next_there[x] = there[x - 1] * right1 + there[x + 1] * (1 - right1);
      there.swap(next_there);
    }
    const double coming_home = back[1] * (1 - right2);
    far = std::max(far, apple) + 1;
    for (std::size_t x = 1; x < far; ++x)
      next_back[x] = back[x - 1] * right2 + back[x + 1] * (1 - right2);
    next_back[far] = back[far - 1] * right2;
    next_back[apple] += arriving;
    back.swap(next_back);
    on_the_way -= arriving;
    on_the_way_back += arriving - coming_home;
    all.reach += arriving;
    all.success += coming_home;
  }
  return all;
}

/// Random numbers in [0, 1) that are identical on every machine.
class random_numbers {
 public:
  /// Different values of `stream` give independent numbers for different purposes.
  explicit random_numbers(unsigned long seed, unsigned stream = 0) {
    std::seed_seq all{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32),
                      stream};
    generator_.seed(all);
  }
  double operator()() { return static_cast<double>(generator_() >> 11) * 0x1p-53; }

 private:
  std::mt19937_64 generator_;
};

/// The actions of one episode. The phase and the action determine each reward.
struct apple_episode {
  std::vector<std::uint8_t> right;  ///< the action of each step
  std::size_t turn = 0;             ///< number of steps in phase 1; all later steps are in phase 2
  bool success = false;

  double reward(std::size_t t) const { return (right[t] != 0) == (t < turn) ? 1 : -1; }
};

/// Plays one episode and stores it in `episode`. Reuses the memory of `episode`.
inline void play(const apple_world& world, const apple_weights& policy, int phase,
                 random_numbers& random, apple_episode& episode) {
  const double right1 = policy.right(world, 1), right2 = policy.right(world, 2);
  apple_retrieval game(world, phase);
  episode.right.clear();
  episode.turn = 0;
  while (!game.over()) {
    const bool on_the_way = game.phase() == 1;
    const bool right = random() < (on_the_way ? right1 : right2);
    game.step(right);
    episode.right.push_back(right);
    episode.turn += on_the_way ? 1 : 0;
  }
  episode.success = game.success();
}

}  // namespace toy
