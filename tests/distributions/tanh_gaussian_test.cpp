// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/tanh_gaussian.hpp>

#include <cmath>
#include <limits>
#include <vector>

#include "support.hpp"

namespace tanh_gaussian_test {

using retain::diagonal_gaussian;
using retain::tanh_gaussian;

namespace {

static_assert(retain::action_distribution<tanh_gaussian>);
static_assert(!retain::action_distribution<retain::squashed_sample>);
static_assert(!retain::action_distribution<retain::action_bounds>);

const auto f64 = at::TensorOptions().dtype(at::kDouble);
at::Generator seeded(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

}  // namespace

TEST_CASE("tanh_gaussian: the density against the change of variables, and its integral",
          "[tanh_gaussian]") {
  for (const auto& [low, high] : {std::pair{-1.0, 1.0}, {-2.0, 6.0}}) {
    // One dimension on a fine grid over the interval: the density integrates to 1, the mean to that
    // of samples.
    constexpr int n = 20001;
    const double width = (high - low) / n;
    const auto grid = (torch::arange(n, f64) + 0.5).mul(width).add(low).unsqueeze(-1);
    const tanh_gaussian d{
        torch::full({n, 1}, 0.4, f64), torch::full({1}, -0.3, f64), {.low = low, .high = high}};
    const auto density = d.log_prob(grid).exp();
    CHECK(density.sum().item<double>() * width == Approx(1).epsilon(1e-6));
    const auto drawn = d.sample(seeded(1));
    CHECK(drawn.min().item<double>() > low);
    CHECK(drawn.max().item<double>() < high);
    const double mean = (density * grid.squeeze(-1)).sum().item<double>() * width;
    CHECK(std::abs(drawn.mean().item<double>() - mean) <
          4.5 * drawn.std().item<double>() / std::sqrt(n));
  }
  torch::manual_seed(2);
  const auto mean = torch::randn({5, 3}, f64), log_std = torch::randn({5, 3}, f64) * 0.5,
             u = torch::randn({5, 3}, f64);
  const tanh_gaussian d{mean, log_std};
  const auto expected =
      diagonal_gaussian{mean, log_std}.log_prob(u) - (1 - u.tanh().square()).log().sum(-1);
  CHECK(support::relative_error(d.log_prob_unsquashed(u), expected) < 1e-13);
  CHECK(support::relative_error(d.log_prob(u.tanh()), expected) < 1e-12);
  CHECK(d.mode().equal(mean.tanh()));
}

TEST_CASE("tanh_gaussian: far out, where tanh is 1, density and gradient stay exact",
          "[tanh_gaussian]") {
  for (const double far : {-300.0, -20.0, 20.0, 300.0}) {
    auto u = torch::full({1, 1}, far).requires_grad_();
    const auto value =
        tanh_gaussian{torch::zeros({1, 1}), torch::full({1}, 3.0)}.log_prob_unsquashed(u);
    const double s = std::exp(3.0), z = far / s;
    CHECK(value.item<double>() == Approx(-z * z / 2 - 3.0 - 0.5 * std::log(2 * 3.14159265358979) -
                                         2 * (std::log(2.0) - std::abs(far)))
                                      .epsilon(1e-6));
    value.sum().backward();
    CHECK(u.grad().item<double>() == Approx(-far / (s * s) + (far > 0 ? 2 : -2)).epsilon(1e-6));
  }
}

TEST_CASE("tanh_gaussian: actions at and near the bounds", "[tanh_gaussian]") {
  const double inf = std::numeric_limits<double>::infinity();
  const auto at = [](double u, double action, at::ScalarType type) {
    const tanh_gaussian d{torch::zeros({1, 1}).to(type), torch::full({1}, 1.0).to(type)};
    const auto inverted = d.log_prob(torch::full({1, 1}, action).to(type)),
               direct = d.log_prob_unsquashed(torch::full({1, 1}, u).to(type));
    return std::pair{inverted.item<double>(), direct.item<double>()};
  };
  // At a bound and beyond: as for the last action before it.
  const double limit_float = std::atanh(1 - 0x1p-24), limit_double = std::atanh(1 - 0x1p-53);
  CHECK(limit_float == Approx(8.66).epsilon(1e-3));
  CHECK(limit_double == Approx(18.7).epsilon(1e-2));
  for (const double action : {1.0, 1.5, inf}) {
    CHECK(at(limit_float, action, at::kFloat).first ==
          Approx(at(limit_float, action, at::kFloat).second).epsilon(1e-5));
    CHECK(at(-limit_float, -action, at::kFloat).first ==
          Approx(at(-limit_float, -action, at::kFloat).second).epsilon(1e-5));
    CHECK(at(limit_double, action, at::kDouble).first ==
          Approx(at(limit_double, action, at::kDouble).second));
  }
  // Near it: within what rounding the action takes away, |d log pi / du| <= 2 + |u| / sigma^2 times
  // the uncertainty of u.
  for (const double u : {1.0, 3.0, 5.0, 7.0}) {
    const auto [inverted, direct] = at(u, std::tanh(u), at::kFloat);
    CHECK(std::abs(inverted - direct) < 1e-5 + 3 * 2 * 0x1p-26 / (1 - std::tanh(u)));
  }
}

TEST_CASE(
    "tanh_gaussian: a sample with its log-density, and its gradient against finite differences",
    "[tanh_gaussian]") {
  torch::manual_seed(3);
  auto mean = torch::randn({6, 2}, f64).requires_grad_(),
       log_std = (torch::randn({6, 2}, f64) * 0.5).requires_grad_();
  const auto make = [&] { return tanh_gaussian{mean, log_std, {.low = -3, .high = 2}}; };
  const auto drawn = make().rsample_with_log_prob(seeded(4));
  CHECK(drawn.action.equal(make().squash(drawn.unsquashed)));
  CHECK(drawn.action.equal(make().rsample(seeded(4))));
  CHECK(drawn.action.equal(make().sample(seeded(4))));
  CHECK(support::relative_error(drawn.log_prob, make().log_prob(drawn.action)) < 1e-10);
  CHECK(!make().sample().requires_grad());

  const std::vector<std::function<at::Tensor()>> values{
      [&] {  // the actor's loss of soft actor-critic with Q(a) = sum of a^3
        const auto s = make().rsample_with_log_prob(seeded(4));
        return (0.2 * s.log_prob - s.action.pow(3).sum(-1)).mean();
      },
      [&] { return make().log_prob(drawn.action.detach()).square().sum(); },
      [&] { return make().entropy().square().sum(); },
      [&] {
        return kl(make(),
                  tanh_gaussian{
                      torch::zeros({6, 2}, f64), torch::zeros({2}, f64), {.low = -3, .high = 2}})
            .sum();
      }};
  for (const auto& value : values) {
    mean.mutable_grad() = log_std.mutable_grad() = at::Tensor();
    value().backward();
    const auto number = [&] { return value().item<double>(); };
    CHECK(support::relative_error(mean.grad(), support::finite_differences(mean, number)) < 1e-7);
    CHECK(support::relative_error(log_std.grad(), support::finite_differences(log_std, number)) <
          1e-7);
  }
}

TEST_CASE("tanh_gaussian: a sample as one node of the graph is its operations one by one, also "
          "differentiated again",
          "[tanh_gaussian]") {
  for (const bool wide : {false, true}) {
    const retain::action_bounds bounds{.low = wide ? -1.0 : -2.0, .high = wide ? 1.0 : 5.0};
    const auto mean = (torch::randn({6, 3}, at::kDouble) * 3).requires_grad_(),
               log_std = torch::randn({6, 3}, at::kDouble).requires_grad_();
    const retain::tanh_gaussian d(mean, log_std, bounds);
    const auto drawn = d.rsample_with_log_prob();
    const auto noise = ((drawn.unsquashed - mean) / log_std.exp()).detach();
    const auto u = mean + log_std.exp() * noise;
    const auto action = d.squash(u), log_prob = d.log_prob_unsquashed(u);
    CHECK(at::allclose(drawn.action, action, 1e-12));
    CHECK(at::allclose(drawn.log_prob, log_prob, 1e-10, 1e-10));
    const auto a = torch::randn({6, 3}, at::kDouble), b = torch::randn({6}, at::kDouble),
               c = torch::randn({6, 3}, at::kDouble);
    // Each output by itself and all together: what is not asked for has no gradient.
    for (const int which : {0, 1, 2, 3}) {
      const auto sum = [&](const at::Tensor& of_action, const at::Tensor& of_log_prob,
                           const at::Tensor& of_u) {
        if (which == 0) return (of_action * a).sum();
        if (which == 1) return (of_log_prob * b).sum();
        if (which == 2) return (of_u * c).sum();
        return (of_action * a).sum() + (of_log_prob * b).sum() + (of_u * c).sum();
      };
      const auto one = torch::autograd::grad({sum(drawn.action, drawn.log_prob, drawn.unsquashed)},
                                             {mean, log_std}, {}, true, true);
      const auto other =
          torch::autograd::grad({sum(action, log_prob, u)}, {mean, log_std}, {}, true, true);
      for (std::size_t i = 0; i < 2; ++i) CHECK(at::allclose(one[i], other[i], 1e-9, 1e-10));
      const auto twice = torch::autograd::grad({one[0].square().sum() + one[1].square().sum()},
                                               {log_std}, {}, true, false, true)[0];
      const auto again = torch::autograd::grad({other[0].square().sum() + other[1].square().sum()},
                                               {log_std}, {}, true, false, true)[0];
      CHECK(at::allclose(twice, again, 1e-8, 1e-9));
    }
  }
}

TEST_CASE("tanh_gaussian: a sample in float is what it is in double, far out too",
          "[tanh_gaussian]") {
  torch::manual_seed(4);
  for (const bool wide : {false, true}) {
    const retain::action_bounds bounds{.low = wide ? -2.0 : -1.0, .high = wide ? 5.0 : 1.0};
    const auto mean = torch::randn({40, 3}) * 3, log_std = torch::randn({40, 3}),
               a = torch::randn({40, 3}), b = torch::randn({40}), c = torch::randn({40, 3});
    mean[0].fill_(-30);  // where softplus is a straight line
    mean[1].fill_(30);
    for (const int which : {0, 1, 2, 3}) {
      const auto run = [&](at::ScalarType type) {
        const auto m = mean.to(type).clone().requires_grad_(),
                   s = log_std.to(type).clone().requires_grad_();
        auto dice = at::detail::createCPUGenerator(7);
        const auto drawn = retain::tanh_gaussian(m, s, bounds).rsample_with_log_prob(dice);
        at::Tensor sum = torch::zeros({}, type);
        if (which == 0 || which == 3) sum = sum + (drawn.action * a.to(type)).sum();
        if (which == 1 || which == 3) sum = sum + (drawn.log_prob * b.to(type)).sum();
        if (which == 2 || which == 3) sum = sum + (drawn.unsquashed * c.to(type)).sum();
        const auto slopes = torch::autograd::grad({sum}, {m, s});
        return std::vector{drawn.action.detach(), drawn.log_prob.detach(),
                           drawn.unsquashed.detach(), slopes[0], slopes[1]};
      };
      const auto in_float = run(at::kFloat), in_double = run(at::kDouble);
      for (std::size_t i = 0; i < in_float.size(); ++i) {
        CHECK(in_float[i].scalar_type() == at::kFloat);
        CHECK(at::allclose(in_float[i].to(at::kDouble), in_double[i], 2e-5, 2e-5));
      }
    }
  }
}

TEST_CASE(
    "tanh_gaussian: what is not used of a sample adds nothing, where the mean is no number neither",
    "[tanh_gaussian]") {
  const auto mean = torch::full({2, 3}, std::nanf("")).requires_grad_(),
             log_std = torch::zeros({2, 3}).requires_grad_();
  retain::tanh_gaussian(mean, log_std).rsample_with_log_prob().unsquashed.sum().backward();
  CHECK(mean.grad().equal(torch::ones({2, 3})));
}

TEST_CASE("tanh_gaussian: entropy against an integral and against samples", "[tanh_gaussian]") {
  for (const double log_std : {-3.0, -0.5, 0.7, 2.0})
    for (const double mean : {0.0, 1.3, -4.0}) {
      const tanh_gaussian d{
          torch::full({1, 1}, mean, f64), torch::full({1}, log_std, f64), {.low = 0, .high = 5}};
      // -log p(a) integrated over u, on a grid of 0.001 standard deviations.
      const double s = std::exp(log_std), h = 0.001;
      double integral = 0;
      for (int k = -9000; k <= 9000; ++k) {
        const double z = k * h, u = std::abs(mean + s * z);
        const double log_normal = -z * z / 2 - 0.5 * std::log(2 * 3.14159265358979323846) - log_std;
        const double log_density =
            log_normal - std::log(2.5) + 2 * (u + std::log1p(std::exp(-2 * u)) - std::log(2.0));
        integral -= h * s * std::exp(log_normal) * log_density;
      }
      CHECK(std::abs(d.entropy().item<double>() - integral) < (log_std > 1 ? 5e-6 : 1e-10));
    }
  constexpr int n = 20000;
  const auto mean = torch::tensor({0.5, -1.0}, f64), log_std = torch::tensor({0.2, -0.8}, f64);
  const tanh_gaussian many{mean.expand({n, 2}), log_std};
  const auto s = many.rsample_with_log_prob(seeded(5));
  CHECK(std::abs(-s.log_prob.mean().item<double>() - many.entropy()[0].item<double>()) <
        4.5 * s.log_prob.std().item<double>() / std::sqrt(n));
}

TEST_CASE("tanh_gaussian: KL is that of the Gaussians before the squash", "[tanh_gaussian]") {
  constexpr int n = 40000;
  const tanh_gaussian p{torch::full({n, 1}, 0.5, f64), torch::full({1}, -0.4, f64)},
      q{torch::full({n, 1}, -0.1, f64), torch::full({1}, 0.1, f64)};
  CHECK(kl(p, q).equal(kl(p.unsquashed(), q.unsquashed())));
  // Over squashed actions and their own densities.
  const auto drawn = p.sample(seeded(6));
  const auto ratio = p.log_prob(drawn) - q.log_prob(drawn);
  CHECK(std::abs(ratio.mean().item<double>() - kl(p, q)[0].item<double>()) <
        4.5 * ratio.std().item<double>() / std::sqrt(n));
  const tanh_gaussian wider{q.unsquashed(), {.low = -1, .high = 2}};
  CHECK_THROWS_AS(kl(p, wider), retain::config_error);
  CHECK_THROWS_WITH(kl(p, wider), ContainsSubstring("[-1, 1] and [-1, 2]"));
}

TEST_CASE("tanh_gaussian: rows that a mask drops reach neither value nor gradient",
          "[tanh_gaussian]") {
  auto mean =
      torch::tensor({{1.0, 2.0}, {std::nan(""), std::numeric_limits<double>::infinity()}}, f64)
          .requires_grad_();
  auto log_std = torch::zeros({2}, f64).requires_grad_();
  const auto kept =
      tanh_gaussian{mean, log_std, {.low = 0, .high = 2}}.where(torch::tensor({1, 0}));
  const auto value = kept.entropy() + kept.log_prob(torch::ones({2, 2}, f64));
  CHECK(value.isfinite().all().item<bool>());
  value.sum().backward();
  CHECK(mean.grad()[1].equal(torch::zeros({2}, f64)));
  CHECK(mean.grad()[0].isfinite().all().item<bool>());
  CHECK(log_std.grad().isfinite().all().item<bool>());
  CHECK(kept.bounds().high == 2);
}

TEST_CASE("tanh_gaussian: bounds and shapes are checked", "[tanh_gaussian]") {
  const auto zeros = torch::zeros({3, 2});
  CHECK_THROWS_AS(tanh_gaussian(zeros, zeros, {.low = 1, .high = 1}), retain::config_error);
  CHECK_THROWS_WITH(tanh_gaussian(zeros, zeros, {.low = 0, .high = INFINITY}),
                    ContainsSubstring("0 and inf"));
  CHECK_THROWS_AS(tanh_gaussian(zeros, torch::zeros({3})), retain::shape_error);
  CHECK_THROWS_WITH(tanh_gaussian(zeros, zeros).log_prob(torch::zeros({3})),
                    ContainsSubstring("[3]") && ContainsSubstring("[3, 2]"));
  CHECK(tanh_gaussian(torch::zeros({0, 2}), torch::zeros({2})).entropy().numel() == 0);
  CHECK(tanh_gaussian(torch::zeros({0, 2}), torch::zeros({2})).sample().sizes() ==
        at::IntArrayRef({0, 2}));
}

TEST_CASE("tanh_gaussian: the density at its mode and KL to itself with a deviation that is hardly "
          "there; what a temporary holds outlives it",
          "[tanh_gaussian]") {
  for (const double logarithm : {-100.0, -110.0}) {
    const auto mean = torch::zeros({1, 1}).requires_grad_(),
               log_std = torch::full({1, 1}, logarithm).requires_grad_();
    const retain::tanh_gaussian d{mean, log_std};
    const auto density = d.log_prob(torch::zeros({1, 1}));  // tanh has slope 1 there
    CHECK(density.item<double>() ==
          Approx(-logarithm - 0.5 * std::log(2 * 3.14159265358979323846)));
    density.sum().backward();
    CHECK(mean.grad().isfinite().all().item<bool>());
    CHECK(log_std.grad().item<double>() == -1);
    CHECK(kl(d, d).item<double>() == 0);
    CHECK(std::isfinite(d.entropy().item<double>()));
  }
  const auto mean = torch::randn({2, 3});
  const auto& kept = retain::tanh_gaussian{mean, mean}.unsquashed();
  const auto& bounds = retain::tanh_gaussian{mean, mean, {.low = -2, .high = 3}}.bounds();
  CHECK(kept.mean().equal(mean));
  CHECK(bounds.high == 3);
}

}  // namespace tanh_gaussian_test
