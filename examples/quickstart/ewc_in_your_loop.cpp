// SPDX-License-Identifier: MIT
// Elastic weight consolidation in a loop of PPO.
#include <retain/ewc.hpp>

#include "agent.hpp"  // what you have: agent (a module holder), play(), ppo_loss()

#include <iostream>

int main() {
  torch::manual_seed(1);
  agent policy = pretrained();  // or torch::load(policy, "policy.pt")

  // Before fine-tuning: states of what the policy is to keep. Let it play there, or take recorded
  // states, [N, ...]. The critic has no part in the policy, so the penalty leaves it free.
  const at::Tensor demonstrations = play(policy, region::far, 2000).observations;
  const retain::fisher fisher = retain::estimate_fisher(
      policy, demonstrations, [&](const at::Tensor& states) { return policy->logits(states); },
      retain::sampled_actions{}, {.exclude = {"value_head"}});
  std::cout << fisher.report();  // suggests a strength to begin with
  retain::ewc keep{policy, fisher, {.strength = 3.0}};

  torch::optim::Adam optimizer(policy->parameters(), 3e-3);
  for (int update = 0; update < 1500; ++update) {
    const rollout batch = play(policy, region::close, 128);
    optimizer.zero_grad();
    ppo_loss(policy, batch).backward();
    const at::Tensor penalty = keep.add_gradient(policy);  // after backward(), before clipping
    torch::nn::utils::clip_grad_norm_(policy->parameters(), 0.5);
    optimizer.step();
    if (update % 500 == 499)
      std::cout << "update " << update + 1 << ": reward " << batch.rewards.mean().item<double>()
                << ", penalty " << penalty.item<double>() << '\n';
  }
  const auto logits = [&](const at::Tensor& states) { return policy->logits(states); };
  std::cout << "FAR " << success(logits, region::far) << ", CLOSE "
            << success(logits, region::close) << '\n';
}
