// SPDX-License-Identifier: MIT
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>

#include <cmath>
#include <vector>

#include "support.hpp"

namespace policy_heads_test {

static_assert(retain::policy_head<retain::categorical_head>);
static_assert(retain::policy_head<retain::diagonal_gaussian_head>);
static_assert(retain::policy_head<retain::tanh_gaussian_head>);
static_assert(!retain::policy_head<at::Tensor>);

TEST_CASE("heads: which numbers of a layer are what, and the bounds of the deviations", "[heads]") {
  CHECK(retain::categorical_head{.actions = 5}.outputs() == 5);
  const auto logits = torch::randn({3, 5});
  CHECK(retain::categorical_head{.actions = 5}(logits).logits.is_same(logits));

  const auto outputs = torch::tensor({{1.0, 2.0, -30.0, 9.0}}, at::kDouble).requires_grad_();
  const retain::diagonal_gaussian_head head{.dimensions = 2};
  CHECK(head.outputs() == 4);
  const auto gaussian = head(outputs);
  CHECK(gaussian.mean().equal(torch::tensor({{1.0, 2.0}}, at::kDouble)));
  CHECK(gaussian.log_std().equal(torch::tensor({{-20.0, 2.0}}, at::kDouble)));
  gaussian.entropy().sum().backward();
  CHECK(outputs.grad().abs().sum().item<double>() == 0);
  const retain::tanh_gaussian_head squashed{
      .dimensions = 2, .least_log_std = -5, .bounds = {-3, 3}};
  CHECK(squashed(outputs).unsquashed().log_std()[0][0].item<double>() == -5);
  CHECK(squashed(outputs).mode()[0][0].item<double>() == Approx(3 * std::tanh(1.0)));
}

TEST_CASE("heads: a Gaussian's numbers in float are what they are in double, each asked for by "
          "itself too, and differentiated again",
          "[heads]") {
  const retain::diagonal_gaussian_head head{
      .dimensions = 2, .least_log_std = -1, .greatest_log_std = 1};
  // at the bounds the gradient passes
  auto outputs = torch::tensor(
      {{0.5f, -2.0f, 0.25f, 3.0f}, {1.0f, 2.0f, -1.0f, 1.0f}, {4.0f, 5.0f, -7.0f, 0.0f}});
  for (const int which : {0, 1, 2}) {
    const auto run = [&](at::ScalarType type) {
      const auto x = outputs.to(type).clone().requires_grad_();
      const auto said = head(x);
      at::Tensor sum = which == 1 ? said.log_std().pow(3).sum() : said.mean().pow(3).sum();
      if (which == 2) sum = sum + said.log_std().pow(3).sum();
      const auto slope = torch::autograd::grad({sum}, {x}, {}, true, true)[0];
      return std::vector{said.mean().detach(), said.log_std().detach(),
                         torch::autograd::grad({sum}, {x}, {}, true)[0], slope.detach(),
                         torch::autograd::grad({slope.sum()}, {x})[0]};
    };
    const auto in_float = run(at::kFloat), in_double = run(at::kDouble);
    for (std::size_t i = 0; i < in_float.size(); ++i)
      CHECK(in_float[i].to(at::kDouble).equal(in_double[i]));
  }
  outputs[0][2].fill_(std::nanf(""));
  CHECK(head(outputs).log_std()[0][0].isnan().item<bool>());
  CHECK_THROWS_WITH(head(torch::zeros({3, 1})),
                    ContainsSubstring("2 dimensions") && ContainsSubstring("[3, 1]"));
  CHECK_THROWS_AS(head(torch::zeros({3, 6})), retain::shape_error);
  CHECK_THROWS_AS(
      (retain::tanh_gaussian_head{
          .dimensions = 1, .least_log_std = 3, .greatest_log_std = 2}(torch::zeros({3, 2}))),
      retain::config_error);
}

}  // namespace policy_heads_test
