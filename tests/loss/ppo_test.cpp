// SPDX-License-Identifier: MIT
#include <retain/loss/ppo.hpp>

#include <algorithm>
#include <cmath>
#include <vector>

#include "support.hpp"

namespace loss_ppo_test {

namespace {

double slow_surrogate(const at::Tensor& now, const at::Tensor& old, const at::Tensor& advantage,
                      retain::clip_range range) {
  double sum = 0;
  for (std::int64_t i = 0; i < now.numel(); ++i) {
    const double raw = std::exp(now[i].item<double>() - old[i].item<double>()),
                 a = advantage[i].item<double>();
    const double ratio = std::clamp(raw, range.least_ratio, range.greatest_ratio);
    sum += std::min(ratio * a, std::clamp(ratio, range.lowest, range.highest) * a);
  }
  return -sum / static_cast<double>(now.numel());
}

}  // namespace

TEST_CASE("the clipped surrogate equals its formula, and its gradient finite differences, for an "
          "asymmetric range") {
  torch::manual_seed(4);
  const retain::clip_range range{1 / 1.1, 1.3};
  const auto old = at::randn({40}, at::kDouble), advantage = at::randn({40}, at::kDouble);
  auto now = (old + 0.3 * at::randn({40}, at::kDouble)).set_requires_grad(true);
  const auto loss = retain::ppo_policy_loss(now, old, advantage, range);
  CHECK(loss.loss.item<double>() == Approx(slow_surrogate(now, old, advantage, range)));
  loss.loss.backward();
  const auto gradient = now.grad().clone();
  CHECK(support::relative_error(gradient, support::finite_differences(now.detach(), [&] {
                                  return slow_surrogate(now, old, advantage, range);
                                })) < 1e-6);

  const auto ratio = (now.detach() - old).exp();
  const auto outside = ratio.lt(range.lowest)
                           .logical_or(ratio.gt(range.highest))
                           .to(at::kDouble)
                           .mean()
                           .item<double>();
  CHECK(outside > 0);
  CHECK(loss.clip_fraction.item<double>() == Approx(outside));
  CHECK(loss.approx_kl.item<double>() == Approx((ratio - 1 - ratio.log()).mean().item<double>()));
  CHECK(loss.approx_kl.item<double>() >= 0);
}

TEST_CASE("a sample beyond the range has no gradient when that is where its advantage pushes, and "
          "all of it otherwise") {
  auto now = at::tensor({1.0, 1.0}, at::kDouble).set_requires_grad(true);
  retain::ppo_policy_loss(now, at::zeros({2}, at::kDouble), at::tensor({1.0, -1.0}, at::kDouble))
      .loss.backward();
  CHECK(now.grad()[0].item<double>() == 0);
  CHECK(now.grad()[1].item<double>() == Approx(std::exp(1.0) / 2));
}

TEST_CASE("a ratio that is clamped first: the loss and its gradient are the formula's, and no "
          "sample beyond the clamp has a gradient") {
  torch::manual_seed(6);
  const retain::clip_range range{
      .lowest = 1 / 1.1, .highest = 1.1, .least_ratio = 0.05, .greatest_ratio = 20};
  const auto old = at::randn({60}, at::kDouble), advantage = at::randn({60}, at::kDouble);
  auto now = (old + 3 * at::randn({60}, at::kDouble)).set_requires_grad(true);
  const auto loss = retain::ppo_policy_loss(now, old, advantage, range);
  CHECK(loss.loss.item<double>() == Approx(slow_surrogate(now, old, advantage, range)));
  CHECK(loss.loss.item<double>() !=
        Approx(retain::ppo_policy_loss(now, old, advantage, {1 / 1.1, 1.1}).loss.item<double>()));
  loss.loss.backward();
  const auto gradient = now.grad().clone();
  CHECK(support::relative_error(gradient, support::finite_differences(now.detach(), [&] {
                                  return slow_surrogate(now, old, advantage, range);
                                })) < 1e-6);
  const auto ratio = (now.detach() - old).exp();
  const auto beyond = ratio.lt(0.05).logical_or(ratio.gt(20));
  CHECK(beyond.sum().item<double>() > 5);
  CHECK(gradient.masked_select(beyond).abs().sum().item<double>() == 0);
  CHECK(loss.approx_kl.item<double>() == Approx((ratio - 1 - ratio.log()).mean().item<double>()));
  auto far = at::tensor({2000.0, -2000.0}, at::kDouble).set_requires_grad(true);
  retain::ppo_policy_loss(far, at::zeros({2}, at::kDouble), at::tensor({-1.0, 1.0}, at::kDouble),
                          range)
      .loss.backward();
  CHECK(far.grad().abs().sum().item<double>() == 0);
  CHECK_THROWS_AS(retain::ppo_policy_loss(now, old, advantage,
                                          {.lowest = 0.8, .highest = 1.2, .least_ratio = 0.9}),
                  retain::config_error);
  CHECK_THROWS_AS(retain::ppo_policy_loss(now, old, advantage, {.greatest_ratio = 1.1}),
                  retain::config_error);
}

TEST_CASE("the value loss, with and without its clip") {
  torch::manual_seed(5);
  const auto returns = at::randn({30}, at::kDouble), old = at::randn({30}, at::kDouble);
  auto values = (old + at::randn({30}, at::kDouble)).set_requires_grad(true);
  CHECK(retain::ppo_value_loss(values, returns).item<double>() ==
        Approx((values - returns).square().mean().item<double>()));
  const auto slow = [&] {
    double sum = 0;
    for (std::int64_t i = 0; i < 30; ++i) {
      const double v = values[i].item<double>(), o = old[i].item<double>(),
                   r = returns[i].item<double>();
      const double clipped = o + std::clamp(v - o, -0.4, 0.4);
      sum += std::max((v - r) * (v - r), (clipped - r) * (clipped - r));
    }
    return sum / 30;
  };
  const auto loss = retain::ppo_value_loss(values, returns, old, 0.4);
  CHECK(loss.item<double>() == Approx(slow()));
  loss.backward();
  const auto gradient = values.grad().clone();
  CHECK(support::relative_error(gradient, support::finite_differences(values.detach(), slow)) <
        1e-6);
}

TEST_CASE("normalized advantages and explained variance") {
  const auto a = retain::normalized(at::tensor({1.0, 2.0, 6.0}, at::kDouble));
  CHECK(a.mean().item<double>() == Approx(0).margin(1e-12));
  CHECK(a.std().item<double>() == Approx(1).margin(1e-6));
  CHECK(retain::normalized(at::tensor({7.0}, at::kDouble)).equal(at::zeros({1}, at::kDouble)));
  CHECK(retain::normalized(at::zeros({0})).sizes() == at::IntArrayRef({0}));
  const auto returns = at::tensor({1.0, 2.0, 4.0}, at::kDouble);
  CHECK(retain::explained_variance(returns, returns).item<double>() == Approx(1));
  CHECK(retain::explained_variance(returns.mean().expand({3}), returns).item<double>() ==
        Approx(0).margin(1e-12));
  CHECK(retain::explained_variance(at::ones({1}), at::ones({1})).isnan().item<bool>());
  CHECK_THROWS_WITH(retain::explained_variance(returns.unsqueeze(1), returns),
                    ContainsSubstring("[3, 1]") && ContainsSubstring("[3]"));
}

TEST_CASE("of an empty batch the ppo losses are 0, and so is their gradient") {
  const auto weight = at::ones({1}).set_requires_grad(true);
  const auto none = at::zeros({0});
  const auto predicted = [&] { return none * weight; };
  const auto zero = [&](const at::Tensor& loss) {
    weight.mutable_grad() = at::Tensor();
    loss.backward();
    return loss.item<double>() == 0 && weight.grad().item<double>() == 0;
  };
  const auto said = retain::ppo_policy_loss(predicted(), none, none);
  CHECK(zero(said.loss));
  CHECK(said.approx_kl.item<double>() == 0);
  CHECK(said.clip_fraction.item<double>() == 0);
  CHECK(zero(
      retain::ppo_policy_loss(predicted(), none, none, {.least_ratio = 0.05, .greatest_ratio = 20})
          .loss));
  CHECK(zero(retain::ppo_value_loss(predicted(), none)));
  CHECK(zero(retain::ppo_value_loss(predicted(), none, none, 0.2)));
}

TEST_CASE("ppo losses name what does not fit") {
  CHECK_THROWS_AS(retain::ppo_policy_loss(at::zeros({3}), at::zeros({2}), at::zeros({3})),
                  retain::shape_error);
  CHECK_THROWS_AS(
      retain::ppo_policy_loss(at::zeros({3}), at::zeros({3}), at::zeros({3}), {1.1, 1.2}),
      retain::config_error);
  CHECK_THROWS_WITH(retain::ppo_policy_loss(at::zeros({3}), at::zeros({3}), at::zeros({3}), {0, 2}),
                    ContainsSubstring("above 0"));
  CHECK_THROWS_AS(retain::ppo_value_loss(at::zeros({3}), at::zeros({2})), retain::shape_error);
  CHECK_THROWS_AS(retain::ppo_value_loss(at::zeros({3}), at::zeros({3}), {}, 0.1),
                  retain::shape_error);
}

TEST_CASE("ppo_policy_loss: approx_kl of a policy that has hardly moved is not negative, in float",
          "[ppo]") {
  torch::manual_seed(4);
  for (const float size : {1e-7f, 1e-6f, 1e-5f, 1e-3f}) {
    const auto old = torch::randn({512}) - 2, now = old + torch::randn({512}) * size;
    CHECK(retain::ppo_policy_loss(now, old, torch::ones({512})).approx_kl.item<double>() >= 0);
  }
  const auto far = retain::ppo_policy_loss(torch::tensor({1.0}, torch::kDouble),
                                           torch::tensor({0.5}, torch::kDouble),
                                           torch::ones({1}, torch::kDouble));
  CHECK(far.approx_kl.item<double>() == Approx(std::exp(0.5) - 1 - 0.5));
}

// Of half, LibTorch 1.13 has no exp on the CPU.
TEST_CASE(
    "ppo_policy_loss: in bfloat16 loss and gradient are what they are in double, to its precision",
    "[ppo]") {
  torch::manual_seed(9);
  // Steps of 1/8 from numbers in quarters are exact in both types, and so no ratio lies on the
  // other side of the range.
  const auto old = torch::randint(-12, 0, {64}) / 4.0,
             advantages = (torch::randn({64}) + 1).to(at::kBFloat16).to(at::kDouble);
  const auto now = old + torch::randint(-3, 4, {64}) / 8.0;
  for (const auto& range :
       {retain::clip_range{}, retain::clip_range{.least_ratio = 0.75, .greatest_ratio = 1.25}}) {
    const auto in = [&](at::ScalarType t) {
      const auto log_probs = now.to(t).clone().requires_grad_();
      const auto said = retain::ppo_policy_loss(log_probs, old.to(t), advantages.to(t), range);
      said.loss.backward();
      return std::vector<at::Tensor>{log_probs.grad(), said.loss.detach(), said.approx_kl,
                                     said.clip_fraction};
    };
    const auto narrow = in(at::kBFloat16), wide = in(at::kDouble);
    for (std::size_t i = 0; i < wide.size(); ++i) {
      INFO(i);
      CHECK(narrow[i].scalar_type() == at::kBFloat16);
      CHECK(support::relative_error(narrow[i], wide[i]) < 0x1p-6);
    }
  }
}

TEST_CASE("ppo_policy_loss: a sample that has gone too far for its type has the loss of a clipped "
          "one and no gradient, alone and among others",
          "[ppo]") {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
    for (const double far : {89.0, 750.0}) {
      const auto ask = [&](double advantage) {
        const auto log_probs = torch::zeros({1}, type).requires_grad_();
        const auto said = retain::ppo_policy_loss(log_probs, torch::full({1}, -far, type),
                                                  torch::full({1}, advantage, type));
        said.loss.backward();
        CHECK(said.clip_fraction.item<double>() == 1);
        return std::pair{said.loss.item<double>(), log_probs.grad().item<double>()};
      };
      const double exact = type == at::kBFloat16 ? 0x1p-7 : 1e-6;
      CHECK(ask(1).first == Approx(-1.2).epsilon(exact));
      CHECK(ask(1).second == 0);
      CHECK(ask(0) == std::pair{0.0, 0.0});
      // the ceiling, as the docstring says
      CHECK(ask(-1).first == Approx(std::exp(20.0)).epsilon(exact));
      CHECK(ask(-1).second == 0);
    }
  }
  torch::manual_seed(12);
  auto old = torch::randn({32}, at::kDouble) - 2;
  const auto log_probs =
                 (old + 0.1 * torch::randn({32}, at::kDouble)).to(at::kFloat).requires_grad_(),
             advantages = torch::randn({32}).abs();
  old = old.to(at::kFloat);
  old[7] = log_probs.detach()[7] - 200;
  retain::ppo_policy_loss(log_probs, old, advantages).loss.backward();
  const auto kept = log_probs.grad().clone();
  CHECK(kept[7].item<double>() == 0);
  old[7] = log_probs.detach()[7] - 1;  // clipped too
  log_probs.mutable_grad() = at::Tensor();
  retain::ppo_policy_loss(log_probs, old, advantages).loss.backward();
  CHECK(kept.equal(log_probs.grad()));
  // What the new policy holds impossible.
  const auto gone = torch::tensor({-std::numeric_limits<float>::infinity(), 0.0f}).requires_grad_();
  const auto said = retain::ppo_policy_loss(gone, torch::zeros({2}), torch::ones({2}));
  said.loss.backward();
  CHECK(said.loss.item<double>() == Approx(-0.5));
  CHECK(gone.grad().isfinite().all().item<bool>());
}

TEST_CASE(
    "normalized: advantages that are all the same are 0, and what is far from 0 keeps its digits",
    "[ppo]") {
  for (const double value : {3.3, -3.3, 1e-3, 1e6 + 0.1, 0.0})
    for (const std::int64_t n : {2, 1000, 100'003})
      for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16}) {
        INFO(value << ", " << n << " of them");
        const auto made = retain::normalized(torch::full({n}, value, type));
        CHECK(made.scalar_type() == type);
        CHECK(made.abs().max().item<double>() == 0);
      }
  torch::manual_seed(13);
  for (const double offset : {0.0, 3.0, 1e4, 1e6}) {
    const auto some = torch::randn({1000}) + offset;
    const auto exact = some.to(at::kDouble);
    CHECK((retain::normalized(some).to(at::kDouble) - (exact - exact.mean()) / (exact.std() + 1e-7))
              .abs()
              .max()
              .item<double>() < 2e-3);
  }
  auto almost = torch::full({1000}, 3.3f);
  almost[3] = std::nextafter(3.3f, 4.0f);
  const auto exact = almost.to(at::kDouble);
  CHECK(retain::normalized(almost).allclose(
      ((exact - exact.mean()) / (exact.std() + 1e-7)).to(at::kFloat)));
  almost[3] = NAN;
  CHECK(retain::normalized(almost).isnan().all().item<bool>());
}

TEST_CASE(
    "explained_variance: nothing is explained of returns that are all the same, far from 0 too",
    "[ppo]") {
  torch::manual_seed(14);
  const auto returns = torch::full({1000}, 3000.3f);
  CHECK(retain::explained_variance(returns + 0.01 * torch::randn({1000}), returns).item<double>() <
        -1e6);
}

}  // namespace loss_ppo_test
