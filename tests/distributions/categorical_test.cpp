// SPDX-License-Identifier: MIT
#include <retain/categorical.hpp>
#include <retain/concepts.hpp>

#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "support.hpp"

namespace categorical_test {

using retain::categorical;

namespace {
struct no_kl {
  at::Tensor log_prob(const at::Tensor& a) const { return a; }
  at::Tensor entropy() const { return {}; }
  at::Tensor sample() const { return {}; }
  at::Tensor mode() const { return {}; }
};
static_assert(retain::action_distribution<categorical>);
static_assert(!retain::action_distribution<no_kl>);
static_assert(!retain::action_distribution<at::Tensor>);

const auto f64 = at::TensorOptions().dtype(at::kDouble);
}  // namespace

TEST_CASE("categorical: log-probabilities, entropy and mode against sums written out",
          "[categorical]") {
  torch::manual_seed(1);
  const auto logits = torch::randn({5, 7}, f64) * 3;
  const categorical d{logits};
  for (int n = 0; n < 5; ++n) {
    double z = 0;
    for (int a = 0; a < 7; ++a) z += std::exp(logits[n][a].item<double>());
    double entropy = 0;
    int best = 0;
    for (int a = 0; a < 7; ++a) {
      const double p = std::exp(logits[n][a].item<double>()) / z;
      entropy -= p * std::log(p);
      CHECK(d.log_prob(torch::full({5}, a, at::kLong))[n].item<double>() == Approx(std::log(p)));
      if (logits[n][a].item<double>() > logits[n][best].item<double>()) best = a;
    }
    CHECK(d.entropy()[n].item<double>() == Approx(entropy));
    CHECK(d.mode()[n].item<std::int64_t>() == best);
  }
}

TEST_CASE("categorical: KL and both its gradients against finite differences", "[categorical]") {
  torch::manual_seed(2);
  auto p = torch::randn({4, 6}, f64).requires_grad_(),
       q = torch::randn({4, 6}, f64).requires_grad_();
  const auto value = [&] { return kl(categorical{p}, categorical{q}).sum(); };
  value().backward();
  CHECK(support::relative_error(p.grad(), support::finite_differences(
                                              p, [&] { return value().item<double>(); })) < 1e-8);
  CHECK(support::relative_error(q.grad(), support::finite_differences(
                                              q, [&] { return value().item<double>(); })) < 1e-8);

  double by_hand = 0;
  const auto pp = p.detach().softmax(-1), qq = q.detach().softmax(-1);
  for (int n = 0; n < 4; ++n)
    for (int a = 0; a < 6; ++a)
      by_hand +=
          pp[n][a].item<double>() * std::log(pp[n][a].item<double>() / qq[n][a].item<double>());
  CHECK(value().item<double>() == Approx(by_hand));
  CHECK(kl(categorical{p}, categorical{p}).abs().max().item<double>() < 1e-15);
}

TEST_CASE("categorical: KL of float rows is that of double rows, for any number of actions",
          "[categorical]") {
  torch::manual_seed(11);
  const auto infinity = std::numeric_limits<float>::infinity();
  for (const std::int64_t actions : {1, 2, 7, 8, 9, 16, 23, 64, 121, 1000}) {
    INFO(actions << " actions");
    auto a = torch::randn({3, 5, actions}) * 4, b = a + torch::randn({3, 5, actions});
    // an offset changes nothing, and an action that is impossible for both counts nothing
    a[0][0] += 60;
    b[1][1] -= 80;
    if (actions > 2) {
      a.select(-1, 1).fill_(-infinity);
      b.select(-1, 1).fill_(-infinity);
      a[2][2][0].fill_(-150);  // so unlikely that float has no number for it
    }
    const auto weights = torch::rand({3, 5});
    const auto run = [&](const at::Tensor& p, const at::Tensor& q) {
      const auto value = kl(categorical{p}, categorical{q});
      (value * weights.to(value.options())).sum().backward();
      return value.detach();
    };
    const auto p = a.clone().requires_grad_(), q = b.clone().requires_grad_();
    const auto exact_p = a.to(at::kDouble).requires_grad_(),
               exact_q = b.to(at::kDouble).requires_grad_();
    const auto exact = run(exact_p, exact_q);
    CHECK((run(p, q) - exact).abs().max().item<double>() < 2e-6 * (1 + exact.max().item<double>()));
    CHECK((p.grad() - exact_p.grad()).abs().max().item<double>() < 5e-6);
    CHECK((q.grad() - exact_q.grad()).abs().max().item<double>() < 1e-6);
    // Only one of the two wants a gradient, and the logits are not in order in memory.
    const auto turned = b.transpose(0, 1).contiguous().transpose(0, 1).detach().requires_grad_();
    CHECK(torch::equal(run(a, turned), kl(categorical{p}, categorical{q}).detach()));
    CHECK(torch::equal(turned.grad(), q.grad()));
  }
}

TEST_CASE("categorical: logits far from 0 have the gradients of logits near it", "[categorical]") {
  torch::manual_seed(14);
  // exact beside any offset here
  const auto a = torch::randn({4, 12}).mul(8).round() / 8,
             b = torch::randn({4, 12}).mul(8).round() / 8;
  const auto gradients = [](const at::Tensor& x, const at::Tensor& y) {
    const auto p = x.clone().requires_grad_(), q = y.clone().requires_grad_();
    kl(categorical{p}, categorical{q}).sum().backward();
    return torch::stack({p.grad(), q.grad()});
  };
  const auto near = gradients(a, b);
  for (const double offset : {-1e6, -1e4, 1e4, 1e6})
    CHECK((gradients(a + offset, b - offset) - near).abs().max().item<double>() < 1e-6);
  CHECK(
      (gradients(torch::full({1, 3}, -1e8), torch::full({1, 3}, 1e8))).abs().max().item<double>() <
      1e-6);
}

TEST_CASE("categorical: KL is small where it should be, and its gradient can be differentiated",
          "[categorical]") {
  torch::manual_seed(12);
  const auto a = torch::randn({64, 30});
  const auto near = kl(categorical{a}, categorical{a + 1e-3 * torch::randn({64, 30})});
  CHECK(near.max().item<double>() < 2e-6);
  CHECK(near.min().item<double>() > -5e-7);

  // The Hessian in q at p = q is the Fisher information: diag(pi) - pi pi^T.
  const auto q = a[0].clone().requires_grad_();
  const auto gradient = torch::autograd::grad({kl(categorical{a[0]}, categorical{q})}, {q}, {},
                                              true, /*create_graph=*/true)[0];
  const auto pi = a[0].softmax(0);
  const auto second = torch::autograd::grad({gradient[4]}, {q})[0];
  CHECK((second - (torch::diag(pi) - torch::outer(pi, pi))[4]).abs().max().item<double>() < 1e-6);
  const auto p = a[0].clone().requires_grad_();
  const auto of_p = torch::autograd::grad({kl(categorical{p}, categorical{a[1]})}, {p}, {}, true,
                                          /*create_graph=*/true)[0];
  const auto plain = torch::autograd::grad({kl(categorical{p}, categorical{a[1]})}, {p})[0];
  CHECK((of_p - plain).abs().max().item<double>() < 1e-6);
}

TEST_CASE(
    "categorical: KL to what was said in inference mode, and of logits that are negated lazily",
    "[categorical]") {
  torch::manual_seed(13);
  const auto plain = torch::randn({4, 5});
  at::Tensor said;
  {
    const c10::InferenceMode inference;
    said = plain.clone();
  }
  const auto q = torch::randn({4, 5}).requires_grad_(), same = q.detach().clone().requires_grad_();
  kl(categorical{said}, categorical{q}).sum().backward();
  kl(categorical{plain}, categorical{same}).sum().backward();
  CHECK((q.grad() - same.grad()).abs().max().item<double>() < 1e-6);

  const auto turned = at::_neg_view(plain);
  CHECK((kl(categorical{turned}, categorical{plain}) - kl(categorical{-plain}, categorical{plain}))
            .abs()
            .max()
            .item<double>() < 1e-6);
}

TEST_CASE("categorical: NaN in a row stays in its row", "[categorical]") {
  for (const bool in_p : {true, false})
    for (const std::int64_t place : {0, 6, 9}) {
      auto p = torch::zeros({3, 10}), q = torch::zeros({3, 10});
      (in_p ? p : q)[1][place].fill_(std::numeric_limits<double>::quiet_NaN());
      const auto value = kl(categorical{p}, categorical{q});
      CHECK(value.isnan().equal(torch::tensor({false, true, false})));
      CHECK(value[0].item<double>() == 0);
    }
}

TEST_CASE("categorical: actions of probability 0 count 0, in value and gradient", "[categorical]") {
  const double inf = std::numeric_limits<double>::infinity();
  const auto p = torch::tensor({0.0, -inf, 0.0}, f64);
  auto q = torch::tensor({0.5, 0.1, -0.3}, f64).requires_grad_();
  const auto divergence = kl(categorical{p}, categorical{q});
  divergence.backward();
  CHECK(std::isfinite(divergence.item<double>()));
  CHECK(q.grad().isfinite().all().item<bool>());
  CHECK(categorical{p}.entropy().item<double>() == Approx(std::log(2.0)));
  CHECK(kl(categorical{q.detach()}, categorical{p}).item<double>() == inf);
}

TEST_CASE(
    "categorical: samples have the right frequencies, and do not depend on how rows are batched",
    "[categorical]") {
  const auto logits = torch::tensor({{1.0, 0.0, -1.0, 2.0}}, f64);
  const auto probs = categorical{logits}.probs()[0];
  auto generator = at::detail::createCPUGenerator(7);
  constexpr int n = 40000;
  const auto drawn = categorical{logits.expand({n, 4})}.sample(generator);
  for (int a = 0; a < 4; ++a) {
    const double p = probs[a].item<double>(), sigma = std::sqrt(p * (1 - p) / n);
    CHECK(std::abs((drawn == a).to(at::kDouble).mean().item<double>() - p) < 4.5 * sigma);
  }
  torch::manual_seed(3);
  const auto rows = torch::randn({64, 5});
  auto one = at::detail::createCPUGenerator(9), two = at::detail::createCPUGenerator(9);
  const auto whole = categorical{rows}.sample(one);
  const auto parts = torch::cat({categorical{rows.narrow(0, 0, 10)}.sample(two),
                                 categorical{rows.narrow(0, 10, 54)}.sample(two)});
  CHECK(whole.equal(parts));
}

TEST_CASE("categorical: the edges of inversion", "[categorical]") {
  const auto logits = torch::tensor({{0.0, 0.0}, {0.0, 0.0}, {0.0, 0.0}}, f64);
  CHECK(categorical{logits}
            .at_quantile(torch::tensor({0.0, 0.499, 0.5}, f64))
            .equal(torch::tensor({0, 0, 1})));
  const double inf = std::numeric_limits<double>::infinity();
  const auto certain = torch::tensor({{-inf, 0.0, -inf}}, f64);
  CHECK(categorical{certain}.at_quantile(torch::tensor({0.0}, f64)).item<std::int64_t>() == 1);
  CHECK(categorical{certain}.at_quantile(torch::tensor({0.999999}, f64)).item<std::int64_t>() == 1);
  CHECK(categorical{torch::zeros({4, 1})}.sample().equal(torch::zeros({4}, at::kLong)));
  CHECK(categorical{torch::zeros({0, 3})}.sample().numel() == 0);
}

TEST_CASE("categorical: what was asked for without a graph does not take the graph away later",
          "[categorical]") {
  auto logits = torch::zeros({2, 3}).requires_grad_();
  const categorical d{logits};
  {
    const at::NoGradGuard no_grad;
    (void)d.log_prob(torch::zeros({2}, at::kLong));
  }
  CHECK(d.log_prob(torch::zeros({2}, at::kLong)).requires_grad());
}

TEST_CASE("categorical: logits that are replaced or written to are the ones that count",
          "[categorical]") {
  categorical d{torch::tensor({0.0, 1.0}, f64)};
  const auto first = d.probs();
  d.logits = torch::tensor({3.0, 1.0}, f64);
  CHECK(d.probs().equal(categorical{torch::tensor({3.0, 1.0}, f64)}.probs()));
  d.logits.sub_(torch::tensor({3.0, 0.0}, f64));
  CHECK(d.probs().equal(first));
  const auto copy = d;
  CHECK(copy.log_probs().is_same(d.log_probs()));  // computed once
  const c10::InferenceMode inference;
  const categorical without_versions{torch::zeros({2}, f64)};
  CHECK(without_versions.probs().equal(torch::full({2}, 0.5, f64)));
}

TEST_CASE("categorical: no quantile falls on an action of probability 0", "[categorical]") {
  torch::manual_seed(4);
  auto logits = torch::randn({4000, 6}, f64) * 3;
  logits.select(1, 0).fill_(-std::numeric_limits<double>::infinity());
  logits.narrow(1, 4, 2).fill_(-std::numeric_limits<double>::infinity());
  for (const double u : {0.0, 0.5, 1 - 0x1p-53}) {
    const auto drawn = categorical{logits}.at_quantile(torch::full({4000}, u, f64));
    CHECK(drawn.min().item<std::int64_t>() >= 1);
    CHECK(drawn.max().item<std::int64_t>() <= 3);
  }
}

TEST_CASE("categorical: the rows of scores give the expected squared score", "[categorical]") {
  torch::manual_seed(5);
  auto logits = torch::randn({4}, f64);
  logits[2] = -std::numeric_limits<double>::infinity();
  logits.requires_grad_();
  const categorical d{logits};
  auto sum = torch::zeros({4}, f64);
  for (std::int64_t a = 0; a < d.num_scores(); ++a)
    sum += torch::autograd::grad({d.score(a)}, {logits}, {}, true)[0].square();
  const auto p = logits.detach().softmax(0);
  // Var of 1[a = k], the score of logit k
  CHECK(support::relative_error(sum, p * (1 - p)) < 1e-12);
}

TEST_CASE("categorical: rows that a mask drops are uniform, whatever stood in them",
          "[categorical]") {
  auto logits = torch::tensor({{1.0, 2.0}, {std::nan(""), 0.0}}, f64).requires_grad_();
  const auto kept = categorical{logits}.where(torch::tensor({1, 0}));
  CHECK(kept.probs()[1].equal(torch::tensor({0.5, 0.5}, f64)));
  kept.entropy().sum().backward();
  CHECK(logits.grad()[1].equal(torch::zeros({2}, f64)));
  CHECK(logits.grad()[0].abs().min().item<double>() > 0);
}

TEST_CASE("categorical: shapes are checked", "[categorical]") {
  CHECK_THROWS_WITH((categorical{torch::zeros({8, 3})}.log_prob(torch::zeros({2}, at::kLong))),
                    ContainsSubstring("[2]") && ContainsSubstring("[8]"));
  CHECK_THROWS_AS(categorical{torch::tensor(1.0)}, retain::shape_error);
  CHECK_THROWS_AS((categorical{torch::zeros({3, 0})}), retain::shape_error);
  CHECK_THROWS_WITH(kl(categorical{torch::zeros({3, 2})}, categorical{torch::zeros({3, 4})}),
                    ContainsSubstring("[3, 2] and [3, 4]"));
}

// LibTorch 1.13 has no log_softmax of half on the CPU, so that bfloat16 alone stands for half
// precision here.
TEST_CASE("categorical: in bfloat16 everything is what it is in double, to its precision",
          "[categorical]") {
  torch::manual_seed(9);
  const auto p = torch::randn({40, 6}).to(at::kBFloat16),
             q = torch::randn({40, 6}).to(at::kBFloat16);
  const auto actions = torch::randint(6, {40}), mask = torch::rand({40}).gt(0.3);
  const auto all = [&](at::ScalarType type) {
    const auto mine = p.to(type).clone().requires_grad_(),
               other = q.to(type).clone().requires_grad_();
    const categorical d{mine};
    const std::vector<at::Tensor> values{
        d.log_probs(), d.log_prob(actions),       d.entropy(),
        d.score(2),    kl(d, categorical{other}), d.where(mask).entropy()};
    auto results = values;
    for (std::size_t i = 1; i < values.size(); ++i) {
      const auto gradients =
          torch::autograd::grad({values[i].sum()}, {mine, other}, {}, true, false, true);
      for (const auto& gradient : gradients)
        if (gradient.defined()) results.push_back(gradient);
    }
    return results;
  };
  const auto narrow = all(at::kBFloat16), wide = all(at::kDouble);
  REQUIRE(narrow.size() == wide.size());
  for (std::size_t i = 0; i < wide.size(); ++i) {
    INFO(i);
    CHECK(narrow[i].scalar_type() == at::kBFloat16);
    CHECK(support::relative_error(narrow[i].detach(), wide[i].detach()) < 0x1p-6);
  }
  CHECK(categorical{p}.mode().equal(categorical{p.to(at::kDouble)}.mode()));
}

TEST_CASE(
    "categorical: actions of any integral type are what they are as int64; real ones are refused",
    "[categorical]") {
  torch::manual_seed(21);
  const categorical d{torch::randn({4, 2})};
  const auto actions = torch::tensor({1, 0, 0, 1}, at::kLong);
  for (const auto type : {at::kInt, at::kShort, at::kChar, at::kByte, at::kBool})
    CHECK(d.log_prob(actions.to(type)).equal(d.log_prob(actions)));
  for (const auto type : {at::kFloat, at::kDouble, at::kHalf}) {
    CHECK_THROWS_AS(d.log_prob(actions.to(type)), retain::config_error);
    CHECK_THROWS_WITH(d.log_prob(actions.to(type)),
                      ContainsSubstring("whole numbers") && ContainsSubstring("at::kLong"));
  }
}

TEST_CASE("categorical: half logits on the CPU are computed in float", "[categorical]") {
  torch::manual_seed(22);
  const auto logits = torch::randn({3, 5}).to(at::kHalf), actions = torch::tensor({1, 4, 0});
  const categorical half{logits}, whole{logits.to(at::kFloat)}, other{torch::randn({3, 5})};
  CHECK(half.log_prob(actions).equal(whole.log_prob(actions)));
  CHECK(half.entropy().allclose(whole.entropy()));
  CHECK(kl(half, other).allclose(kl(whole, other), 1e-5, 1e-6));
  CHECK(kl(other, half).allclose(kl(other, whole), 1e-5, 1e-6));
  CHECK(half.where(torch::tensor({1, 0, 1})).entropy()[1].item<double>() == Approx(std::log(5.0)));
  CHECK(half.mode().equal(whole.mode()));
}

TEST_CASE("categorical: log-probabilities of a temporary outlive it", "[categorical]") {
  static_assert(std::is_same_v<decltype(std::declval<categorical>().log_probs()), at::Tensor>);
  static_assert(
      std::is_same_v<decltype(std::declval<const categorical>().log_probs()), at::Tensor>);
  static_assert(
      std::is_same_v<decltype(std::declval<const categorical&>().log_probs()), const at::Tensor&>);
  const auto x = torch::randn({2, 3});
  const auto& kept = categorical{x}.log_probs();
  CHECK(kept.equal(at::log_softmax(x, -1)));
}

TEST_CASE("categorical: from probabilities it is the policy that the logits describe",
          "[categorical]") {
  torch::manual_seed(31);
  for (const auto type : {at::kDouble, at::kFloat}) {
    const double tolerance = type == at::kDouble ? 1e-12 : 1e-5;
    const auto z = (torch::randn({6, 5}, type) * 2).requires_grad_();
    const auto actions = torch::randint(5, {6});
    const auto from = categorical::from_probs(z.softmax(-1));
    const categorical plain{z};
    CHECK(support::relative_error(from.log_prob(actions), plain.log_prob(actions)) < tolerance);
    CHECK(support::relative_error(from.entropy(), plain.entropy()) < tolerance);
    CHECK(kl(from, plain).abs().max().item<double>() < tolerance);
    const auto gradient = torch::autograd::grad({from.log_prob(actions).sum()}, {z})[0];
    const auto truth = torch::autograd::grad({plain.log_prob(actions).sum()}, {z})[0];
    CHECK(support::relative_error(gradient, truth) < tolerance);
  }
}

TEST_CASE("categorical: the gradient of from_probs at interior points is that of log p",
          "[categorical]") {
  torch::manual_seed(32);
  const auto p = torch::randn({4, 5}, f64).softmax(-1).requires_grad_();
  const auto actions = torch::randint(5, {4});
  const auto value = [&] {
    return p.detach().log().gather(-1, actions.unsqueeze(-1)).sum().item<double>();
  };
  CHECK(categorical::from_probs(p).log_prob(actions).sum().item<double>() == Approx(value()));
  auto expected = support::finite_differences(p.detach(), value, 1e-6);
  auto gradient =
      torch::autograd::grad({categorical::from_probs(p).log_prob(actions).sum()}, {p})[0];
  // Probabilities stay on the simplex: only differences between the actions of a row count.
  expected = expected - expected.mean(-1, true);
  gradient = gradient - gradient.mean(-1, true);
  CHECK(support::relative_error(gradient, expected) < 1e-8);
}

TEST_CASE("categorical: a probability of 0 is an action that is never taken, with gradient 0",
          "[categorical]") {
  const auto p = torch::tensor({0.25, 0.75, 0.0, 0.0, 1.0, 0.0}, f64).reshape({2, 3});
  const auto leaf = p.clone().requires_grad_();
  const auto d = categorical::from_probs(leaf);
  CHECK(d.probs().allclose(p, 1e-12, 0));
  CHECK(std::isinf(d.logits[0][2].item<double>()));
  CHECK(d.logits[0][2].item<double>() < 0);
  CHECK(d.entropy()[1].item<double>() == 0);
  (d.log_prob(torch::tensor({1, 1})).sum() + d.entropy().sum() + kl(d, d).sum()).backward();
  CHECK(leaf.grad().isfinite().all().item<bool>());
  CHECK(leaf.grad()[0][2].item<double>() == 0);
  CHECK(categorical::from_probs(torch::zeros({0, 3})).num_actions() == 3);
  CHECK(categorical::from_probs(torch::ones({2, 1})).entropy().equal(torch::zeros({2})));
}

TEST_CASE("categorical: what is not probabilities is refused", "[categorical]") {
  const auto from = [](const at::Tensor& p) { return categorical::from_probs(p); };
  CHECK_THROWS_WITH(from(torch::tensor({0.5, 0.5, 0.7, 0.7}).reshape({2, 2})),
                    ContainsSubstring("row 1 has the sum 1.4") &&
                        ContainsSubstring("retain::categorical{logits}"));
  CHECK_THROWS_WITH(from(torch::tensor({1.5, -0.5})), ContainsSubstring("smallest value -0.5"));
  CHECK_THROWS_AS(from(torch::tensor({0.5, std::nan("")})), retain::config_error);
  CHECK_THROWS_AS(from(torch::randn({4, 3})), retain::config_error);
  CHECK_THROWS_WITH(from(torch::ones({1, 1}, at::kLong)), ContainsSubstring("floating-point"));
  CHECK_THROWS_AS(from(torch::tensor(1.0)), retain::shape_error);
  CHECK_THROWS_AS(from(torch::zeros({2, 0})), retain::shape_error);
  // Rounding is not an error, in no type.
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    torch::manual_seed(33);
    CHECK_NOTHROW(from((torch::randn({300, 121}) * 3).softmax(-1).to(type)));
  }
}

}  // namespace categorical_test
