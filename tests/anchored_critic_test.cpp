// SPDX-License-Identifier: MIT
#include <retain/anchored_critic.hpp>

#include "support.hpp"

namespace anchored_critic_test {

TEST_CASE("anchored critic: the product of normalized means, by hand and by finite differences",
          "[anchored_critic]") {
  torch::manual_seed(1);
  auto actions = torch::rand({4}, at::kDouble).requires_grad_();
  const retain::anchored_critic_options options{.gamma = 0.9, .weight = 0.5};
  const auto loss = [&] {
    return retain::anchored_policy_loss(2 + 3 * actions, (5 - 4 * actions.square()).narrow(0, 0, 3),
                                        options);
  };
  const double q = (2 + 3 * actions).mean().item<double>() / 10;
  const double anchor = (5 - 4 * actions.square()).narrow(0, 0, 3).mean().item<double>() / 10;
  CHECK(loss().item<double>() == Approx(-q * std::sqrt(anchor)));
  loss().backward();
  const auto numeric =
      support::finite_differences(actions.detach(), [&] { return loss().item<double>(); });
  CHECK(support::relative_error(actions.grad(), numeric) < 1e-8);
}

TEST_CASE("anchored critic: what one critic is worth falls with the other; weight 0 is the plain "
          "objective",
          "[anchored_critic]") {
  // The same gain for the new task, at a source that is satisfied and at one that is nearly lost.
  const auto gain = [](double anchor, double weight) {
    auto q = torch::full({1}, 5.0, at::kDouble).requires_grad_();
    retain::anchored_policy_loss(q, torch::full({2}, anchor, at::kDouble),
                                 {.gamma = 0.9, .weight = weight})
        .backward();
    return -q.grad().item<double>();
  };
  CHECK(gain(9.0, 1.0) == Approx(0.09));
  CHECK(gain(0.1, 1.0) == Approx(0.001));
  CHECK(gain(0.1, 0.0) == Approx(0.1));
}

TEST_CASE("anchored critic: an actor under it settles between two tasks, without it at the new one",
          "[anchored_critic]") {
  // One action in [0, 1]: the new task wants 1, the source 0. The product a (1 - a) is largest at a
  // half.
  const auto settle = [](double weight) {
    auto a = torch::full({1}, 0.2, at::kDouble).requires_grad_();
    for (int i = 0; i < 300; ++i) {
      a.mutable_grad() = at::Tensor();
      retain::anchored_policy_loss(a, 1 - a, {.gamma = 0, .weight = weight}).backward();
      const at::NoGradGuard no_grad;
      a.sub_(a.grad(), 0.05).clamp_(0, 1);
    }
    return a.item<double>();
  };
  CHECK(settle(0) == 1);
  CHECK(settle(1) == Approx(0.5));
  CHECK(settle(3) == Approx(0.25));
}

TEST_CASE("anchored critic: values out of range are clamped, not NaN; bad input is refused",
          "[anchored_critic]") {
  auto q = torch::full({2}, -1.0).requires_grad_();
  const auto loss =
      retain::anchored_policy_loss(q, torch::full({2}, -7.0), {.gamma = 0.9, .weight = 0.5});
  loss.backward();
  CHECK(std::isfinite(loss.item<double>()));
  CHECK(q.grad().equal(torch::zeros({2})));
  CHECK(retain::anchored_policy_loss(torch::full({1}, 1e9), torch::full({1}, 1e9)).item<double>() ==
        -1);
  CHECK_THROWS_AS(retain::anchored_policy_loss(torch::zeros({0}), q), retain::shape_error);
  CHECK_THROWS_WITH(retain::anchored_policy_loss(q, q, {.gamma = 1}), ContainsSubstring("[0, 1)"));
  CHECK_THROWS_AS(retain::anchored_policy_loss(q, q, {.weight = -1}), retain::config_error);
}

}  // namespace anchored_critic_test
