// SPDX-License-Identifier: MIT
#include <retain/policy/nature_cnn.hpp>

#include <memory>

#include "support.hpp"

namespace policy_nature_cnn_test {

TEST_CASE("nature_cnn: the published network's size, and the layers one after the other",
          "[nature_cnn]") {
  torch::manual_seed(1);
  retain::nature_cnn net(retain::nature_cnn_options{});
  std::int64_t count = 0;
  for (const auto& parameter : net->parameters()) count += parameter.numel();
  CHECK(count ==
        8 * 8 * 4 * 32 + 32 + 4 * 4 * 32 * 64 + 64 + 3 * 3 * 64 * 64 + 64 + 3136 * 512 + 512);

  const auto pictures = torch::randint(0, 256, {2, 3, 4, 84, 84}, at::kByte);
  const auto w = net->parameters();
  auto x = pictures.view({6, 4, 84, 84}).to(at::kFloat) / 255;
  x = torch::relu(at::conv2d(x, w[0], w[1], 4));
  x = torch::relu(at::conv2d(x, w[2], w[3], 2));
  x = torch::relu(at::conv2d(x, w[4], w[5], 1)).flatten(1);
  const auto expected = torch::relu(x.matmul(w[6].t()) + w[7]).view({2, 3, 512});
  CHECK(at::allclose(net(pictures), expected, 1e-4, 1e-5));
}

TEST_CASE(
    "nature_cnn: random network distillation's target, its copy, and pictures that do not fit",
    "[nature_cnn]") {
  torch::manual_seed(2);
  retain::nature_cnn net(
      retain::nature_cnn_options{.channels = 1,
                                 .height = 40,
                                 .width = 44,
                                 .outputs = 16,
                                 .activation = retain::activation_kind::leaky_relu,
                                 .output_activation = false,
                                 .scale = 1});
  const auto pictures = torch::randn({3, 1, 40, 44});
  const auto features = net(pictures);
  CHECK(features.sizes() == at::IntArrayRef({3, 16}));
  CHECK(features.lt(-0.05).any().item<bool>());
  CHECK(std::dynamic_pointer_cast<retain::nature_cnn_net>(net->clone())
            ->forward(pictures)
            .equal(features));
  CHECK_THROWS_WITH(net(torch::zeros({3, 1, 44, 40})), ContainsSubstring("[..., 1, 40, 44]"));
  CHECK_THROWS_AS(retain::nature_cnn(retain::nature_cnn_options{.height = 20}),
                  retain::config_error);
}

}  // namespace policy_nature_cnn_test
