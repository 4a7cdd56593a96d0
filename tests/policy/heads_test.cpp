// SPDX-License-Identifier: MIT
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>

#include <cmath>

#include "support.hpp"

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
  const retain::tanh_gaussian_head squashed{.dimensions = 2, .least_log_std = -5, .bounds = {-3, 3}};
  CHECK(squashed(outputs).unsquashed().log_std()[0][0].item<double>() == -5);
  CHECK(squashed(outputs).mode()[0][0].item<double>() == Approx(3 * std::tanh(1.0)));
}
