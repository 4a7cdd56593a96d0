// SPDX-License-Identifier: MIT
#include <retain/policy/select_head.hpp>

#include <cmath>
#include <vector>

#include "support.hpp"

namespace policy_select_head_test {

TEST_CASE("select_head: every sample gets its own head's outputs, and only that head its gradient",
          "[select_head]") {
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

TEST_CASE("select_head: in float it is what it is in double, for one output a head too; a stage "
          "that is not there is refused",
          "[select_head]") {
  torch::manual_seed(2);
  for (const std::int64_t width : {1, 2}) {
    const auto outputs = torch::randn({2, 5, 3 * width});
    const auto stage = torch::tensor({2, 0, 1, 1, 2}), weight = torch::randn({2, 5, width});
    const auto run = [&](at::ScalarType type) {
      const auto x = outputs.to(type).clone().requires_grad_();
      const auto picked = retain::select_head(x, 3, stage);
      return std::vector{picked.detach(),
                         torch::autograd::grad({picked}, {x}, {weight.to(type)})[0]};
    };
    const auto in_float = run(at::kFloat), in_double = run(at::kDouble);
    for (std::size_t i = 0; i < 2; ++i) CHECK(in_float[i].to(at::kDouble).equal(in_double[i]));
    for (const std::int64_t wrong : {-1, 3}) {
      const auto beyond = torch::full({5}, wrong, at::kLong);
      CHECK_THROWS_AS(retain::select_head(outputs, 3, beyond), c10::Error);
    }
  }
}

TEST_CASE("select_head: heads without outputs, and no rows", "[select_head]") {
  CHECK(retain::select_head(torch::zeros({3, 0}), 2, torch::zeros({3}, at::kLong)).sizes() ==
        at::IntArrayRef({3, 0}));
  const auto none = torch::zeros({4, 0, 6}).requires_grad_();
  const auto picked = retain::select_head(none, 3, torch::zeros({0}, at::kLong));
  CHECK(picked.sizes() == at::IntArrayRef({4, 0, 2}));
  picked.sum().backward();
  CHECK(none.grad().sizes() == none.sizes());
}

TEST_CASE("stage_of: the place of the one in the one-hot, for any type and layout",
          "[select_head]") {
  torch::manual_seed(3);
  const auto stage = torch::randint(0, 4, {3, 7}, at::kLong);
  const auto observations =
      at::cat({torch::randn({3, 7, 5}) * 9, at::one_hot(stage, 4).to(at::kFloat)}, 2);
  CHECK(retain::stage_of(observations, 4).equal(stage));
  CHECK(retain::stage_of(observations.to(at::kDouble), 4).equal(stage));
  CHECK(retain::stage_of(observations.transpose(0, 1), 4).equal(stage.t()));
  CHECK(retain::stage_of(observations.clone().requires_grad_(), 4).equal(stage));
  // level, no number, none hot
  const auto odd =
      torch::tensor({{9.0f, 1.0f, 1.0f}, {9.0f, 1.0f, std::nanf("")}, {9.0f, -1.0f, -2.0f}});
  CHECK(retain::stage_of(odd, 2).equal(torch::tensor({0, 1, 0})));
  CHECK(retain::stage_of(odd, 2).equal(odd.narrow(1, 1, 2).argmax(1)));
  CHECK_THROWS_WITH(retain::stage_of(observations, 9), ContainsSubstring("[3, 7, 9]"));
  CHECK_THROWS_AS(retain::stage_of(torch::tensor(1.0), 1), retain::shape_error);
}

TEST_CASE("select_head: its gradient can be differentiated again", "[select_head]") {
  const auto outputs = torch::randn({4, 6}, at::kDouble).requires_grad_();
  const auto stage = torch::tensor({0, 2, 1, 2}, at::kLong);
  const auto slope = torch::autograd::grad({retain::select_head(outputs, 3, stage).pow(3).sum()},
                                           {outputs}, {}, true, true)[0];
  const auto curvature = torch::autograd::grad({slope.sum()}, {outputs})[0];
  CHECK(at::allclose(curvature,
                     at::where(slope != 0, outputs.detach() * 6, torch::zeros_like(outputs))));
}

TEST_CASE("select_head: one head is the outputs themselves; what does not fit is named",
          "[select_head]") {
  const auto outputs = torch::randn({5, 6});
  CHECK(retain::select_head(outputs, 1, torch::zeros({5}, at::kLong)).is_same(outputs));
  CHECK_THROWS_WITH(retain::select_head(outputs, 4, torch::zeros({5}, at::kLong)),
                    ContainsSubstring("4 heads"));
  CHECK_THROWS_WITH(retain::select_head(outputs, 3, torch::zeros({4}, at::kLong)),
                    ContainsSubstring("[5, 6]") && ContainsSubstring("[4]"));
  CHECK_THROWS_AS(retain::select_head(outputs, 3, torch::zeros({1, 5, 6}, at::kLong)),
                  retain::shape_error);
}

TEST_CASE("select_head: stages of any integral type; real ones are refused", "[select_head]") {
  const auto outputs = torch::randn({3, 4});
  const auto stage = torch::tensor({1, 0, 1}, at::kLong);
  for (const auto type : {at::kInt, at::kByte, at::kBool})
    CHECK(retain::select_head(outputs, 2, stage.to(type))
              .equal(retain::select_head(outputs, 2, stage)));
  CHECK_THROWS_AS(retain::select_head(outputs, 2, stage.to(at::kFloat)), retain::config_error);
  CHECK_THROWS_AS(retain::select_head(outputs, 1, torch::zeros({3})), retain::config_error);
}

}  // namespace policy_select_head_test
