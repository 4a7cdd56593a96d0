// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/masked_categorical.hpp>
#include <retain/multi_discrete.hpp>

#include <cmath>

#include "support.hpp"

namespace multi_discrete_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::multi_discrete;

namespace {

static_assert(retain::action_distribution<multi_discrete>);
static_assert(!retain::action_distribution<std::vector<categorical>>);

const auto f64 = at::TensorOptions().dtype(at::kDouble);
const std::vector<std::int64_t> sizes{3, 1, 4};

/// The one categorical over all 12 combinations, whose logits are sums: what the product must agree
/// with.
categorical joint(const at::Tensor& logits) {
  std::vector<at::Tensor> sums;
  for (int a = 0; a < 3; ++a)
    for (int c = 0; c < 4; ++c)
      sums.push_back(logits.narrow(-1, 0, 3).log_softmax(-1).select(-1, a) +
                     logits.narrow(-1, 4, 4).log_softmax(-1).select(-1, c));
  return categorical{torch::stack(sums, -1)};
}
at::Tensor flat(const at::Tensor& actions) {
  return actions.select(-1, 0) * 4 + actions.select(-1, 2);
}

}  // namespace

TEST_CASE("multi_discrete: agrees with the categorical over all combinations", "[multi_discrete]") {
  torch::manual_seed(1);
  const auto logits = torch::randn({5, 8}, f64) * 2, others = torch::randn({5, 8}, f64);
  const multi_discrete d{logits, sizes}, q{others, sizes};
  const auto all = joint(logits);
  CHECK(d.num_factors() == 3);
  CHECK(d.factor(2).num_actions() == 4);
  const auto actions = torch::stack(
      {torch::randint(3, {5}), torch::zeros({5}, at::kLong), torch::randint(4, {5})}, -1);
  CHECK(support::relative_error(d.log_prob(actions), all.log_prob(flat(actions))) < 1e-13);
  CHECK(support::relative_error(d.entropy(), all.entropy()) < 1e-13);
  CHECK(support::relative_error(kl(d, q), kl(all, joint(others))) < 1e-12);
  CHECK(flat(d.mode()).equal(all.mode()));
  CHECK(d.mode().sizes() == at::IntArrayRef({5, 3}));
}

TEST_CASE("multi_discrete: every gradient against finite differences", "[multi_discrete]") {
  torch::manual_seed(2);
  auto logits = torch::randn({4, 8}, f64).requires_grad_();
  const multi_discrete q{torch::randn({4, 8}, f64), sizes};
  const auto actions = q.mode();
  const auto make = [&] { return multi_discrete{logits, sizes}; };
  const std::vector<std::function<at::Tensor()>> values{
      [&] { return make().log_prob(actions).square().sum(); },
      [&] { return make().entropy().square().sum(); }, [&] { return kl(make(), q).square().sum(); },
      [&] { return kl(q, make()).square().sum(); }};
  for (const auto& value : values) {
    logits.mutable_grad() = at::Tensor();
    value().backward();
    CHECK(support::relative_error(logits.grad(), support::finite_differences(logits, [&] {
                                    return value().item<double>();
                                  })) < 1e-7);
  }
}

TEST_CASE("multi_discrete: samples have the right frequencies, parts do not correlate",
          "[multi_discrete]") {
  constexpr int n = 20000;
  const auto logits = torch::tensor({0.5, -1.0, 0.0, 9.0, 1.0, 0.0, -1.0, 2.0}, f64);
  const auto drawn =
      multi_discrete{logits.expand({n, 8}), sizes}.sample(at::detail::createCPUGenerator(5));
  const auto probs = joint(logits).probs();
  const auto combination = flat(drawn);
  for (int c = 0; c < 12; ++c) {
    const double p = probs[c].item<double>();
    CHECK(std::abs((combination == c).to(at::kDouble).mean().item<double>() - p) <
          4.5 * std::sqrt(p * (1 - p) / n));
  }
  CHECK(drawn.select(1, 1).equal(torch::zeros({n}, at::kLong)));
}

TEST_CASE("multi_discrete: the exact Fisher is that of all combinations, in one pass an action",
          "[multi_discrete][fisher]") {
  torch::manual_seed(3);
  torch::nn::Sequential net(torch::nn::Linear(4, 6), torch::nn::Tanh(), torch::nn::Linear(6, 8));
  net->to(at::kDouble);
  const auto x = torch::randn({14, 4}, at::kDouble),
             sequences = torch::randn({3, 5, 4}, at::kDouble);
  const auto product = [&](const at::Tensor& o) { return multi_discrete{net->forward(o), sizes}; };
  const auto combined = [&](const at::Tensor& o) { return joint(net->forward(o)); };
  CHECK(product(x).num_scores() == 8);
  for (const auto& data : {x, sequences})
    for (const bool walk : {true, false}) {
      const auto f =
          estimate_fisher(net, data, product, retain::exact_actions{}, {.batched = walk});
      const auto truth = estimate_fisher(net, data, combined, retain::exact_actions{});
      for (std::size_t i = 0; i < f.values.size(); ++i)
        CHECK(support::relative_error(f.values[i].tensor, truth.values[i].tensor) < 1e-11);
    }
  const auto truth = estimate_fisher(net, x, product, retain::exact_actions{});
  const auto sampled = estimate_fisher(net, x, product, retain::sampled_actions{.per_state = 400});
  CHECK(support::relative_error(sampled.values[0].tensor, truth.values[0].tensor) < 0.1);
  const auto whole = estimate_fisher(net, x, product),
             parts = estimate_fisher(net, x.split(4), product);
  CHECK(support::relative_error(parts.values[0].tensor, whole.values[0].tensor) < 1e-12);
}

TEST_CASE("multi_discrete: parts with heads of their own, one of them masked", "[multi_discrete]") {
  torch::manual_seed(4);
  const auto first = torch::randn({6, 2}, f64), second = torch::randn({6, 3}, f64);
  const auto allowed = torch::tensor({1, 0, 1}).expand({6, 3});
  const multi_discrete d{
      std::vector{categorical{first}, retain::masked_categorical(second, allowed)}};
  CHECK((d.sample().select(1, 1) != 1).all().item<bool>());
  CHECK(d.entropy().equal(categorical{first}.entropy() +
                          retain::masked_categorical(second, allowed).entropy()));
}

TEST_CASE("multi_discrete: rows that a mask drops reach neither value nor gradient",
          "[multi_discrete]") {
  auto logits = torch::randn({2, 8}, f64);
  logits[1].fill_(std::nan(""));
  logits.requires_grad_();
  const auto kept = multi_discrete{logits, sizes}.where(torch::tensor({1, 0}));
  CHECK(kept.entropy()[1].item<double>() == Approx(std::log(12.0)));
  kept.entropy().sum().backward();
  CHECK(logits.grad()[1].equal(torch::zeros({8}, f64)));
  CHECK(logits.grad()[0].abs().max().item<double>() > 0);

  struct padded {
    at::Tensor observations, mask;
  };
  retain::kickstarting keep{[](const at::Tensor& o) { return multi_discrete{o, sizes}; }};
  const auto student = [](const at::Tensor& o) { return multi_discrete{o * 0.5, sizes}; };
  const auto value = keep.loss(student, padded{logits.detach(), torch::tensor({1, 0})});
  const multi_discrete row{logits.detach().narrow(0, 0, 1), sizes},
      halved{logits.detach().narrow(0, 0, 1) * 0.5, sizes};
  CHECK(value.item<double>() == Approx(kl(row, halved).item<double>()));
}

TEST_CASE("multi_discrete: sizes and shapes are checked", "[multi_discrete]") {
  const auto logits = torch::zeros({4, 5});
  CHECK_THROWS_AS(multi_discrete(logits, {}), retain::config_error);
  CHECK_THROWS_AS(multi_discrete(logits, {5, 0}), retain::config_error);
  CHECK_THROWS_AS(multi_discrete(std::vector<categorical>{}), retain::config_error);
  CHECK_THROWS_WITH(multi_discrete(logits, {2, 2}),
                    ContainsSubstring("[2, 2]") && ContainsSubstring("[4, 5]"));
  CHECK_THROWS_WITH(
      (multi_discrete{std::vector{categorical{logits}, categorical{torch::zeros({3, 2})}}}),
      ContainsSubstring("[4, 5] and [3, 2]"));
  const multi_discrete d{logits, {2, 3}};
  CHECK_THROWS_WITH(d.log_prob(torch::zeros({4}, at::kLong)),
                    ContainsSubstring("[4]") && ContainsSubstring("[4, 2]"));
  CHECK_THROWS_AS(d.where(torch::ones({4, 2})), retain::shape_error);
  CHECK_THROWS_WITH(kl(d, multi_discrete{logits, {5}}), ContainsSubstring("2 and 1 parts"));
  CHECK_THROWS_AS(kl(d, multi_discrete{logits, {3, 2}}), retain::shape_error);
  CHECK(multi_discrete{torch::zeros({0, 5}), {2, 3}}.sample().sizes() == at::IntArrayRef({0, 2}));
  CHECK(multi_discrete{torch::zeros({5}), {2, 3}}.sample().sizes() == at::IntArrayRef({2}));
}

// Of half, LibTorch 1.13 has no log_softmax on the CPU.
TEST_CASE("multi_discrete: in bfloat16 everything is what it is in double, to its precision",
          "[multi_discrete]") {
  torch::manual_seed(9);
  const auto p = torch::randn({40, 8}).to(at::kBFloat16),
             q = torch::randn({40, 8}).to(at::kBFloat16);
  const auto actions = torch::stack(
      {torch::randint(3, {40}), torch::zeros({40}, at::kLong), torch::randint(4, {40})}, -1);
  const auto all = [&](at::ScalarType type) {
    const multi_discrete d{p.to(type), sizes}, other{q.to(type), sizes};
    return std::vector<at::Tensor>{d.log_prob(actions), d.entropy(), d.score(1), d.score(5),
                                   kl(d, other)};
  };
  const auto narrow = all(at::kBFloat16), wide = all(at::kDouble);
  for (std::size_t i = 0; i < wide.size(); ++i) {
    INFO(i);
    CHECK(narrow[i].scalar_type() == at::kBFloat16);
    CHECK(support::relative_error(narrow[i], wide[i]) < 0x1p-6);
  }
}

TEST_CASE("multi_discrete: actions of any integral type; real ones are refused; a part of a "
          "temporary outlives it",
          "[multi_discrete]") {
  torch::manual_seed(21);
  const auto logits = torch::randn({4, 5});
  const retain::multi_discrete d{logits, {3, 2}};
  const auto actions = torch::tensor({{2, 1}, {0, 0}, {1, 1}, {2, 0}}, at::kLong);
  for (const auto type : {at::kInt, at::kByte})
    CHECK(d.log_prob(actions.to(type)).equal(d.log_prob(actions)));
  CHECK_THROWS_AS(d.log_prob(actions.to(at::kFloat)), retain::config_error);
  CHECK_THROWS_WITH(d.log_prob(actions.to(at::kFloat)),
                    ContainsSubstring("multi_discrete: actions must be whole numbers"));
  const auto& part = retain::multi_discrete{logits, {3, 2}}.factor(1);
  CHECK(part.logits.equal(logits.narrow(1, 3, 2)));
}

TEST_CASE("multi_discrete: from the probabilities of its parts", "[multi_discrete]") {
  torch::manual_seed(41);
  const auto logits = torch::randn({6, 5}, at::kDouble);
  const auto probabilities =
      torch::cat({logits.narrow(1, 0, 3).softmax(-1), logits.narrow(1, 3, 2).softmax(-1)}, 1);
  const retain::multi_discrete plain{logits, {3, 2}};
  const auto from = retain::multi_discrete::from_probs(probabilities, {3, 2});
  CHECK(kl(from, plain).abs().max().item<double>() < 1e-12);
  CHECK(support::relative_error(from.entropy(), plain.entropy()) < 1e-12);
  CHECK_THROWS_WITH(retain::multi_discrete::from_probs(probabilities, {2, 3}),
                    ContainsSubstring("sum"));
  CHECK_THROWS_AS(retain::multi_discrete::from_probs(probabilities, {3, 3}), retain::shape_error);
}

}  // namespace multi_discrete_test
