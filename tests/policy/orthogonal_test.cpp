// SPDX-License-Identifier: MIT
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
