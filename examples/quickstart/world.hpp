// SPDX-License-Identifier: MIT
// The world of these examples: states with 16 features, of which each has one right action of four.
#pragma once

#include <torch/torch.h>

/// What a policy is asked: CLOSE states come up from the start of fine-tuning, FAR states late or
/// never.
enum class region { close, far };

/// Returns n random states [n, 16]. The first eight features of CLOSE states and the last eight
/// features of FAR states carry information. The other features are noise.
inline torch::Tensor states(region where, int n, torch::Device device = torch::kCPU) {
  const auto seen = torch::randn({n, 8}), unseen = 0.8 * torch::randn({n, 8}) + 1;
  const auto all =
      where == region::far ? torch::cat({unseen, seen}, 1) : torch::cat({seen, unseen}, 1);
  return all.to(device);  // drawn on the CPU, so that every device gets the same states
}

/// Returns the right actions [n]: on FAR states the index of the largest of four features, on CLOSE
/// states the index of the smallest.
inline torch::Tensor right_actions(const torch::Tensor& states, region where) {
  return where == region::far ? states.slice(1, 8, 12).argmax(1) : states.slice(1, 0, 4).argmin(1);
}

/// Returns the share of right actions among the most likely ones. `logits` is a function of states.
double success(auto&& logits, region where, torch::Device device = torch::kCPU) {
  const torch::NoGradGuard no_grad;
  const auto asked = states(where, 4000, device);
  return (logits(asked).argmax(1) == right_actions(asked, where))
      .to(torch::kDouble)
      .mean()
      .template item<double>();
}
