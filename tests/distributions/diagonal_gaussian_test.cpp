// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/diagonal_gaussian.hpp>
#include <retain/kickstarting.hpp>

#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "support.hpp"

namespace diagonal_gaussian_test {

using retain::diagonal_gaussian;

namespace {

struct no_mode {
  at::Tensor log_prob(const at::Tensor& a) const { return a; }
  at::Tensor entropy() const { return {}; }
  at::Tensor sample() const { return {}; }
};
[[maybe_unused]] at::Tensor kl(const no_mode&, const no_mode&) { return {}; }
static_assert(retain::action_distribution<diagonal_gaussian>);
static_assert(!retain::action_distribution<no_mode>);
static_assert(!retain::action_distribution<std::pair<at::Tensor, at::Tensor>>);

const auto f64 = at::TensorOptions().dtype(at::kDouble);
constexpr double pi = 3.14159265358979323846;
at::Generator seeded(std::uint64_t seed) { return at::detail::createCPUGenerator(seed); }

}  // namespace

TEST_CASE("diagonal_gaussian: density and entropy against sums written out",
          "[diagonal_gaussian]") {
  torch::manual_seed(1);
  const auto mean = torch::randn({4, 3}, f64), log_std = torch::randn({4, 3}, f64) * 0.5,
             actions = torch::randn({4, 3}, f64);
  const diagonal_gaussian d{mean, log_std};
  for (int n = 0; n < 4; ++n) {
    double log_prob = 0, entropy = 0;
    for (int i = 0; i < 3; ++i) {
      const double s = std::exp(log_std[n][i].item<double>()),
                   z = (actions[n][i] - mean[n][i]).item<double>() / s;
      log_prob += std::log(std::exp(-z * z / 2) / (s * std::sqrt(2 * pi)));
      entropy += 0.5 * std::log(2 * pi * std::exp(1.0) * s * s);
    }
    CHECK(d.log_prob(actions)[n].item<double>() == Approx(log_prob));
    CHECK(d.entropy()[n].item<double>() == Approx(entropy));
  }
  CHECK(d.mode().equal(mean));
  CHECK(d.std().equal(log_std.exp()));
}

TEST_CASE("diagonal_gaussian: every gradient against finite differences, log_std broadcast too",
          "[diagonal_gaussian]") {
  torch::manual_seed(2);
  for (const std::vector<std::int64_t>& shape :
       {std::vector<std::int64_t>{4, 3}, {3}, {1, 3}, {4, 1}, {}}) {
    auto mean = torch::randn({4, 3}, f64).requires_grad_(),
         log_std = (torch::randn(shape, f64) * 0.4).requires_grad_();
    const auto other_mean = torch::randn({4, 3}, f64), other_log_std = torch::randn({3}, f64) * 0.4,
               actions = torch::randn({4, 3}, f64);
    const std::vector<std::function<at::Tensor()>> values{
        [&] { return diagonal_gaussian{mean, log_std}.log_prob(actions).square().sum(); },
        [&] { return diagonal_gaussian{mean, log_std}.entropy().square().sum(); },
        [&] {
          return kl(diagonal_gaussian{mean, log_std}, diagonal_gaussian{other_mean, other_log_std})
              .square()
              .sum();
        },
        [&] {
          return kl(diagonal_gaussian{other_mean, other_log_std}, diagonal_gaussian{mean, log_std})
              .square()
              .sum();
        },
        [&] { return diagonal_gaussian{mean, log_std}.rsample(seeded(5)).pow(3).sum(); },
        [&] {
          const auto drawn = diagonal_gaussian{mean, log_std}.rsample_with_log_prob(seeded(5));
          return drawn.action.pow(3).sum() + drawn.log_prob.square().sum();
        }};
    for (const auto& value : values) {
      mean.mutable_grad() = log_std.mutable_grad() = at::Tensor();
      value().backward();
      const auto number = [&] { return value().item<double>(); };
      if (mean.grad().defined())
        CHECK(support::relative_error(mean.grad(), support::finite_differences(mean, number)) <
              1e-7);
      CHECK(support::relative_error(log_std.grad(), support::finite_differences(log_std, number)) <
            1e-7);
    }
  }
}

TEST_CASE("diagonal_gaussian: KL by its formula, and as a mean over samples within its error",
          "[diagonal_gaussian]") {
  torch::manual_seed(3);
  const auto m_p = torch::tensor({{0.3, -1.0}}, f64), m_q = torch::tensor({{0.0, -0.4}}, f64);
  const auto l_p = torch::tensor({{-0.5, 0.2}}, f64), l_q = torch::tensor({{-0.1, -0.3}}, f64);
  const diagonal_gaussian p{m_p, l_p}, q{m_q, l_q};
  double by_hand = 0;
  for (int i = 0; i < 2; ++i) {
    const double sp = std::exp(l_p[0][i].item<double>()), sq = std::exp(l_q[0][i].item<double>()),
                 gap = (m_p - m_q)[0][i].item<double>();
    by_hand += std::log(sq / sp) + (sp * sp + gap * gap) / (2 * sq * sq) - 0.5;
  }
  CHECK(kl(p, q).item<double>() == Approx(by_hand));
  CHECK(kl(p, p).item<double>() == 0);

  constexpr int n = 40000;
  const diagonal_gaussian many_p{m_p.expand({n, 2}), l_p}, many_q{m_q.expand({n, 2}), l_q};
  const auto drawn = many_p.sample(seeded(4));
  const auto ratio = many_p.log_prob(drawn) - many_q.log_prob(drawn);
  CHECK(std::abs(ratio.mean().item<double>() - by_hand) <
        4.5 * ratio.std().item<double>() / std::sqrt(n));

  // Close Gaussians in float: KL is about the squared distances in mean and logarithm, far below
  // float's resolution at 1.
  const auto near = kl(diagonal_gaussian{torch::zeros({1, 1}), torch::full({1, 1}, 1e-4)},
                       diagonal_gaussian{torch::zeros({1, 1}), torch::zeros({1})});
  CHECK(near.item<double>() == Approx(1e-8).epsilon(1e-3));
}

TEST_CASE("diagonal_gaussian: KL in float is what it is in double, for whichever of the two "
          "learns, and differentiated again",
          "[diagonal_gaussian]") {
  torch::manual_seed(6);
  const auto numbers = torch::randn({4, 7, 3});  // means and logarithms of p and q
  const auto weight = torch::randn({7});
  for (const int learning : {1, 2, 3, 4, 12, 15}) {  // bit k: whether tensor k asks for a gradient
    const auto run = [&](at::ScalarType type) {
      std::vector<at::Tensor> given, asking;
      for (int k = 0; k < 4; ++k) {
        given.push_back(numbers[k].to(type).clone());
        if ((learning >> k) % 2 == 1) asking.push_back(given.back().requires_grad_());
      }
      const auto value =
          kl(diagonal_gaussian{given[0], given[1]}, diagonal_gaussian{given[2], given[3]});
      std::vector<at::Tensor> said{value.detach()};
      for (const auto& slope :
           torch::autograd::grad({(value * weight.to(type)).sum()}, asking, {}, true))
        said.push_back(slope);
      const auto slopes = torch::autograd::grad({value.mean()}, asking, {}, true, true);
      auto squares = torch::zeros({}, type);
      for (const auto& slope : slopes) squares = squares + slope.square().sum();
      for (const auto& again : torch::autograd::grad({squares}, asking)) said.push_back(again);
      return said;
    };
    const auto in_float = run(at::kFloat), in_double = run(at::kDouble);
    for (std::size_t i = 0; i < in_float.size(); ++i) {
      CHECK(in_float[i].scalar_type() == at::kFloat);
      CHECK(at::allclose(in_float[i].to(at::kDouble), in_double[i], 2e-5, 1e-5));
    }
  }
}

TEST_CASE("diagonal_gaussian: KL to a teacher that spoke in inference mode, and with one log_std "
          "for all rows",
          "[diagonal_gaussian]") {
  const auto mean = torch::randn({4, 3}).requires_grad_(),
             log_std = torch::randn({3}).requires_grad_();
  const auto plain_mean = torch::randn({4, 3}), plain_log_std = torch::randn({4, 3});
  std::optional<diagonal_gaussian> spoken;
  {
    const c10::InferenceMode inference;
    spoken.emplace(plain_mean + 0, plain_log_std + 0);
  }
  const diagonal_gaussian student{mean, log_std}, teacher{plain_mean, plain_log_std};
  for (const bool forward : {false, true}) {
    const auto there = [&](const diagonal_gaussian& other) {
      return forward ? kl(other, student) : kl(student, other);
    };
    const auto asked = torch::autograd::grad({there(*spoken).sum()}, {mean, log_std}),
               expected = torch::autograd::grad({there(teacher).sum()}, {mean, log_std});
    for (std::size_t i = 0; i < 2; ++i) CHECK(at::allclose(asked[i], expected[i], 1e-5, 1e-6));
  }
}

TEST_CASE("diagonal_gaussian: samples are normal, and do not depend on how rows are batched",
          "[diagonal_gaussian]") {
  constexpr int n = 40000;
  const diagonal_gaussian d{torch::full({n, 1}, 0.7, f64), torch::full({1}, -0.6, f64)};
  const auto z = (d.sample(seeded(6)) - 0.7) / std::exp(-0.6);
  // Moments of a standard normal: 0, 1, 0, 3, with variances 1, 2, 15, 96 of their powers.
  const double moments[] = {0, 1, 0, 3}, variances[] = {1, 2, 15, 96};
  for (int k = 0; k < 4; ++k)
    CHECK(std::abs(z.pow(k + 1).mean().item<double>() - moments[k]) <
          4.5 * std::sqrt(variances[k] / n));

  torch::manual_seed(7);
  const auto mean = torch::randn({64, 3}), log_std = torch::randn({64, 3});
  auto one = seeded(9), two = seeded(9);
  const auto whole = diagonal_gaussian{mean, log_std}.sample(one);
  const auto part = [&](std::int64_t from, std::int64_t length) {
    return diagonal_gaussian{mean.narrow(0, from, length), log_std.narrow(0, from, length)}.sample(
        two);
  };
  CHECK(whole.equal(torch::cat({part(0, 10), part(10, 54)})));
  auto parameter = torch::zeros({3}).requires_grad_();
  CHECK(!diagonal_gaussian(mean, parameter).sample().requires_grad());
  CHECK(!diagonal_gaussian(mean.clone().requires_grad_(), parameter).mode().requires_grad());
  CHECK(diagonal_gaussian(mean, parameter).rsample().requires_grad());
}

TEST_CASE("diagonal_gaussian: an action drawn with its log-density is the one drawn without, in "
          "each type",
          "[diagonal_gaussian]") {
  torch::manual_seed(11);
  for (const auto type : {torch::kDouble, torch::kFloat, torch::kBFloat16}) {
    const diagonal_gaussian d{torch::randn({256, 3}).to(type), torch::randn({3}).to(type)};
    const auto drawn = d.rsample_with_log_prob(seeded(12));
    CHECK(drawn.action.equal(d.rsample(seeded(12))));
    CHECK(drawn.action.scalar_type() == type);
    // Against the density of the action, drawn in double: the same noise, rounded to the type. Its
    // three terms are below 16 each.
    const diagonal_gaussian exact{d.mean().to(torch::kDouble), d.log_std().to(torch::kDouble)};
    const double last_place = type == torch::kDouble  ? 0x1p-52
                              : type == torch::kFloat ? 0x1p-23
                                                      : 0x1p-7;
    CHECK((drawn.log_prob.to(torch::kDouble) - exact.log_prob(exact.rsample(seeded(12))))
              .abs()
              .max()
              .item<double>() < 32 * last_place);
  }
  const auto none =
      diagonal_gaussian{torch::zeros({0, 3}), torch::zeros({3})}.rsample_with_log_prob();
  CHECK(none.log_prob.sizes() == at::IntArrayRef({0}));
}

TEST_CASE("diagonal_gaussian: quantiles against the distribution function, to its edges",
          "[diagonal_gaussian]") {
  const auto u = torch::tensor({0x1p-20, 0.025, 0.5, 0.8}, f64).unsqueeze(-1);
  const diagonal_gaussian d{torch::full({4, 1}, 2.0, f64), torch::full({1}, std::log(3.0), f64)};
  const auto below = [](double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); };
  for (int i = 0; i < 4; ++i)
    CHECK(below((d.at_quantile(u)[i].item<double>() - 2.0) / 3.0) ==
          Approx(u[i].item<double>()).epsilon(1e-9));
  const diagonal_gaussian standard{torch::zeros({2, 1}, f64), torch::zeros({1}, f64)};
  const auto last = standard.at_quantile(torch::tensor({0.0, 1 - 0x1p-53}, f64).unsqueeze(-1));
  CHECK(below(last[0].item<double>()) == Approx(0x1p-54).epsilon(1e-2).margin(0));
  CHECK(below(-last[1].item<double>()) == Approx(0x1p-53).epsilon(1e-2).margin(0));
}

TEST_CASE("diagonal_gaussian: the rows of scores give the expected squared score",
          "[diagonal_gaussian]") {
  torch::manual_seed(8);
  auto theta = torch::randn({2}, f64).requires_grad_();  // mean and log_std both depend on it
  const auto make = [&](std::int64_t rows) {
    return diagonal_gaussian{
        torch::stack({theta[0] * theta[1], theta[0] + theta[1]}).expand({rows, 2}),
        (theta * 0.3).expand({rows, 2})};
  };
  const auto squares = [&](const at::Tensor& root) {
    return torch::autograd::grad({root}, {theta}, {}, true)[0].square();
  };
  const auto one = make(1);
  auto closed = torch::zeros({2}, f64);
  REQUIRE(one.num_scores() == 4);
  for (std::int64_t k = 0; k < one.num_scores(); ++k) closed += squares(one.score(k).sum());

  constexpr int n = 20000;
  const auto drawn = make(n).sample(seeded(3));
  // The score of each sample by the chain rule, from derivatives with respect to the distribution's
  // own parameters.
  auto mean = make(n).mean().detach().requires_grad_(),
       log_std = make(n).log_std().detach().requires_grad_();
  diagonal_gaussian{mean, log_std}.log_prob(drawn).sum().backward();
  const double a = theta[0].item<double>(), b = theta[1].item<double>();
  const auto by_mean = torch::tensor({{b, a}, {1.0, 1.0}}, f64),
             by_log_std = torch::eye(2, f64) * 0.3;
  const auto squared = (mean.grad().mm(by_mean) + log_std.grad().mm(by_log_std)).square();
  CHECK(
      ((squared.mean(0) - closed).abs() < 4.5 * squared.std(0) / std::sqrt(n)).all().item<bool>());
}

TEST_CASE("diagonal_gaussian: rows that a mask drops reach neither value nor gradient",
          "[diagonal_gaussian]") {
  const double nan = std::nan("");
  auto mean = torch::tensor({{1.0, 2.0}, {nan, 0.0}}, f64).requires_grad_(),
       log_std = torch::tensor({{0.1, 0.2}, {0.0, nan}}, f64).requires_grad_();
  const auto kept = diagonal_gaussian{mean, log_std}.where(torch::tensor({1, 0}));
  CHECK(kept.mean()[1].equal(torch::zeros({2}, f64)));
  const auto value =
      kl(kept, diagonal_gaussian{torch::zeros({2, 2}, f64), torch::zeros({2}, f64)}) +
      kept.log_prob(torch::ones({2, 2}, f64));
  CHECK(value.isfinite().all().item<bool>());
  (value.sum() + kept.entropy().sum()).backward();
  CHECK(mean.grad()[1].equal(torch::zeros({2}, f64)));
  CHECK(log_std.grad()[1].equal(torch::zeros({2}, f64)));
  CHECK(mean.grad()[0].abs().min().item<double>() > 0);
}

TEST_CASE("diagonal_gaussian: a retention term takes it as it is", "[diagonal_gaussian]") {
  struct padded {
    at::Tensor observations, mask;
  };
  auto shift = torch::zeros({2}).requires_grad_();
  retain::kickstarting keep{
      [](const at::Tensor& o) { return diagonal_gaussian{o, torch::zeros({2})}; },
      {.strength = 2.0}};
  auto observations = torch::randn({3, 2});
  observations[2].fill_(std::nan(""));
  const auto student = [&](const at::Tensor& o) {
    return diagonal_gaussian{o + shift + 0.5, torch::zeros({2})};
  };
  const auto loss = keep.loss(student, padded{observations, torch::tensor({1, 1, 0})});
  CHECK(loss.item<double>() == Approx(2.0 * 2 * 0.25 / 2));
  loss.backward();
  CHECK(shift.grad().allclose(torch::full({2}, 2.0 * 0.5)));
}

TEST_CASE("diagonal_gaussian: one dimension, no rows, half precision, and shapes that do not fit",
          "[diagonal_gaussian]") {
  CHECK(diagonal_gaussian(torch::zeros({0, 3}), torch::zeros({3})).sample().sizes() ==
        at::IntArrayRef({0, 3}));
  CHECK(diagonal_gaussian(torch::zeros({1}), torch::zeros({1})).entropy().item<double>() ==
        Approx(0.5 * std::log(2 * pi * std::exp(1.0))));
  const diagonal_gaussian reduced{torch::zeros({4, 2}).to(at::kBFloat16),
                                  torch::zeros({2}).to(at::kBFloat16)};
  CHECK(reduced.sample().scalar_type() == at::kBFloat16);
  CHECK(reduced.log_prob(reduced.mode())[0].item<double>() ==
        Approx(-std::log(2 * pi)).epsilon(1e-2));

  CHECK_THROWS_AS(diagonal_gaussian(torch::tensor(1.0), torch::tensor(0.0)), retain::shape_error);
  CHECK_THROWS_AS(diagonal_gaussian(torch::zeros({3, 0}), torch::zeros({0})), retain::shape_error);
  CHECK_THROWS_WITH(diagonal_gaussian(torch::zeros({5, 3}), torch::zeros({2})),
                    ContainsSubstring("[2]") && ContainsSubstring("[5, 3]"));
  CHECK_THROWS_AS(diagonal_gaussian(torch::zeros({3}), torch::zeros({5, 3})), retain::shape_error);
  const diagonal_gaussian d{torch::zeros({8, 3}), torch::zeros({3})};
  CHECK_THROWS_WITH(d.log_prob(torch::zeros({8})),
                    ContainsSubstring("[8]") && ContainsSubstring("[8, 3]"));
  CHECK_THROWS_WITH(d.where(torch::ones({8, 3})), ContainsSubstring("mask of shape [8, 3]"));
  CHECK_THROWS_WITH(kl(d, diagonal_gaussian(torch::zeros({3}), torch::zeros({3}))),
                    ContainsSubstring("[8, 3] and [3]"));
}

TEST_CASE(
    "diagonal_gaussian: the density at its mean for any deviation; tiny ones do not make it NaN",
    "[diagonal_gaussian]") {
  const double half_log_two_pi = 0.5 * std::log(2 * pi);
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16})
    for (const double logarithm : {-100.0, -110.0, -800.0, -3.0}) {
      INFO(logarithm);
      const auto mean = torch::full({1, 1}, 1.0, type).requires_grad_(),
                 log_std = torch::full({1, 1}, logarithm, type).requires_grad_();
      const diagonal_gaussian d{mean, log_std};
      const auto density = d.log_prob(torch::full({1, 1}, 1.0, type));
      CHECK(density.item<double>() ==
            Approx(-logarithm - half_log_two_pi).epsilon(type == at::kBFloat16 ? 0.01 : 1e-6));
      density.sum().backward();
      CHECK(mean.grad().item<double>() == 0);
      CHECK(log_std.grad().item<double>() == -1);
      CHECK(d.entropy().item<double>() ==
            Approx(logarithm + half_log_two_pi + 0.5).epsilon(type == at::kBFloat16 ? 0.01 : 1e-6));
      // Equal ones do not diverge, as one node of the graph and as several.
      for (const bool joined : {true, false}) {
        mean.mutable_grad() = log_std.mutable_grad() = at::Tensor();
        std::optional<retain::detail::separate_nodes> apart;
        if (!joined) apart.emplace();
        const auto divergence =
            kl(d, diagonal_gaussian{mean.detach().clone(), log_std.detach().clone()});
        CHECK(divergence.item<double>() == 0);
        divergence.sum().backward();
        CHECK(mean.grad().item<double>() == 0);
        CHECK(log_std.grad().item<double>() == 0);
        const auto backwards =
            kl(diagonal_gaussian{mean.detach().clone(), log_std.detach().clone()}, d);
        mean.mutable_grad() = log_std.mutable_grad() = at::Tensor();
        backwards.sum().backward();
        CHECK(mean.grad().item<double>() == 0);
        CHECK(log_std.grad().item<double>() == 0);
      }
    }
}

TEST_CASE("diagonal_gaussian: tensors of a temporary outlive it", "[diagonal_gaussian]") {
  const auto mean = torch::randn({2, 3}), log_std = torch::randn({2, 3});
  const auto& kept_mean = diagonal_gaussian{mean, log_std}.mean();
  const auto& kept_log_std = diagonal_gaussian{mean, log_std}.log_std();
  CHECK(kept_mean.equal(mean));
  CHECK(kept_log_std.equal(log_std));
}

TEST_CASE("diagonal_gaussian: a fixed deviation around the actions of a deterministic actor",
          "[diagonal_gaussian]") {
  torch::manual_seed(51);
  const auto p = torch::randn({6, 3}, at::kDouble), q = torch::randn({6, 3}, at::kDouble);
  for (const double sigma : {0.1, std::sqrt(0.5), 3.0}) {
    const auto teacher = diagonal_gaussian::around(p, sigma),
               student = diagonal_gaussian::around(q, sigma);
    CHECK(support::relative_error(kl(teacher, student),
                                  (p - q).square().sum(-1) / (2 * sigma * sigma)) < 1e-12);
    CHECK(teacher.std().allclose(torch::full({6, 3}, sigma, at::kDouble)));
  }
  const auto leaf = q.clone().requires_grad_();
  CHECK(!diagonal_gaussian::around(leaf, 0.1).log_std().requires_grad());
  CHECK(diagonal_gaussian::around(p.to(at::kFloat), 0.1).log_std().scalar_type() == at::kFloat);
  for (const double sigma : {0.0, -1.0, std::nan(""), static_cast<double>(INFINITY)})
    CHECK_THROWS_AS(diagonal_gaussian::around(p, sigma), retain::config_error);
}

}  // namespace diagonal_gaussian_test
