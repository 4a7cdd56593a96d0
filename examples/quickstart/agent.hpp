// SPDX-License-Identifier: MIT
// What a user has before retention is added: a network with a value head, rollouts, and PPO.
#pragma once

#include "world.hpp"

#include <retain/loss/ppo.hpp>

struct agent_net : torch::nn::Cloneable<agent_net> {
  agent_net() { reset(); }
  void reset() override {
    using namespace torch::nn;
    body = register_module("body", Sequential(Linear(16, 64), ReLU()));
    action_head = register_module("action_head", Linear(64, 4));
    value_head = register_module("value_head", Linear(64, 1));
  }
  torch::Tensor logits(const torch::Tensor& observations) {
    return action_head->forward(body->forward(observations));
  }
  torch::Tensor value(const torch::Tensor& observations) {
    return value_head->forward(body->forward(observations)).squeeze(-1);
  }
  torch::nn::Sequential body{nullptr};
  torch::nn::Linear action_head{nullptr}, value_head{nullptr};
};
TORCH_MODULE_IMPL(agent, agent_net);

struct rollout {
  torch::Tensor observations, actions, log_probs, rewards;
};

/// Plays n steps. The reward of the right action is 1; each step is an episode.
inline rollout play(agent& policy, region where, int n) {
  const torch::NoGradGuard no_grad;
  const auto observations = states(where, n);
  const retain::categorical now{policy->logits(observations)};
  const auto actions = now.sample();
  return {observations, actions, now.log_prob(actions),
          (actions == right_actions(observations, where)).to(torch::kFloat)};
}

/// The loss of PPO: clipped policy loss, value loss and entropy bonus.
inline torch::Tensor ppo_loss(agent& policy, const rollout& batch) {
  const retain::categorical now{policy->logits(batch.observations)};
  const auto values = policy->value(batch.observations);
  const auto ratio = (now.log_prob(batch.actions) - batch.log_probs).exp();
  const auto advantages = batch.rewards - values.detach();
  return -torch::min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean() +
         0.5 * (values - batch.rewards).square().mean() - 0.01 * now.entropy().mean();
}

/// The policy that plays well already: right on FAR states.
inline agent pretrained() {
  agent policy;
  torch::optim::Adam optimizer(policy->parameters(), 3e-3);
  for (int update = 0; update < 1500; ++update) {
    optimizer.zero_grad();
    ppo_loss(policy, play(policy, region::far, 128)).backward();
    optimizer.step();
  }
  return policy;
}
