// SPDX-License-Identifier: MIT
#include <retain/policy/select_head.hpp>

#include "support.hpp"

TEST_CASE("select_head: every sample gets its own head's outputs, and only that head its gradient", "[select_head]") {
  torch::manual_seed(1);
  const std::int64_t K = 2, T = 3, N = 4, S = 3, D = 2;
  const auto outputs = torch::randn({K, T, N, S * D}, at::kDouble).requires_grad_();
  const auto stage = torch::randint(0, S, {T, N}, at::kLong);
  const auto selected = retain::select_head(outputs, S, stage);
  REQUIRE(selected.sizes() == at::IntArrayRef({K, T, N, D}));
  auto expected = torch::zeros_like(outputs);
  for (std::int64_t k = 0; k < K; ++k)
    for (std::int64_t t = 0; t < T; ++t)
      for (std::int64_t n = 0; n < N; ++n)
        for (std::int64_t d = 0; d < D; ++d) {
          const auto column = stage[t][n].item<std::int64_t>() * D + d;
          CHECK(selected[k][t][n][d].item<double>() == outputs[k][t][n][column].item<double>());
          expected[k][t][n][column].fill_(1);
        }
  selected.sum().backward();
  CHECK(outputs.grad().equal(expected));
}

TEST_CASE("select_head: its gradient can be differentiated again", "[select_head]") {
  const auto outputs = torch::randn({4, 6}, at::kDouble).requires_grad_();
  const auto stage = torch::tensor({0, 2, 1, 2}, at::kLong);
  const auto slope = torch::autograd::grad({retain::select_head(outputs, 3, stage).pow(3).sum()}, {outputs}, {}, true, true)[0];
  const auto curvature = torch::autograd::grad({slope.sum()}, {outputs})[0];
  CHECK(at::allclose(curvature, at::where(slope != 0, outputs.detach() * 6, torch::zeros_like(outputs))));
}

TEST_CASE("select_head: one head is the outputs themselves; what does not fit is named", "[select_head]") {
  const auto outputs = torch::randn({5, 6});
  CHECK(retain::select_head(outputs, 1, torch::zeros({5}, at::kLong)).is_same(outputs));
  CHECK_THROWS_WITH(retain::select_head(outputs, 4, torch::zeros({5}, at::kLong)), ContainsSubstring("4 heads"));
  CHECK_THROWS_WITH(retain::select_head(outputs, 3, torch::zeros({4}, at::kLong)), ContainsSubstring("[5, 6]") && ContainsSubstring("[4]"));
  CHECK_THROWS_AS(retain::select_head(outputs, 3, torch::zeros({1, 5, 6}, at::kLong)), retain::shape_error);
}
