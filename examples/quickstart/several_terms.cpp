// SPDX-License-Identifier: MIT
// Several terms by name, a monitor of what is forgotten, and a strength that adapts.
#include <retain/retain.hpp>

#include "agent.hpp"

#include <iostream>

int main() {
  torch::manual_seed(1);
  agent policy = pretrained();
  const auto student = [&](const at::Tensor& states) {
    return retain::categorical{policy->logits(states)};
  };
  const at::Tensor demonstrations = play(policy, region::far, 2000).observations;

  // A frozen copy of the policy as it is now.
  const retain::teacher teacher{policy, [](agent& frozen, const at::Tensor& states) {
                                  return retain::categorical{frozen->logits(states)};
                                }};
  retain::retention<> keep;
  keep.add("bc", retain::behavioral_cloning{demonstrations, teacher, {.strength = 0.1}});
  keep.add("ks",
           retain::kickstarting{
               teacher, {.strength = retain::exponential_decay{.initial = 0.1, .factor = 0.99}}});
  retain::monitor watch{teacher};  // measures the KL from teacher to policy
  watch.add("FAR", play(policy, region::far, 500).observations);

  torch::optim::Adam optimizer(policy->parameters(), 3e-3);
  for (int update = 0; update < 1500; ++update) {
    const rollout batch = play(policy, region::close, 128);
    optimizer.zero_grad();
    (ppo_loss(policy, batch) + keep.distillation(student, {.observations = batch.observations}))
        .backward();
    keep.add_gradient(policy);  // of the weight terms, if there are any
    torch::nn::utils::clip_grad_norm_(policy->parameters(), 0.5);
    optimizer.step();
    keep.step(update + 1);  // the schedules' unit is yours, here updates
    if (update % 50 == 49) {
      watch.measure(student, update + 1);
      keep.adapt("bc", watch, "FAR", 0.02);  // moves the strength of "bc" until the KL is 0.02
    }
    if (update % 500 == 499) {
      std::cout << "update " << update + 1 << ": KL on FAR " << watch.kl("FAR");
      for (const auto& term : keep.breakdown())
        std::cout << ", " << term.name << ' ' << term.value.item<double>() << " at strength "
                  << term.strength;
      std::cout << '\n';
    }
  }
  retain::save("retention.state", keep);  // strengths, schedules, teacher, random state
  const auto logits = [&](const at::Tensor& states) { return policy->logits(states); };
  std::cout << "FAR " << success(logits, region::far) << ", CLOSE "
            << success(logits, region::close) << '\n';
}
