// SPDX-License-Identifier: MIT
// Runs AppleRetrieval: fine-tunes a pre-trained policy with every method, for several worlds and
// seeds, on several threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "../common/parallel.hpp"
#include "../common/progress.hpp"
#include "../common/statistics.hpp"
#include "apple_retention.hpp"

namespace toy {

/// A method and its strength.
struct apple_arm {
  std::string method;
  double strength = 0;
};

struct apple_plan {
  std::vector<apple_world> worlds;
  std::vector<apple_arm> arms;
  std::vector<unsigned long> seeds;
  reinforce_options learning;
  int updates = 2000;
  int every = 10;  ///< updates between two measurements
};

/// A measurement during fine-tuning. All values are exact for the current policy.
struct apple_point {
  int update = 0;
  double full = 0;   ///< probability of success of a whole episode
  double reach = 0;  ///< probability of reaching the apple
  /// probability of getting home from the apple, the pre-trained skill
  double far = 0;
  double logit1 = 0, logit2 = 0;  ///< logits of the action "right" in phases 1 and 2
};

struct apple_run {
  std::size_t world = 0, arm = 0;  ///< indices in the plan
  unsigned long seed = 0;
  apple_weights start, end;
  std::vector<apple_point> points;

  double lowest_far() const {
    return std::min_element(points.begin(), points.end(),
                            [](const auto& a, const auto& b) { return a.far < b.far; })
        ->far;
  }
  double last_full() const { return points.back().full; }
  /// The mean success of whole episodes over training, which is the area under the curve of
  /// success.
  double area() const {
    double sum = 0;
    for (const auto& point : points) sum += point.full;
    return sum / static_cast<double>(points.size());
  }
};

inline apple_point measure(const apple_world& world, const apple_weights& policy, int update) {
  const double right1 = policy.right(world, 1), right2 = policy.right(world, 2);
  const auto whole = exact_outcome(world, right1, right2);
  return {update,
          whole.success,
          whole.reach,
          exact_outcome(world, right1, right2, 2).success,
          policy.logit(world, 1),
          policy.logit(world, 2)};
}

/// Trains with REINFORCE on whole episodes from `start`. All methods with the same seed use the
/// same random numbers.
inline apple_run finetune(const apple_plan& plan, std::size_t world_index, std::size_t arm_index,
                          unsigned long seed, const apple_weights& start) {
  const auto& world = plan.worlds[world_index];
  const auto& arm = plan.arms[arm_index];
  apple_run run{world_index, arm_index, seed, start, {}, {}};
  const auto policy = make_policy(start);
  const auto retain = make_retention(arm.method, policy, world, arm.strength);
  random_numbers random(seed, 2);
  apple_episode episode;
  for (int update = 0; update < plan.updates; ++update) {
    const auto now = weights_of(policy);
    if (update % plan.every == 0) run.points.push_back(measure(world, now, update));
    set_gradient(policy, policy_gradient(world, now, 1, plan.learning, random, episode));
    retain();
    descend(policy, plan.learning.rate);
  }
  run.end = weights_of(policy);
  run.points.push_back(measure(world, run.end, plan.updates));
  return run;
}

/// Makes all runs of the plan, in the order worlds, seeds, arms. The results do not depend on
/// `threads`.
inline std::vector<apple_run> run_all(const apple_plan& plan, std::size_t threads,
                                      const std::string& what) {
  const std::size_t arms = plan.arms.size(), seeds = plan.seeds.size(),
                    starts = plan.worlds.size() * seeds;
  std::vector<apple_run> runs(starts * arms);
  progress shown(what, static_cast<double>(starts * arms), "runs");
  const auto work = [&](std::size_t i) {
    const auto world = i / arms / seeds, arm = i % arms;
    const auto seed = plan.seeds[i / arms % seeds];
    // Each arm repeats the pre-training. This costs less than waiting for the result of another
    // thread.
    random_numbers random(seed, 1);
    const auto start = plan.arms[arm].method == "scratch"
                           ? apple_weights{}
                           : pretrain(plan.worlds[world], plan.learning, random);
    runs[i] = finetune(plan, world, arm, seed, start);
  };
  parallel(runs.size(), threads, work,
           [&](std::size_t done) { shown.update(static_cast<double>(done)); });
  shown.finish(static_cast<double>(runs.size()));
  return runs;
}

/// Returns `of(run)` for the runs of one world and arm, in the order of the plan's seeds.
inline std::vector<double> over_seeds(const std::vector<apple_run>& runs, std::size_t world,
                                      std::size_t arm,
                                      const std::function<double(const apple_run&)>& of) {
  std::vector<double> values;
  for (const auto& run : runs)
    if (run.world == world && run.arm == arm) values.push_back(of(run));
  return values;
}

}  // namespace toy
