// SPDX-License-Identifier: MIT
#include "support.hpp"

#include <common/adam.hpp>

namespace common_adam_test {

TEST_CASE("adam in one pass follows torch::optim::Adam, clipped gradients and a parameter that "
          "sometimes has none included") {
  torch::manual_seed(6);
  const std::vector<std::vector<std::int64_t>> shapes{{37, 5}, {5}, {1000}, {1}};
  std::vector<at::Tensor> ours, theirs;
  std::vector<std::pair<std::string, at::Tensor>> named;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    theirs.push_back(at::randn(shapes[i]).set_requires_grad(true));
    ours.push_back(theirs.back().detach().clone().set_requires_grad(true));
    named.emplace_back(std::to_string(i), ours.back());
  }
  training::adam adam(named, {.learning_rate = 0.01, .epsilon = 1e-5});
  torch::optim::Adam reference(theirs, torch::optim::AdamOptions(0.01).eps(1e-5));
  for (int step = 0; step < 40; ++step) {
    adam.zero_grad();
    reference.zero_grad();
    for (std::size_t i = 0; i < shapes.size(); ++i) {
      if (i == 1 && step % 3 == 0) {
        theirs[i].mutable_grad().reset();
        continue;
      }
      const auto gradient = at::randn(shapes[i]) * (step % 4 == 0 ? 0.001 : 1);
      ours[i].mutable_grad() = gradient;
      theirs[i].mutable_grad() = gradient.clone();
    }
    const double norm = adam.step(2.0);
    CHECK(norm == Approx(torch::nn::utils::clip_grad_norm_(theirs, 2.0)).epsilon(1e-5));
    reference.step();
  }
  for (std::size_t i = 0; i < shapes.size(); ++i)
    CHECK(support::relative_error(ours[i].detach(), theirs[i].detach()) < 1e-5);
}

TEST_CASE("adam goes on bit for bit after save and load") {
  torch::manual_seed(7);
  const auto make = [] { return at::arange(10, at::kFloat).set_requires_grad(true); };
  auto straight = make(), stopped = make();
  training::adam a({{"w", straight}}, {}), b({{"w", stopped}}, {});
  std::vector<at::Tensor> gradients;
  for (int i = 0; i < 6; ++i) gradients.push_back(at::randn({10}));
  for (int i = 0; i < 6; ++i) {
    straight.mutable_grad() = gradients[static_cast<std::size_t>(i)];
    a.step();
  }
  for (int i = 0; i < 3; ++i) {
    stopped.mutable_grad() = gradients[static_cast<std::size_t>(i)];
    b.step();
  }
  retain::state state;
  b.save_state(state, "adam.");
  auto resumed = stopped.detach().clone().set_requires_grad(true);
  training::adam c({{"w", resumed}}, {});
  c.load_state(state, "adam.");
  for (int i = 3; i < 6; ++i) {
    resumed.mutable_grad() = gradients[static_cast<std::size_t>(i)];
    c.step();
  }
  CHECK(at::equal(resumed, straight));
  auto other = at::zeros({4}).set_requires_grad(true);
  training::adam d({{"w", other}}, {});
  CHECK_THROWS_AS(d.load_state(state, "adam."), retain::shape_error);
}

}  // namespace common_adam_test
