// SPDX-License-Identifier: MIT
// The policy of AppleRetrieval as a torch::nn::Linear, and REINFORCE with its gradient in closed
// form.
#pragma once

#include <retain/categorical.hpp>

#include <ATen/ATen.h>
#include <torch/nn/modules/linear.h>

#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <utility>

#include "apple_retrieval.hpp"

namespace toy {

/// Makes a policy with one weight and one bias in double. Both are 0 by default.
inline torch::nn::Linear make_policy(const apple_weights& start = {}) {
  torch::nn::Linear policy(1, 1);
  policy->to(at::kDouble);
  const at::NoGradGuard no_grad;
  policy->weight.fill_(start.w);
  policy->bias.fill_(start.b);
  return policy;
}

inline apple_weights weights_of(const torch::nn::Linear& policy) {
  return {*policy->weight.data_ptr<double>(), *policy->bias.data_ptr<double>()};
}

/// Returns the distribution over the actions left and right, with the logits 0 and w·o + b.
/// `observations` has the shape [n, 1].
inline retain::categorical act(torch::nn::Linear policy, const at::Tensor& observations) {
  const auto logit = policy->forward(observations);
  return retain::categorical{at::cat({at::zeros_like(logit), logit}, 1)};
}

/// The observations of phase 2, shape [1, 1]. All observations of phase 2 are equal, so one row
/// replaces any number of stored observations.
inline at::Tensor far_observations(const apple_world& world) {
  return at::full({1, 1}, world.signal, at::kDouble);
}
inline at::Tensor close_observations(const apple_world& world) { return -far_observations(world); }

struct reinforce_options {
  double rate = 1e-3;     ///< learning rate of stochastic gradient ascent
  double discount = 0.9;  ///< discount factor of the return
  int episodes = 10;      ///< episodes per update
  /// pre-training ends when the policy takes the correct action in phase 2 with this probability
  double mastery = 0.95;
};

/// Σ_t (a_t − π(right|o_t)) G_t over the steps of each phase, with a_t = 1 for right and G_t = Σ_k
/// γ^k r_{t+k}. They determine the policy gradient: the gradient of Σ_t log π(a_t|o_t) G_t is (c
/// (far − close), close + far) for (w, b).
struct score_sums {
  double close = 0, far = 0;
};

inline score_sums scores(const apple_episode& episode, double right1, double right2,
                         double discount) {
  score_sums sums;
  double gain = 0;
  for (std::size_t t = episode.right.size(); t-- > 0;) {
    gain = episode.reward(t) + discount * gain;
    const bool close = t < episode.turn;
    (close ? sums.close : sums.far) += (episode.right[t] - (close ? right1 : right2)) * gain;
  }
  return sums;
}

/// Plays the episodes of one update from the start of `phase`. Returns the policy gradient,
/// averaged over episodes.
inline apple_weights policy_gradient(const apple_world& world, const apple_weights& policy,
                                     int phase, const reinforce_options& options,
                                     random_numbers& random, apple_episode& episode) {
  const double right1 = policy.right(world, 1), right2 = policy.right(world, 2);
  score_sums all;
  for (int i = 0; i < options.episodes; ++i) {
    play(world, policy, phase, random, episode);
    const auto sums = scores(episode, right1, right2, options.discount);
    all.close += sums.close;
    all.far += sums.far;
  }
  return {world.signal * (all.far - all.close) / options.episodes,
          (all.close + all.far) / options.episodes};
}

/// Writes −`ascent` into `.grad`, because optimizers minimize.
inline void set_gradient(const torch::nn::Linear& policy, const apple_weights& ascent) {
  const auto write = [](const at::Tensor& parameter, double value) {
    auto& gradient = parameter.mutable_grad();
    if (!gradient.defined()) gradient = at::zeros_like(parameter);
    *gradient.data_ptr<double>() = -value;
  };
  write(policy->weight, ascent.w);
  write(policy->bias, ascent.b);
}

/// θ ← θ − rate · ∇, the step of torch::optim::SGD without its overhead. The whole experiment
/// makes two million steps.
inline void descend(const torch::nn::Linear& policy, double rate) {
  for (const at::Tensor& parameter : {policy->weight, policy->bias})
    *parameter.data_ptr<double>() -= rate * *parameter.grad().data_ptr<double>();
}

/// Returns the pre-trained policy. Trains on phase 2 only, from w = b = 0, until the policy reaches
/// `mastery`. Every gradient is along (c, 1), so b = w/c. Throws std::runtime_error if 20'000
/// updates are not enough.
inline apple_weights pretrain(const apple_world& world, const reinforce_options& options,
                              random_numbers& random) {
  apple_weights policy;
  apple_episode episode;
  constexpr int enough = 20'000;
  for (int update = 0; update < enough; ++update) {
    if (1 - policy.right(world, 2) >= options.mastery) return policy;
    const auto gradient = policy_gradient(world, policy, 2, options, random, episode);
    policy.w += options.rate * gradient.w;
    policy.b += options.rate * gradient.b;
  }
  throw std::runtime_error("apple: pre-training did not learn phase 2 in " +
                           std::to_string(enough) + " updates: raise --rate or lower --mastery");
}

}  // namespace toy
