// SPDX-License-Identifier: MIT
#include <retain/concepts.hpp>
#include <retain/fisher.hpp>
#include <retain/kickstarting.hpp>
#include <retain/masked_categorical.hpp>

#include <cmath>
#include <limits>

#include "support.hpp"

namespace masked_categorical_test {

using retain::categorical;
using retain::estimate_fisher;
using retain::masked_categorical;

namespace {

static_assert(
    retain::action_distribution<decltype(masked_categorical(at::Tensor(), at::Tensor()))>);
static_assert(!retain::action_distribution<decltype(&masked_categorical)>);

const auto f64 = at::TensorOptions().dtype(at::kDouble);
constexpr double inf = std::numeric_limits<double>::infinity();

/// Three rows of four actions: two, all, and one of them legal. NaN and infinity stand where nobody
/// may look.
at::Tensor dirty_logits() {
  const double nan = std::nan("");
  return torch::tensor({{0.3, nan, -0.7, inf}, {1.0, 0.0, -1.0, 0.5}, {-inf, nan, 2.0, 9.0}}, f64);
}
at::Tensor legal() { return torch::tensor({{1, 0, 1, 0}, {1, 1, 1, 1}, {0, 0, 1, 0}}); }

}  // namespace

TEST_CASE("masked_categorical: probabilities, entropy and mode among the legal actions only",
          "[masked_categorical]") {
  const auto d = masked_categorical(dirty_logits(), legal());
  const double p = 1 / (1 + std::exp(-1.0));  // of 0.3 against -0.7
  CHECK(d.probs()[0].allclose(torch::tensor({p, 0.0, 1 - p, 0.0}, f64)));
  CHECK(d.probs()[0][1].item<double>() == 0);
  CHECK(d.probs()[1].allclose(dirty_logits()[1].softmax(0)));
  CHECK(d.log_prob(torch::tensor({1, 0, 2}))[0].item<double>() == -inf);
  CHECK(d.log_prob(torch::tensor({1, 0, 2}))[2].item<double>() == 0);
  CHECK(d.entropy()[0].item<double>() == Approx(-p * std::log(p) - (1 - p) * std::log(1 - p)));
  CHECK(d.entropy()[2].item<double>() == 0);
  CHECK(d.mode().equal(torch::tensor({0, 0, 2})));
}

TEST_CASE(
    "masked_categorical: gradients against finite differences, exactly 0 where nothing is legal",
    "[masked_categorical]") {
  torch::manual_seed(1);
  auto logits = torch::randn({3, 4}, f64).requires_grad_();
  const auto make = [&] { return masked_categorical(logits, legal()); };
  const auto other = masked_categorical(torch::randn({3, 4}, f64), legal());
  const auto actions = torch::tensor({2, 1, 2});
  const std::vector<std::function<at::Tensor()>> values{
      [&] { return make().log_prob(actions).square().sum(); },
      [&] { return make().entropy().sum(); }, [&] { return kl(make(), other).sum(); },
      [&] { return kl(other, make()).sum(); }};
  for (const auto& value : values) {
    logits.mutable_grad() = at::Tensor();
    value().backward();
    CHECK(support::relative_error(logits.grad(), support::finite_differences(logits, [&] {
                                    return value().item<double>();
                                  })) < 1e-7);
    CHECK(logits.grad().masked_select(legal() == 0).equal(torch::zeros({5}, f64)));
  }
  auto dirty = dirty_logits().requires_grad_();
  const auto d = masked_categorical(dirty, legal());
  (d.entropy().sum() + d.log_prob(actions).sum() + kl(d, other).sum() + kl(other, d).sum())
      .backward();
  CHECK(dirty.grad().isfinite().all().item<bool>());
  CHECK(dirty.grad().masked_select(legal() == 0).equal(torch::zeros({5}, f64)));
}

TEST_CASE("masked_categorical: KL where the masks differ", "[masked_categorical]") {
  const auto logits = torch::tensor({0.0, 0.0, 0.0}, f64);
  const auto two = masked_categorical(logits, torch::tensor({1, 1, 0})),
             all = masked_categorical(logits, torch::ones({3}));
  CHECK(kl(two, all).item<double>() == Approx(std::log(1.5)));
  CHECK(kl(all, two).item<double>() == inf);
}

TEST_CASE("masked_categorical: only legal actions are drawn", "[masked_categorical]") {
  torch::manual_seed(2);
  const auto allowed = torch::rand({2000, 7}) < 0.4;
  const auto at_least_one = allowed.logical_or(torch::arange(7) == 3);
  const auto d = masked_categorical(torch::randn({2000, 7}) * 5, at_least_one);
  const auto check = [&](const at::Tensor& actions) {
    CHECK(at_least_one.gather(1, actions.unsqueeze(1)).all().item<bool>());
  };
  for (int i = 0; i < 5; ++i) check(d.sample());
  for (const double u : {0.0, 1 - 0x1p-53}) check(d.at_quantile(torch::full({2000}, u, f64)));
  check(d.mode());
}

TEST_CASE("masked_categorical: the Fisher counts legal actions alone", "[masked_categorical]") {
  torch::manual_seed(3);
  torch::nn::Linear net(4, 5);
  net->to(at::kDouble);
  const auto x = torch::randn({30, 4}, at::kDouble);
  const auto allowed = (torch::rand({30, 5}) < 0.6).logical_or(torch::arange(5) == 1);
  struct batch {
    at::Tensor observations, allowed;
    batch narrow(std::int64_t start, std::int64_t length) const {
      return {observations.narrow(0, start, length), allowed.narrow(0, start, length)};
    }
  };
  const auto forward = [&](const batch& b) {
    return masked_categorical(net->forward(b.observations), b.allowed);
  };
  const auto pi = net->forward(x).masked_fill(allowed.logical_not(), -inf).softmax(-1).detach();
  const auto closed = (pi * (1 - pi)).t().mm(x.square()) / 30.0;
  for (const bool walk : {true, false}) {
    const auto f = estimate_fisher(net, batch{x, allowed}, forward, retain::exact_actions{},
                                   {.batched = walk});
    CHECK(support::relative_error(f.values[0].tensor, closed) < 1e-12);
  }
  const auto sampled =
      estimate_fisher(net, batch{x, allowed}, forward, retain::sampled_actions{.per_state = 200});
  CHECK(support::relative_error(sampled.values[0].tensor, closed) < 0.1);
}

TEST_CASE("masked_categorical: a retention term takes it as it is, padding too",
          "[masked_categorical]") {
  struct padded {
    at::Tensor observations, mask;
  };
  auto shift = torch::zeros({4}, f64).requires_grad_();
  retain::kickstarting keep{[](const at::Tensor& o) { return masked_categorical(o, legal()); }};
  const auto student = [&](const at::Tensor& o) { return masked_categorical(o + shift, legal()); };
  const auto loss = keep.loss(student, padded{dirty_logits(), torch::tensor({1, 1, 0})});
  loss.backward();
  CHECK(loss.item<double>() == 0);
  CHECK(shift.grad().isfinite().all().item<bool>());
}

TEST_CASE("masked_categorical: shapes and empty rows are refused", "[masked_categorical]") {
  CHECK_THROWS_AS(masked_categorical(torch::zeros({3, 4}), torch::ones({4})), retain::shape_error);
  CHECK_THROWS_WITH(masked_categorical(torch::zeros({3, 4}), torch::ones({4})),
                    ContainsSubstring("[4]") && ContainsSubstring("[3, 4]"));
  CHECK_THROWS_AS(masked_categorical(torch::zeros({2, 2}), torch::tensor({{1, 0}, {0, 0}})),
                  retain::config_error);
  CHECK_THROWS_WITH(masked_categorical(torch::zeros({2, 2}), torch::tensor({{1, 0}, {0, 0}})),
                    ContainsSubstring("allows no action"));
  CHECK_THROWS_AS(masked_categorical(torch::tensor(0.0), torch::tensor(1.0)), retain::shape_error);
  CHECK(masked_categorical(torch::zeros({0, 3}), torch::zeros({0, 3})).sample().numel() == 0);
  CHECK(masked_categorical(torch::zeros({2, 1}), torch::ones({2, 1}))
            .sample()
            .equal(torch::zeros({2}, at::kLong)));
}

}  // namespace masked_categorical_test
