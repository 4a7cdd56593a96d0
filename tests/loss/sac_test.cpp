// SPDX-License-Identifier: MIT
#include <retain/categorical.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/loss/sac.hpp>
#include <retain/loss/sac_temperature.hpp>
#include <retain/policy/actor_critic.hpp>
#include <retain/policy/heads.hpp>
#include <retain/policy/twin_critic.hpp>
#include <retain/polyak.hpp>
#include <retain/tanh_gaussian.hpp>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "support.hpp"

namespace loss_sac_test {

namespace {

/// A distribution of which it is known what will be drawn.
struct point {
  at::Tensor action, log_prob;
  point rsample_with_log_prob() const { return *this; }
};
static_assert(retain::reparameterized_distribution<point>);
static_assert(retain::reparameterized_distribution<retain::tanh_gaussian>);
static_assert(!retain::reparameterized_distribution<retain::categorical>);
static_assert(retain::reparameterized_distribution<retain::diagonal_gaussian>);
static_assert(!retain::reparameterized_distribution<at::Tensor>);

}  // namespace

TEST_CASE("sac_target: the twin minimum, the entropy and the end of an episode, as fixed numbers",
          "[sac]") {
  const auto rewards = torch::tensor({1.0, 2.0, 3.0}), terminated = torch::tensor({0.0, 1.0, 0.0}),
             log_probs = torch::tensor({-1.0, -1.0, 2.0});
  const auto q = torch::tensor({{4.0, 9.0, -1.0}, {5.0, 8.0, -3.0}});
  const auto one = retain::sac_target(rewards, terminated, q, log_probs, torch::tensor({0.5}), 0.9);
  CHECK(at::allclose(one, torch::tensor({1 + 0.9 * (4 + 0.5), 2.0, 3 + 0.9 * (-3 - 1.0)})));
  const auto own = retain::sac_target(rewards, terminated.to(at::kBool), q, log_probs,
                                      torch::tensor({0.0, 7.0, 2.0}), 0.9);
  CHECK(at::allclose(own, torch::tensor({1 + 0.9 * 4, 2.0, 3 + 0.9 * (-3 - 4.0)})));

  // A cut episode bootstraps, a terminal one does not, whatever the critics make of the state
  // behind it.
  const auto mad = torch::full({2, 3}, std::nan(""));
  CHECK(retain::sac_target(rewards, torch::ones({3}), mad, log_probs, torch::tensor(0.5))
            .equal(rewards));

  for (const double odd : {0.5, 2.0, std::nan("")}) {
    auto wrong = terminated.clone();
    wrong[0] = odd;
    CHECK_THROWS_AS(retain::sac_target(rewards, wrong, q, log_probs, torch::tensor({0.5}), 0.9),
                    retain::config_error);
    CHECK_THROWS_AS(retain::sac_target(rewards, wrong.to(at::kDouble), q.to(at::kDouble), log_probs,
                                       torch::tensor({0.5}), 0.9),
                    retain::config_error);
  }
  const auto drawn = retain::sac_target(
      rewards, terminated, point{torch::ones({3, 2}).requires_grad_(), log_probs},
      [&](const at::Tensor& actions) { return q * actions.select(-1, 0); }, torch::tensor({0.5}),
      0.9);
  CHECK(drawn.equal(one));
  CHECK(!drawn.requires_grad());
}

TEST_CASE("sac_target: values beyond the bounds are moved to them, in any type", "[sac]") {
  for (const auto type : {at::kFloat, at::kDouble}) {
    const auto rewards = torch::tensor({1.0, -2.0, 0.5, 40.0}, type),
               terminated = torch::tensor({0.0, 0.0, 0.0, 1.0}, type),
               none = torch::zeros({4}, type);
    const auto q = torch::tensor({{90.0, -30.0, 1.0, 7.0}}, type), alpha = torch::zeros({1}, type);
    CHECK(retain::sac_target(rewards, terminated, q, none, alpha, 1, {.least = -5, .greatest = 8})
              .equal(torch::tensor({8.0, -5.0, 1.5, 8.0}, type)));
    CHECK(retain::sac_target(rewards, terminated, q, none, alpha, 1, {.greatest = 8})
              .equal(torch::tensor({8.0, -32.0, 1.5, 8.0}, type)));
    CHECK(retain::sac_target(rewards, terminated, q, none, alpha, 1,
                             {.least = -1e300, .greatest = 1e300})
              .equal(torch::tensor({91.0, -32.0, 1.5, 40.0}, type)));
    CHECK(
        retain::sac_target(rewards.to(at::kHalf), terminated, q, none, alpha, 1, {.greatest = 1e5})
            .max()
            .item<double>() == 91);
    const auto many = [](const at::Tensor& x) { return x.repeat_interleave(20'000, -1); };
    CHECK(retain::sac_target(many(rewards), many(terminated), many(q), many(none), alpha, 1,
                             {.least = -5, .greatest = 1e300})
              .min()
              .item<double>() == -5);
    CHECK(retain::sac_target(rewards[0], terminated[0], q.select(1, 0), none[0], alpha, 1)
              .sizes()
              .empty());
    CHECK_THROWS_AS(retain::sac_target(rewards, terminated, q, none, alpha, 1, {.least = HUGE_VAL}),
                    retain::config_error);
    CHECK(retain::sac_target(rewards, terminated, q, none, alpha, 1)
              .equal(torch::tensor({91.0, -32.0, 1.5, 40.0}, type)));
    CHECK_THROWS_WITH(
        retain::sac_target(rewards, terminated, q, none, alpha, 1, {.least = 2, .greatest = 1}),
        ContainsSubstring("between the bounds 2 and 1"));
    CHECK_THROWS_AS(
        retain::sac_target(rewards, terminated, q, none, alpha, 1, {.least = std::nan("")}),
        retain::config_error);
  }
}

TEST_CASE("sac losses: in float, on the CPU, they are what they are in double, ties and what is no "
          "number included",
          "[sac]") {
  torch::manual_seed(5);
  for (const std::int64_t critics : {1, 2, 3}) {
    auto q = torch::randn({critics, 9}, at::kDouble).to(at::kFloat).to(at::kDouble);
    if (critics > 1) q.select(1, 4).fill_(0.25);  // level: the first has the gradient
    const auto log_probs = torch::randn({9}).to(at::kDouble),
               rewards = torch::randn({9}).to(at::kDouble);
    const auto terminated = torch::tensor({0, 1, 0, 0, 1, 0, 0, 1, 0}).to(at::kDouble);
    for (const auto& alpha :
         {torch::full({1}, 0.25, at::kDouble), torch::rand({9}).to(at::kDouble)}) {
      const auto all = [&](at::ScalarType type) {
        const auto values = q.to(type).clone().requires_grad_(),
                   densities = log_probs.to(type).clone().requires_grad_();
        const auto y = retain::sac_target(rewards.to(type), terminated.to(type), values, densities,
                                          alpha.to(type), 0.9);
        const auto taught = retain::sac_critic_loss(values, y);
        const auto by_critics = torch::autograd::grad({taught * 3}, {values})[0];
        const auto actor = retain::sac_policy_loss(values, densities, alpha.to(type));
        const auto by_actor = torch::autograd::grad({actor.loss * -2}, {values, densities});
        return std::vector<at::Tensor>{
            y, taught.detach(), by_critics, actor.loss.detach(), by_actor[0], by_actor[1]};
      };
      const auto in_float = all(at::kFloat), in_double = all(at::kDouble);
      for (std::size_t i = 0; i < in_float.size(); ++i) {
        CHECK(in_float[i].scalar_type() == at::kFloat);
        CHECK(in_float[i].sizes() == in_double[i].sizes());
        CHECK(at::allclose(in_float[i].to(at::kDouble), in_double[i], 1e-5, 1e-6));
      }
    }
  }
  // As LibTorch's minimum: no number in one critic is no number in the least of them.
  const auto broken = torch::tensor({{1.0f, std::nanf("")}, {std::nanf(""), 2.0f}}),
             zero = torch::zeros({2});
  CHECK(retain::sac_target(zero, zero, broken, zero, torch::zeros({1})).isnan().all().item<bool>());
  CHECK(retain::sac_policy_loss(broken, zero, torch::zeros({1})).loss.isnan().item<bool>());
}

TEST_CASE("sac_policy_loss: of actions that were drawn before, as fixed numbers, with the gradient "
          "of the lower critic",
          "[sac]") {
  const auto q = torch::tensor({{4.0, 9.0}, {5.0, 8.0}}).requires_grad_(),
             log_probs = torch::tensor({-1.0, 2.0}).requires_grad_();
  const auto said = retain::sac_policy_loss(q, log_probs, torch::tensor({0.5, 3.0}));
  CHECK(said.loss.item<double>() == Approx(((0.5 * -1 - 4) + (3.0 * 2 - 8)) / 2));
  CHECK(!said.log_probs.requires_grad());
  said.loss.backward();
  CHECK(q.grad().equal(torch::tensor({{-0.5, 0.0}, {0.0, -0.5}})));
  CHECK(at::allclose(log_probs.grad(), torch::tensor({0.25, 1.5})));
  CHECK_THROWS_AS(retain::sac_policy_loss(q.select(0, 0), log_probs, torch::tensor(1.0)),
                  retain::shape_error);
}

TEST_CASE(
    "sac_critic_loss: half the squared error, summed over critics, with the gradient (Q - y) / N",
    "[sac]") {
  torch::manual_seed(1);
  const auto q = torch::randn({2, 5}, at::kDouble).requires_grad_(),
             y = torch::randn({5}, at::kDouble);
  const auto loss = retain::sac_critic_loss(q, y);
  double expected = 0;
  for (int k = 0; k < 2; ++k)
    for (int n = 0; n < 5; ++n)
      expected += std::pow(q[k][n].item<double>() - y[n].item<double>(), 2) / (2 * 5);
  CHECK(loss.item<double>() == Approx(expected));
  loss.backward();
  CHECK(at::allclose(q.grad(), (q.detach() - y) / 5));
}

TEST_CASE("sac losses: other types, several alphas, and their gradients differentiated again",
          "[sac]") {
  torch::manual_seed(3);
  const auto q = torch::randn({2, 5}).requires_grad_(), y = torch::randn({5}, at::kDouble);
  retain::sac_critic_loss(q, y).backward();
  CHECK(q.grad().scalar_type() == at::kFloat);
  CHECK(at::allclose(q.grad(), ((q.detach() - y) / 5).to(at::kFloat), 1e-5));
  const auto slope = torch::autograd::grad({retain::sac_critic_loss(q, y)}, {q}, {}, true, true)[0];
  const auto curvature = torch::autograd::grad({slope.square().sum()}, {q})[0];
  CHECK(at::allclose(curvature, 2 * slope.detach() / 5, 1e-5));

  const auto log_probs = torch::randn({5}).requires_grad_();
  const auto lower = (q[0] <= q[1]).detach();
  for (const auto& alpha : {torch::tensor(0.3), torch::tensor({0.3}), torch::rand({5})}) {
    q.mutable_grad().reset();
    log_probs.mutable_grad().reset();
    const auto said = retain::sac_policy_loss(q, log_probs, alpha);
    CHECK(
        said.loss.item<double>() ==
        Approx((alpha * log_probs - at::minimum(q[0], q[1])).mean().item<double>()).epsilon(1e-5));
    (said.loss * 3).backward();
    CHECK(at::allclose(log_probs.grad(), (alpha * 0.6).expand({5}), 1e-5));
    CHECK(at::allclose(q.grad(), at::stack({lower, lower.logical_not()}).to(at::kFloat) * -0.6,
                       1e-5));
  }
}

TEST_CASE("sac_policy_loss: value and gradient against the formula on the same noise, over finite "
          "differences",
          "[sac]") {
  torch::manual_seed(2);
  const auto noise = torch::randn({6, 2}, at::kDouble), alpha = torch::rand({6}, at::kDouble) + 0.1;
  auto parameters = torch::randn({6, 4}, at::kDouble).requires_grad_();
  // Two critics that cross each other, so that the minimum is now one and now the other.
  const auto critics = [](const at::Tensor& a) {
    return at::stack({(a.square()).sum(-1).neg(), a.sum(-1) - 1});
  };
  const auto draw = [&] {
    const auto mean = parameters.narrow(1, 0, 2), log_std = parameters.narrow(1, 2, 2);
    const auto a = mean + log_std.exp() * noise;
    return point{a, retain::diagonal_gaussian{mean, log_std}.log_prob(a)};
  };
  const auto slow = [&] {
    double sum = 0;
    for (std::int64_t n = 0; n < 6; ++n) {
      double squares = 0, total = 0, log_density = 0;
      for (std::int64_t d = 0; d < 2; ++d) {
        const double mean = parameters[n][d].item<double>(),
                     s = parameters[n][2 + d].item<double>(), e = noise[n][d].item<double>();
        const double a = mean + std::exp(s) * e;
        squares += a * a;
        total += a;
        log_density += -0.5 * e * e - s - 0.5 * std::log(2 * M_PI);
      }
      sum += alpha[n].item<double>() * log_density - std::min(-squares, total - 1);
    }
    return sum / 6;
  };
  const auto loss = retain::sac_policy_loss(draw(), critics, alpha);
  CHECK(loss.loss.item<double>() == Approx(slow()));
  CHECK(!loss.log_probs.requires_grad());
  loss.loss.backward();
  const auto gradient = parameters.grad().clone();
  CHECK(support::relative_error(gradient, support::finite_differences(parameters.detach(), slow)) <
        1e-7);
}

TEST_CASE("sac_policy_loss: over many draws of a Gaussian it is the expectation, within the error "
          "of the mean",
          "[sac]") {
  torch::manual_seed(3);
  const std::int64_t N = 40000;
  const double alpha = 0.3;
  const retain::diagonal_gaussian policy{torch::full({N, 1}, 0.5, at::kDouble),
                                         torch::full({N, 1}, std::log(0.4), at::kDouble)};
  // E[-min(q, q + 1)] = E[a^2] = .25 + .16, and E log pi = -entropy.
  const auto loss = retain::sac_policy_loss(
      policy,
      [](const at::Tensor& a) {
        return at::stack({a.square().sum(-1).neg(), 1 - a.square().sum(-1)});
      },
      torch::tensor(alpha, at::kDouble));
  const double expected = -alpha * policy.entropy()[0].item<double>() + 0.41;
  // of a^2, and more than that of alpha log pi
  const double deviation = std::sqrt(2 * std::pow(0.16, 2) + 4 * 0.25 * 0.16) + alpha;
  CHECK(std::abs(loss.loss.item<double>() - expected) <
        4 * deviation / std::sqrt(static_cast<double>(N)));
}

TEST_CASE("gaussian_entropy_target: d log(.089 sqrt(2 pi e)) is -d to three digits", "[sac]") {
  CHECK(retain::gaussian_entropy_target(1) == Approx(std::log(0.089 * std::sqrt(2 * M_PI * M_E))));
  CHECK(retain::gaussian_entropy_target(4) == Approx(-4).epsilon(1e-3));
  const retain::diagonal_gaussian wide{torch::zeros({1, 3}, at::kDouble),
                                       torch::full({1, 3}, std::log(0.7), at::kDouble)};
  CHECK(retain::gaussian_entropy_target(3, 0.7) == Approx(wide.entropy().item<double>()));
  CHECK_THROWS_AS(retain::gaussian_entropy_target(0), retain::config_error);
}

TEST_CASE("soft actor-critic: with its parts together a policy learns two stages of one task, each "
          "with a head and a temperature of its own",
          "[sac]") {
  torch::manual_seed(4);
  // One step: at stage 0 the action should be s, at stage 1 it should be -s. The stage is a one-hot
  // that only picks heads.
  retain::actor_critic policy{retain::mlp(1, retain::mlp_options{.hidden = {32}}),
                              retain::tanh_gaussian_head{.dimensions = 1, .least_log_std = -5},
                              {.values = 0, .stages = 2}};
  retain::twin_critic critics(1, 1, retain::twin_critic_options{.hidden = {32, 32}, .stages = 2});
  const retain::twin_critic target(
      std::dynamic_pointer_cast<retain::twin_critic_net>(critics->clone()));
  retain::sac_temperature temperature(-1.5, 2, {.initial = {0.2}, .cap = {1.0}});
  torch::optim::Adam actor_adam(policy->parameters(), torch::optim::AdamOptions(3e-3)),
      critic_adam(critics->parameters(), torch::optim::AdamOptions(3e-3)),
      temperature_adam({temperature.named_parameters()[0].tensor}, torch::optim::AdamOptions(1e-2));
  const std::int64_t N = 64;
  const auto observe = [&](at::Tensor& stage) {
    stage = torch::randint(0, 2, {N}, at::kLong);
    return at::cat({torch::rand({N, 1}) * 1.6 - 0.8, at::one_hot(stage, 2).to(at::kFloat)}, 1);
  };
  const auto reward = [](const at::Tensor& s, const at::Tensor& stage, const at::Tensor& a) {
    return -(a - s.narrow(1, 0, 1) * (1 - 2 * stage).unsqueeze(1)).square().sum(1) * 4;
  };
  for (int i = 0; i < 200; ++i) {
    at::Tensor stage, next_stage;
    const auto s = observe(stage), next = observe(next_stage);
    const auto a = policy(s).sample();
    const auto y = retain::sac_target(
        reward(s, stage, a), torch::ones({N}), policy(next),
        [&](const at::Tensor& b) { return target.ptr()->forward(next, b); },
        temperature.alpha(next_stage));
    critic_adam.zero_grad();
    retain::sac_critic_loss(critics(s, a), y).backward();
    critic_adam.step();
    const auto actor = retain::sac_policy_loss(
        policy(s), [&](const at::Tensor& b) { return critics(s, b); }, temperature.alpha(stage));
    actor_adam.zero_grad();
    actor.loss.backward();
    actor_adam.step();
    temperature_adam.zero_grad();
    temperature.loss(actor.log_probs, stage).backward();
    temperature_adam.step();
    retain::polyak_update(target, critics, 0.05);
  }
  at::Tensor stage;
  const auto s = observe(stage);
  const auto played = policy(s);
  for (std::int64_t k = 0; k < 2; ++k)
    CHECK(reward(s, stage, played.mode()).masked_select(stage.eq(k)).mean().item<double>() > -0.15);
  // begins near log 2 and falls towards its target
  CHECK(played.entropy().mean().item<double>() < -0.2);
}

TEST_CASE("sac losses: of an empty batch they are 0, and so is their gradient, as one node and as "
          "several",
          "[sac]") {
  const auto all_zero = [](at::ScalarType type) {
    const auto weight = torch::ones({1}, type).requires_grad_(), none = torch::zeros({0}, type);
    const auto q = [&] { return torch::zeros({2, 0}, type) * weight; };
    const auto zero = [&](const at::Tensor& loss) {
      weight.mutable_grad() = at::Tensor();
      loss.backward();
      CHECK(loss.dim() == 0);
      CHECK(loss.item<double>() == 0);
      CHECK(weight.grad().item<double>() == 0);
    };
    zero(retain::sac_critic_loss(q(), none));
    for (const auto& alpha : {torch::ones({1}, type), torch::ones({}, type), none})
      zero(retain::sac_policy_loss(q(), none * weight, alpha).loss);
    CHECK(retain::sac_target(none, none, q(), none, torch::ones({1}, type)).sizes() ==
          at::IntArrayRef({0}));
  };
  for (const auto type : {at::kFloat, at::kDouble}) {
    all_zero(type);
    const retain::detail::separate_nodes one_by_one;
    all_zero(type);
  }
}

TEST_CASE("sac losses name what does not fit", "[sac]") {
  const auto r = torch::zeros({3});
  CHECK_THROWS_WITH(retain::sac_target(r, r, torch::zeros({3}), r, torch::ones({1})),
                    ContainsSubstring("[critics, samples]"));
  CHECK_THROWS_WITH(retain::sac_target(r, r, torch::zeros({3, 2}), r, torch::ones({1})),
                    ContainsSubstring("[3, 2]"));
  CHECK_THROWS_AS(
      retain::sac_target(r, torch::zeros({2}), torch::zeros({2, 3}), r, torch::ones({1})),
      retain::shape_error);
  CHECK_THROWS_WITH(retain::sac_target(r, r, torch::zeros({2, 3}), r, torch::ones({2})),
                    ContainsSubstring("alpha"));
  CHECK_THROWS_AS(retain::sac_critic_loss(torch::zeros({2, 4}), r), retain::shape_error);
}

}  // namespace loss_sac_test
