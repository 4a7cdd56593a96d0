// SPDX-License-Identifier: MIT
#include <retain/policy/twin_critic.hpp>
#include <retain/policy/orthogonal.hpp>

#include "support.hpp"

TEST_CASE("orthogonal: rows or columns are orthogonal and of the length of the gain, biases 0, scales as they were", "[orthogonal]") {
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Conv2d(2, 4, 3), torch::nn::LayerNorm(torch::nn::LayerNormOptions({6})), torch::nn::Linear(4, 9));
  retain::orthogonal(net, 1.5);
  const auto parameters = net->named_parameters();
  const auto kernels = parameters["0.weight"].detach().view({4, 18});
  CHECK(at::allclose(kernels.mm(kernels.t()), 2.25 * torch::eye(4), 1e-4, 1e-5));
  const auto tall = parameters["2.weight"].detach();
  CHECK(at::allclose(tall.t().mm(tall), 2.25 * torch::eye(4), 1e-4, 1e-5));
  CHECK(parameters["0.bias"].abs().sum().item<double>() == 0);
  CHECK(parameters["1.weight"].equal(torch::ones({6})));
  CHECK(parameters["2.weight"].requires_grad());
}

TEST_CASE("orthogonal: every critic of a twin_critic by itself", "[orthogonal]") {
  torch::manual_seed(3);
  retain::twin_critic critics(8, 2, retain::twin_critic_options{.hidden = {16, 16}, .normalised_input = true});
  retain::orthogonal(critics, 1.5);
  for (const auto& item : critics->named_parameters()) {
    INFO(item.key());
    const auto& value = item.value();
    if (item.key().ends_with("bias")) {
      CHECK(value.abs().max().item<double>() == 0);
    } else if (item.key().starts_with("norm")) {
      CHECK(value.eq(1).all().item<bool>());
    } else {
      for (std::int64_t k = 0; k < 2; ++k) {
        const auto one = value[k].detach();  // [in, out]
        const auto square = one.size(0) <= one.size(1) ? one.mm(one.t()) : one.t().mm(one);
        CHECK(torch::allclose(square, torch::eye(square.size(0)) * 2.25, 1e-4, 1e-5));
      }
      CHECK_FALSE(value[0].equal(value[1]));
    }
  }
}
