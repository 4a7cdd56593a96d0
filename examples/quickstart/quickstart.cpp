// SPDX-License-Identifier: MIT
// A policy is pre-trained on one half of its states (FAR) and then fine-tuned on the other half
// (CLOSE), without and with retention. Then the program prints the share of right actions on both
// halves. It runs in seconds.
//
//     quickstart [--device cuda]
#include <retain/retain.hpp>

#include "world.hpp"

#include <torch/torch.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace {

torch::Device device = torch::kCPU;

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

void train(policy_net& policy, region where, int steps, auto&& extra_loss, auto&& after_backward) {
  torch::optim::Adam optimizer(policy.parameters(), torch::optim::AdamOptions(3e-3));
  for (int step = 0; step < steps; ++step) {
    const batch rollout{states(where, 128, device)};
    const auto task_loss = torch::nn::functional::cross_entropy(
        policy.forward(rollout.observations), right_actions(rollout.observations, where));
    optimizer.zero_grad();
    (task_loss + extra_loss(rollout, step)).backward();
    after_backward(step);
    optimizer.step();
  }
}

const auto nothing = [](const batch&, int) { return torch::zeros({}, device); };
const auto no_step = [](int) {};

void run() {
  torch::manual_seed(1);
  torch::set_num_threads(1);

  const auto report = [](const char* name, policy_net& tuned) {
    const auto logits = [&](const torch::Tensor& observations) {
      return tuned.forward(observations);
    };
    const double far = success(logits, region::far, device);
    std::printf("%-24s FAR %.2f   CLOSE %.2f\n", name, far, success(logits, region::close, device));
    std::fflush(stdout);
  };

  // The pre-trained policy is good on FAR states, which the fine-tuning below never visits.
  auto policy = std::make_shared<policy_net>();
  policy->to(device);
  train(*policy, region::far, 1500, nothing, no_step);
  const std::vector<batch> demonstrations{{states(region::far, 1000, device)},
                                          {states(region::far, 1000, device)}};
  report("pre-trained", *policy);

  const auto copy = [&] { return std::dynamic_pointer_cast<policy_net>(policy->clone()); };

  {
    auto plain = copy();
    train(*plain, region::close, 1500, nothing, no_step);
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
    train(*tuned, region::close, 1500, nothing, [&](int) { keep.add_gradient(*tuned); });
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
        *tuned, region::close, 1500,
        [&](const batch& rollout, int step) {
          keep.step(step);
          return keep.loss(view, rollout);
        },
        no_step);
    report("+ BC + annealed KS", *tuned);
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    for (int i = 1; i < count; ++i) {
      const std::string_view option = arguments[i];
      if (option != "--device" || i + 1 == count) {
        std::fprintf(stderr, "usage: quickstart [--device cpu|cuda]\n");
        return option == "--help" ? 0 : 2;
      }
      device = torch::Device(arguments[++i]);
    }
    if (device.is_cuda() && !torch::cuda::is_available()) {
      std::fprintf(stderr,
                   "quickstart: this LibTorch finds no CUDA device; run it without --device\n");
      return 2;
    }
    run();
  } catch (const std::exception& error) {
    const std::string_view what = error.what();
    std::fprintf(stderr, "quickstart: %.*s\n", static_cast<int>(what.find('\n')), what.data());
    return 1;
  }
}
