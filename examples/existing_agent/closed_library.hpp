// SPDX-License-Identifier: MIT
// A stand-in for a library of agents that you cannot edit: the loss, the backward pass, the
// clipping and the optimizer step are inside `update`.
#pragma once

#include "courier.hpp"

#include <torch/torch.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace closed {

/// A policy and its baseline.
struct network : torch::nn::Cloneable<network> {
  network() { reset(); }
  void reset() override {
    using namespace torch::nn;
    body = register_module("body", Sequential(Linear(courier::inputs, 64), Tanh(), Linear(64, 64),
                                              Tanh(), Linear(64, courier::choices)));
  }
  /// Returns the logits of the actions.
  torch::Tensor forward(const torch::Tensor& observations) { return body->forward(observations); }
  torch::nn::Sequential body{nullptr};
};

struct batch {
  torch::Tensor observations, actions, advantages;
};

/// An agent with an update that cannot be changed: a policy gradient with clipped norm and Adam.
class agent {
 public:
  explicit agent(std::shared_ptr<network> policy)
      : policy_(std::move(policy)), optimizer_(policy_->parameters(), 3e-3) {}

  /// Plays `steps` steps on all boards of the world. The advantages are discounted returns, with
  /// mean 0 and standard deviation 1 in each step of the boards.
  batch play(courier& world, int steps, double gamma = 0.9) {
    const torch::NoGradGuard no_grad;
    std::vector<torch::Tensor> observations, actions, rewards;
    for (int t = 0; t < steps; ++t) {
      observations.push_back(world.observe());
      actions.push_back(
          policy_->forward(observations.back()).softmax(-1).multinomial(1).squeeze(-1));
      rewards.push_back(world.step(actions.back()));
    }
    auto sum = torch::zeros_like(rewards[0]);
    for (auto t = rewards.size(); t-- > 0;) rewards[t] = sum = rewards[t] + gamma * sum;
    const auto returns = torch::stack(rewards);
    const auto advantages = (returns - returns.mean(1, true)) / (returns.std(1, true, true) + 1e-8);
    return {torch::cat(observations), torch::cat(actions), advantages.flatten()};
  }

  void update(const batch& b) {
    const auto logs = policy_->forward(b.observations).log_softmax(-1);
    const auto chosen = logs.gather(-1, b.actions.unsqueeze(-1)).squeeze(-1);
    const auto entropy = -(logs.exp() * logs).sum(-1).mean();
    optimizer_.zero_grad();
    (-(chosen * b.advantages).mean() - 0.01 * entropy).backward();
    torch::nn::utils::clip_grad_norm_(policy_->parameters(), 0.5);
    optimizer_.step();
  }

 private:
  std::shared_ptr<network> policy_;
  torch::optim::Adam optimizer_;
};

}  // namespace closed
