// SPDX-License-Identifier: MIT
#include <retain/diagonal_gaussian.hpp>
#include <retain/loss/negative_log_likelihood.hpp>
#include <retain/masked_categorical.hpp>
#include <retain/multi_discrete.hpp>
#include <retain/tanh_gaussian.hpp>

#include <cmath>
#include <limits>

#include "support.hpp"

namespace loss_negative_log_likelihood_test {

using retain::categorical;
using retain::negative_log_likelihood;

namespace {
const auto f64 = at::TensorOptions().dtype(at::kDouble);
namespace F = torch::nn::functional;
}  // namespace

TEST_CASE("negative_log_likelihood: a categorical against LibTorch's cross entropy",
          "[negative_log_likelihood]") {
  torch::manual_seed(1);
  auto logits = torch::randn({12, 5}, f64).requires_grad_();
  const auto actions = torch::randint(5, {12});
  for (const double smoothing : {0.0, 0.1}) {
    const auto ours =
        negative_log_likelihood(categorical{logits}, actions, {.label_smoothing = smoothing});
    const auto theirs =
        F::cross_entropy(logits, actions, F::CrossEntropyFuncOptions().label_smoothing(smoothing));
    CHECK(ours.loss.item<double>() == Approx(theirs.item<double>()).epsilon(1e-12));
    CHECK(support::relative_error(torch::autograd::grad({ours.loss}, {logits})[0],
                                  torch::autograd::grad({theirs}, {logits})[0]) < 1e-12);
    CHECK(ours.accuracy.item<double>() ==
          Approx((logits.argmax(-1) == actions).to(at::kDouble).mean().item<double>()));
    CHECK(!ours.accuracy.requires_grad());
  }
  CHECK(negative_log_likelihood(logits, actions.to(at::kInt))
            .loss.equal(negative_log_likelihood(categorical{logits}, actions).loss));
}

TEST_CASE(
    "negative_log_likelihood: padding counts in neither value nor gradient, whatever stands there",
    "[negative_log_likelihood]") {
  torch::manual_seed(2);
  const double nan = std::nan("");
  auto mask = torch::ones({3, 4});
  mask[2].narrow(0, 1, 3).zero_();
  const auto keep = mask.to(at::kBool);
  const auto check = [&](auto make, at::Tensor parameters, const at::Tensor& actions,
                         const at::Tensor& garbage) {
    const auto wide = [&](const at::Tensor& x) { return keep.reshape({3, 4, 1}).expand_as(x); };
    const auto dirty = parameters.masked_fill(wide(parameters).logical_not(), nan).requires_grad_();
    const auto labels = actions.dim() == 2 ? at::where(keep, actions, garbage)
                                           : at::where(wide(actions), actions, garbage);
    const at::Tensor loss = negative_log_likelihood(retain::masked{make(dirty), mask}, labels).loss;
    // The valid rows alone.
    auto valid = parameters.index({keep}).requires_grad_();
    const at::Tensor expected = negative_log_likelihood(make(valid), actions.index({keep})).loss;
    CHECK(loss.item<double>() == Approx(expected.item<double>()).epsilon(1e-12));
    loss.backward();
    expected.backward();
    CHECK(support::relative_error(dirty.grad().index({keep}), valid.grad()) < 1e-12);
    CHECK(dirty.grad()
              .index({keep.logical_not()})
              .equal(torch::zeros({3, parameters.size(-1)}, f64)));
  };
  const auto far = torch::full({3, 4}, 99, at::kLong);
  check([](const at::Tensor& x) { return categorical{x}; }, torch::randn({3, 4, 5}, f64),
        torch::randint(5, {3, 4}), far);
  check([](const at::Tensor& x) { return retain::multi_discrete{x, {2, 3}}; },
        torch::randn({3, 4, 5}, f64), torch::randint(2, {3, 4, 2}), far.unsqueeze(-1));
  check([](const at::Tensor& x) { return retain::diagonal_gaussian{x, torch::zeros({2}, f64)}; },
        torch::randn({3, 4, 2}, f64), torch::randn({3, 4, 2}, f64), torch::full({1}, nan, f64));
  check(
      [](const at::Tensor& x) {
        return retain::tanh_gaussian{x, torch::zeros({2}, f64), {.low = 1, .high = 3}};
      },
      torch::randn({3, 4, 2}, f64), torch::rand({3, 4, 2}, f64) + 1.5, torch::full({1}, nan, f64));

  // The share of right answers among valid rows.
  const auto logits = torch::tensor({{{0.0, 1.0}, {0.0, 1.0}, {1.0, 0.0}}}, f64);
  const auto said = negative_log_likelihood(
      retain::masked{categorical{logits}, torch::tensor({{1, 1, 0}})}, torch::tensor({{1, 0, 0}}));
  CHECK(said.accuracy.item<double>() == 0.5);
}

TEST_CASE("negative_log_likelihood: closed forms for other distributions",
          "[negative_log_likelihood]") {
  torch::manual_seed(3);
  const auto mean = torch::randn({6, 2}, f64), actions = torch::randn({6, 2}, f64) * 0.5;
  const auto gaussian =
      negative_log_likelihood(retain::diagonal_gaussian{mean, torch::zeros({2}, f64)}, actions);
  CHECK(gaussian.loss.item<double>() ==
        Approx((actions - mean).square().sum(-1).mean().item<double>() / 2 +
               std::log(2 * 3.14159265358979323846)));
  CHECK(!gaussian.accuracy.defined());

  const auto logits = torch::randn({6, 5}, f64);
  const auto parts = torch::stack({torch::randint(2, {6}), torch::randint(3, {6})}, -1);
  const auto product = negative_log_likelihood(retain::multi_discrete{logits, {2, 3}}, parts,
                                               {.label_smoothing = 0.2});
  const auto smoothed = F::CrossEntropyFuncOptions().label_smoothing(0.2);
  const double expected = (F::cross_entropy(logits.narrow(1, 0, 2), parts.select(1, 0), smoothed) +
                           F::cross_entropy(logits.narrow(1, 2, 3), parts.select(1, 1), smoothed))
                              .item<double>();
  CHECK(product.loss.item<double>() == Approx(expected));
  const auto both = (logits.narrow(1, 0, 2).argmax(1) == parts.select(1, 0))
                        .logical_and(logits.narrow(1, 2, 3).argmax(1) == parts.select(1, 1));
  CHECK(product.accuracy.item<double>() == Approx(both.to(at::kDouble).mean().item<double>()));

  // Smoothing goes over legal actions only: here two of three.
  const auto legal =
      retain::masked_categorical(torch::tensor({{1.0, 5.0, 0.0}}, f64), torch::tensor({{1, 0, 1}}));
  const double p = 1 / (1 + std::exp(-1.0));
  CHECK(negative_log_likelihood(legal, torch::tensor({0}), {.label_smoothing = 0.5})
            .loss.item<double>() ==
        Approx(-0.5 * std::log(p) - 0.25 * std::log(p) - 0.25 * std::log(1 - p)));
  CHECK(negative_log_likelihood(legal, torch::tensor({1})).loss.item<double>() ==
        std::numeric_limits<double>::infinity());
}

TEST_CASE("negative_log_likelihood: nothing to explain, one action, and what does not fit",
          "[negative_log_likelihood]") {
  auto empty = torch::zeros({0, 3}).requires_grad_();
  const auto nothing = negative_log_likelihood(categorical{empty}, torch::zeros({0}, at::kLong));
  CHECK(nothing.loss.item<double>() == 0);
  CHECK_NOTHROW(nothing.loss.backward());
  CHECK(negative_log_likelihood(categorical{torch::randn({4, 1})}, torch::zeros({4}, at::kLong))
            .accuracy.item<double>() == 1);
  const auto dropped =
      negative_log_likelihood(retain::masked{categorical{torch::randn({2, 3})}, torch::zeros({2})},
                              torch::zeros({2}, at::kLong));
  CHECK(dropped.loss.item<double>() == 0);
  CHECK(dropped.accuracy.item<double>() == 0);

  const categorical d{torch::zeros({4, 3})};
  const auto actions = torch::zeros({4}, at::kLong);
  CHECK_THROWS_WITH(negative_log_likelihood(d, actions.narrow(0, 0, 1)),
                    ContainsSubstring("[1]") && ContainsSubstring("[4]"));
  CHECK_THROWS_AS(negative_log_likelihood(retain::masked{d, torch::ones({3})}, actions),
                  retain::shape_error);
  CHECK_THROWS_AS(negative_log_likelihood(d, actions, {.label_smoothing = 1.0}),
                  retain::config_error);
  CHECK_THROWS_AS(negative_log_likelihood(d, actions, {.label_smoothing = std::nan("")}),
                  retain::config_error);
  const retain::diagonal_gaussian continuous{torch::zeros({4, 2}), torch::zeros({2})};
  CHECK_THROWS_WITH(
      negative_log_likelihood(continuous, torch::zeros({4, 2}), {.label_smoothing = 0.1}),
      ContainsSubstring("needs discrete actions"));
}

TEST_CASE("negative_log_likelihood: actions of any integral type; real ones where actions are "
          "counted are refused",
          "[negative_log_likelihood]") {
  torch::manual_seed(11);
  const retain::categorical d{torch::randn({3, 2})};
  const auto actions = torch::tensor({1, 0, 1}, at::kLong);
  const auto said = retain::negative_log_likelihood(d, actions);
  for (const auto type : {at::kInt, at::kByte, at::kBool}) {
    CHECK(retain::negative_log_likelihood(d, actions.to(type)).loss.equal(said.loss));
    CHECK(retain::negative_log_likelihood(d, actions.to(type)).accuracy.equal(said.accuracy));
  }
  CHECK_THROWS_AS(retain::negative_log_likelihood(d, torch::tensor({1.7, 0.2, 1.0})),
                  retain::config_error);
  CHECK_THROWS_WITH(retain::negative_log_likelihood(
                        retain::multi_discrete{torch::randn({3, 4}), {2, 2}}, torch::zeros({3, 2})),
                    ContainsSubstring("negative_log_likelihood: actions must be whole numbers"));
  const retain::diagonal_gaussian real{torch::zeros({3, 1}), torch::full({3, 1}, -100.0f)};
  CHECK(
      retain::negative_log_likelihood(real, torch::zeros({3, 1}, at::kLong)).loss.item<double>() ==
      Approx(-99.08106));
}

namespace {
/// A distribution of one's own that cannot clear rows.
struct uncleared {
  at::Tensor logits;
  at::Tensor log_prob(const at::Tensor& actions) const {
    return at::log_softmax(logits, -1).gather(-1, actions.unsqueeze(-1)).squeeze(-1);
  }
  at::Tensor entropy() const { return at::zeros({logits.size(0)}); }
  at::Tensor sample() const { return mode(); }
  at::Tensor mode() const { return logits.argmax(-1); }
};
at::Tensor kl(const uncleared& p, const uncleared& q) {
  return kl(retain::categorical{p.logits}, retain::categorical{q.logits});
}
static_assert(retain::action_distribution<uncleared>);
}  // namespace

TEST_CASE("negative_log_likelihood: in padding stands an action that the policy holds possible",
          "[negative_log_likelihood]") {
  auto logits = torch::tensor({{0.0, 1.0, 2.0}, {0.0, 0.5, 0.0}});
  logits[1][0] = -std::numeric_limits<double>::infinity();
  logits.requires_grad_();
  const auto actions = torch::tensor({1, 0}), kept = torch::tensor({true, false});
  REQUIRE(std::isinf(uncleared{logits}.log_prob(actions)[1].item<double>()));
  const auto loss =
      retain::negative_log_likelihood(retain::masked{uncleared{logits}, kept}, actions).loss;
  loss.backward();
  CHECK(loss.item<double>() == Approx(std::log(1 + std::exp(1.0) + std::exp(2.0)) - 1));
  CHECK(logits.grad()[0].isfinite().all().item<bool>());
  CHECK((logits.grad()[1] == 0).all().item<bool>());
}

}  // namespace loss_negative_log_likelihood_test
