// SPDX-License-Identifier: MIT
// Retention for an agent whose update is closed: `closed_library.hpp` stands for a library that you
// cannot edit.
//
// - Weights: `retain::attach` adds the gradient of EWC inside the agent's own backward pass. It
//   costs one pass over the weights, and the agent's clipping and optimizer treat it as a part of
//   the agent's gradient.
// - Outputs: distillation needs the policy's answers in a graph, and the agent keeps its graph to
//   itself. Therefore an optimizer of your own makes a step after each update of the agent. This
//   costs one more forward and backward pass and one more optimizer step: about twice the time of
//   this agent's update. The loss is not weighed against the agent's loss in one gradient: its
//   effect depends on the learning rate of your optimizer. If you can edit the update, add the
//   loss there instead, as agent_after.cpp does.
//
//     closed_agent [SEED [UPDATES]]
#include "closed_library.hpp"

#include <retain/retain.hpp>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

namespace {

/// Returns the mean deliveries of a day, with the best action in each step.
double deliveries(closed::network& policy, courier::weather weather) {
  const torch::NoGradGuard no_grad;
  const int boards = 500;
  courier world(weather, boards, 77);
  double sum = 0;
  for (int step = 0; step < courier::steps_of_a_day; ++step)
    sum += world.step(policy.forward(world.observe()).argmax(-1)).sum().item<double>();
  return sum / boards;
}

void report(const char* what, closed::network& policy) {
  std::printf("%-26s calm %5.2f   storm %5.2f\n", what, deliveries(policy, courier::calm),
              deliveries(policy, courier::storm));
}

}  // namespace

int main(int count, char** arguments) {
  const int seed = count > 1 ? std::atoi(arguments[1]) : 1;
  const int updates = count > 2 ? std::atoi(arguments[2]) : 600;
  const auto seed_of_world = static_cast<std::uint64_t>(seed);
  torch::manual_seed(seed_of_world);
  torch::set_num_threads(1);

  // The pre-trained policy imitates an expert in calm weather.
  auto pretrained = std::make_shared<closed::network>();
  {
    torch::optim::Adam optimizer(pretrained->parameters(), 3e-3);
    const auto smooth = torch::nn::functional::CrossEntropyFuncOptions().label_smoothing(0.1);
    for (std::uint64_t step = 0; step < 1000; ++step) {
      const courier calm(courier::calm, 256, seed_of_world * 100000 + step);
      const auto loss = torch::nn::functional::cross_entropy(pretrained->forward(calm.observe()),
                                                             calm.expert(), smooth);
      optimizer.zero_grad();
      loss.backward();
      optimizer.step();
    }
  }
  report("pre-trained", *pretrained);

  const auto copy = [&] { return std::dynamic_pointer_cast<closed::network>(pretrained->clone()); };
  const auto fine_tune = [&](std::shared_ptr<closed::network> policy, auto&& after_update) {
    torch::manual_seed(seed_of_world);
    closed::agent agent(policy);
    courier world(courier::storm, 64, seed_of_world);
    for (int update = 0; update < updates; ++update) {
      const auto batch = agent.play(world, 32);
      agent.update(batch);
      after_update(batch);
    }
  };
  const auto nothing = [](const closed::batch&) {};

  {
    const auto policy = copy();
    fine_tune(policy, nothing);
    report("fine-tuned", *policy);
  }

  // What retention starts from.
  const auto states = courier(courier::calm, 4000, seed_of_world).observe();
  const retain::teacher teacher{pretrained};
  const auto fisher = retain::estimate_fisher(
      pretrained, states, [&](const auto& o) { return pretrained->forward(o); });

  {
    const auto policy = copy();
    retain::ewc keep{policy, fisher, {.strength = 30.0}};
    const auto guard = retain::attach(keep, policy);
    fine_tune(policy, nothing);
    report("+ EWC", *policy);
  }
  {
    // Behavioral cloning on calm states, by an optimizer of its own.
    const auto policy = copy();
    retain::behavioral_cloning keep{states, teacher, {.strength = 1.0, .batch_size = 256}};
    torch::optim::Adam optimizer(policy->parameters(), 2e-3);
    fine_tune(policy, [&](const closed::batch&) {
      optimizer.zero_grad();
      keep.loss([&](const auto& o) { return policy->forward(o); }).backward();
      optimizer.step();
    });
    report("+ cloning", *policy);
  }
  {
    // Both. The guard is paused, so that the second backward pass does not pull at the weights
    // again.
    const auto policy = copy();
    retain::ewc weights{policy, fisher, {.strength = 3.0}};
    auto guard = retain::attach(weights, policy);
    retain::behavioral_cloning outputs{states, teacher, {.strength = 1.0, .batch_size = 256}};
    torch::optim::Adam optimizer(policy->parameters(), 2e-3);
    fine_tune(policy, [&](const closed::batch&) {
      guard.pause();
      optimizer.zero_grad();
      outputs.loss([&](const auto& o) { return policy->forward(o); }).backward();
      optimizer.step();
      guard.resume();
    });
    report("+ EWC + cloning", *policy);
  }
}
