// SPDX-License-Identifier: MIT
// The README's code as a program. A policy is pre-trained on one half of its states (FAR) and then
// fine-tuned on the other half (CLOSE), without and with retention. Then the program prints the
// success on both halves. It runs in seconds.
#include <retain/retain.hpp>

#include <torch/torch.h>

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace {

struct batch {
  torch::Tensor observations;
};

/// A policy network from 16 features to 4 actions.
struct policy_net : torch::nn::Cloneable<policy_net> {
  policy_net() { reset(); }
  void reset() override {
    layers = register_module("layers",
                             torch::nn::Sequential(torch::nn::Linear(16, 64), torch::nn::ReLU(),
                                                   torch::nn::Linear(64, 4)));
  }
  torch::Tensor forward(const torch::Tensor& observations) { return layers->forward(observations); }
  torch::nn::Sequential layers{nullptr};
};

/// Returns n random states. The first eight features of CLOSE states and the last eight features
/// of FAR states carry information. The other features are noise.
torch::Tensor states(bool far, int n) {
  const auto seen = torch::randn({n, 8}), unseen = 0.8 * torch::randn({n, 8}) + 1;
  return far ? torch::cat({unseen, seen}, 1) : torch::cat({seen, unseen}, 1);
}
/// The right action: on FAR states the index of the largest of four features, on CLOSE states the
/// index of the smallest.
torch::Tensor right_action(const torch::Tensor& x, bool far) {
  return far ? x.slice(1, 8, 12).argmax(1) : x.slice(1, 0, 4).argmin(1);
}

double success(policy_net& policy, bool far) {
  const torch::NoGradGuard no_grad;
  const auto x = states(far, 4000);
  return (policy.forward(x).argmax(1) == right_action(x, far))
      .to(torch::kDouble)
      .mean()
      .item<double>();
}

void train(policy_net& policy, bool far, int steps, auto&& extra_loss, auto&& after_backward) {
  torch::optim::Adam optimizer(policy.parameters(), torch::optim::AdamOptions(3e-3));
  for (int step = 0; step < steps; ++step) {
    const batch rollout{states(far, 128)};
    const auto task_loss = torch::nn::functional::cross_entropy(
        policy.forward(rollout.observations), right_action(rollout.observations, far));
    optimizer.zero_grad();
    (task_loss + extra_loss(rollout, step)).backward();
    after_backward(step);
    optimizer.step();
  }
}

const auto nothing = [](const batch&, int) { return torch::zeros({}); };
const auto no_step = [](int) {};

}  // namespace

int main() {
  torch::manual_seed(1);
  torch::set_num_threads(1);

  // The pre-trained policy is good on FAR states, which the fine-tuning below never visits.
  auto policy = std::make_shared<policy_net>();
  train(*policy, /*far=*/true, 1500, nothing, no_step);
  const std::vector<batch> demonstrations{{states(true, 1000)}, {states(true, 1000)}};
  std::printf("pre-trained              FAR %.2f   CLOSE %.2f\n", success(*policy, true),
              success(*policy, false));

  const auto report = [](const char* name, policy_net& tuned) {
    std::printf("%-24s FAR %.2f   CLOSE %.2f\n", name, success(tuned, true), success(tuned, false));
  };
  const auto copy = [&] { return std::dynamic_pointer_cast<policy_net>(policy->clone()); };

  {
    auto plain = copy();
    train(*plain, false, 1500, nothing, no_step);
    report("plain fine-tuning", *plain);
  }
  {
    // Elastic weight consolidation, in three lines. With a higher strength, the policy would keep
    // more of FAR and learn less of CLOSE.
    auto tuned = copy();
    const auto fisher = retain::estimate_fisher(*tuned, demonstrations, [&](const auto& b) {
      return retain::categorical{tuned->forward(b.observations)};
    });
    retain::ewc keep{*tuned, fisher, {.strength = 10.0}};
    train(*tuned, false, 1500, nothing, [&](int) { keep.add_gradient(*tuned); });
    report("+ EWC", *tuned);
  }
  {
    // Two terms together: behavioral cloning on stored states, and kickstarting with decreasing
    // strength on the states that the student visits.
    auto tuned = copy();
    const retain::teacher teacher{policy};
    auto keep = retain::compose(
        retain::behavioral_cloning{
            demonstrations[0].observations, teacher, {.strength = 2.0, .batch_size = 128}},
        retain::kickstarting{
            teacher, {.strength = retain::exponential_decay{.initial = 0.1, .factor = 0.99}}});
    const retain::policy_view view{tuned, [&](const auto& observations) {
                                     return retain::categorical{tuned->forward(observations)};
                                   }};
    train(
        *tuned, false, 1500,
        [&](const batch& rollout, int step) {
          keep.step(step);
          return keep.loss(view, rollout);
        },
        no_step);
    report("+ BC + annealed KS", *tuned);
  }
}
