// SPDX-License-Identifier: MIT
#include <retain/loss/gae.hpp>

#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "support.hpp"

namespace loss_gae_test {

namespace {

using retain::value_steps;

/// [T, N] of numbers in double, for loops.
std::vector<std::vector<double>> rows(const at::Tensor& of) {
  const auto wide = of.to(at::kDouble);
  std::vector<std::vector<double>> all;
  for (std::int64_t t = 0; t < of.size(0); ++t) {
    all.emplace_back();
    for (std::int64_t n = 0; n < of.size(1); ++n) all.back().push_back(wide[t][n].item<double>());
  }
  return all;
}

/// The definition without recursion: A_t is the sum of (gamma lambda)^k delta_{t+k} up to the end
/// of the episode or of the data.
double slow_advantage(const value_steps& s, double gamma, double lambda, std::size_t t,
                      std::size_t n) {
  const auto r = rows(s.rewards), v = rows(s.values), over = rows(s.terminated),
             cut = rows(s.truncated), beyond = rows(s.truncated_values);
  double sum = 0, weight = 1;
  for (std::size_t k = t; k < r.size(); ++k) {
    double next =
        k + 1 < r.size() ? v[k + 1][n] : s.last_value[static_cast<std::int64_t>(n)].item<double>();
    if (cut[k][n] != 0) next = beyond[k][n];
    if (over[k][n] != 0) next = 0;
    sum += weight * (r[k][n] + gamma * next - v[k][n]);
    if (over[k][n] != 0 || cut[k][n] != 0) break;
    weight *= gamma * lambda;
  }
  return sum;
}

value_steps random_steps(std::int64_t T, std::int64_t N) {
  return {.rewards = at::randn({T, N}, at::kDouble),
          .values = at::randn({T, N}, at::kDouble),
          .last_value = at::randn({N}, at::kDouble),
          .terminated = at::rand({T, N}).lt(0.15),
          .truncated = at::rand({T, N}).lt(0.2),
          .truncated_values = at::randn({T, N}, at::kDouble)};
}

}  // namespace

TEST_CASE(
    "gae equals the sum of discounted errors, with episodes that end anywhere, in both ways") {
  torch::manual_seed(3);
  const std::int64_t T = 13, N = 5;
  const double gamma = 0.97, lambda = 0.9;
  const auto steps = random_steps(T, N);
  REQUIRE(steps.terminated.logical_and(steps.truncated).any().item<bool>());
  const auto estimated = retain::gae(steps, {.gamma = gamma, .gae_lambda = lambda});
  for (std::int64_t n = 0; n < N; ++n)
    for (std::int64_t t = 0; t < T; ++t) {
      const double expected = slow_advantage(steps, gamma, lambda, static_cast<std::size_t>(t),
                                             static_cast<std::size_t>(n));
      CHECK(estimated.advantages[t][n].item<double>() == Approx(expected).margin(1e-12));
      CHECK(estimated.returns[t][n].item<double>() ==
            Approx(expected + steps.values[t][n].item<double>()).margin(1e-12));
    }
}

TEST_CASE("gae: ends may be bool or 0 and 1 in any type, and other numbers are refused") {
  torch::manual_seed(5);
  auto steps = random_steps(7, 3);
  const auto expected = retain::gae(steps).advantages;
  for (const auto type : {at::kFloat, at::kDouble, at::kLong, at::kByte, at::kChar, at::kHalf}) {
    auto same = steps;
    same.terminated = steps.terminated.to(type);
    same.truncated = steps.truncated.to(type);
    CHECK(retain::gae(same).advantages.equal(expected));
  }
  for (const double odd : {0.5, -1.0, 2.0, 1e-30, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()}) {
    for (const bool cut : {false, true}) {
      auto wrong = steps;
      auto& marks = cut ? wrong.truncated : wrong.terminated;
      marks = marks.to(at::kDouble);
      marks[6][2] = odd;
      CHECK_THROWS_AS(retain::gae(wrong), retain::config_error);
      CHECK_THROWS_WITH(retain::gae(wrong), ContainsSubstring(cut ? "truncated" : "terminated") &&
                                                ContainsSubstring("0 and 1"));
    }
  }
}

TEST_CASE("gae: a discount of its own for every step") {
  torch::manual_seed(6);
  auto steps = random_steps(9, 4);
  const auto expected = retain::gae(steps, {.gamma = 0.9, .gae_lambda = 0.8});
  steps.discounts = at::full({9, 4}, 0.9, at::kDouble);
  CHECK(at::allclose(retain::gae(steps, {.gamma = 1, .gae_lambda = 0.8}).advantages,
                     expected.advantages, 1e-12));
  // Two actions, of which the first lasts three times as long: r + gamma^3 (r' + gamma V).
  const auto column = [](double a, double b) {
    return torch::tensor({a, b}, at::kDouble).view({2, 1});
  };
  const auto slow = retain::gae({.rewards = column(1, 2),
                                 .values = column(0, 0),
                                 .last_value = torch::tensor({4.0}, at::kDouble),
                                 .terminated = column(0, 0),
                                 .discounts = column(0.25, 1)},
                                {.gamma = 0.5, .gae_lambda = 1});
  CHECK(slow.returns[0][0].item<double>() == Approx(1 + 0.125 * (2 + 0.5 * 4)));
}

TEST_CASE("gae with lambda 1 gives the discounted return, with lambda 0 the one-step error") {
  const value_steps steps{.rewards = at::ones({4, 1}, at::kDouble),
                          .values = at::full({4, 1}, 0.5, at::kDouble),
                          .last_value = at::full({1}, 2.0, at::kDouble),
                          .terminated = at::zeros({4, 1})};
  const auto whole = retain::gae(steps, {.gamma = 0.5, .gae_lambda = 1});
  CHECK(whole.returns[0][0].item<double>() == Approx(1 + .5 + .25 + .125 + 2 * .0625));
  const auto step = retain::gae(steps, {.gamma = 0.5, .gae_lambda = 0});
  CHECK(step.returns[0][0].item<double>() == Approx(1 + .5 * .5));
}

TEST_CASE("gae: a truncated episode with the value it was cut at keeps the advantages of an "
          "unbroken one") {
  torch::manual_seed(4);
  // The data end where the episode is cut, so the same value stands in last_value.
  value_steps going_on{.rewards = at::randn({3, 1}, at::kDouble),
                       .values = at::randn({3, 1}, at::kDouble),
                       .last_value = at::randn({1}, at::kDouble),
                       .terminated = at::zeros({3, 1})};
  auto cut = going_on;
  cut.truncated = torch::tensor({{0.0}, {0.0}, {1.0}});
  cut.truncated_values = going_on.last_value.expand({3, 1});
  cut.last_value = at::full({1}, 1e9, at::kDouble);
  CHECK(at::allclose(retain::gae(cut, {.gamma = 0.9}).advantages,
                     retain::gae(going_on, {.gamma = 0.9}).advantages, 1e-12));

  // A reward of 1 forever is worth 1 / (1 - gamma). With the exact values no cut is seen, wherever
  // it is and whatever lambda is: every advantage is 0. Counted as an end, it is -gamma / (1 -
  // gamma) there.
  const double gamma = 0.75, worth = 1 / (1 - gamma);
  for (const double lambda : {0.0, 0.5, 1.0})
    for (std::int64_t t = 0; t < 6; ++t) {
      value_steps steps{.rewards = at::ones({6, 1}, at::kDouble),
                        .values = at::full({6, 1}, worth, at::kDouble),
                        .last_value = at::full({1}, worth, at::kDouble),
                        .terminated = at::zeros({6, 1})};
      steps.truncated = at::zeros({6, 1});
      steps.truncated[t] = 1;
      steps.truncated_values = at::full({6, 1}, worth, at::kDouble);
      const auto seen = retain::gae(steps, {.gamma = gamma, .gae_lambda = lambda});
      CHECK(seen.advantages.abs().max().item<double>() < 1e-12);
      CHECK((seen.returns - worth).abs().max().item<double>() < 1e-12);
      std::swap(steps.terminated, steps.truncated);
      const auto ended = retain::gae(steps, {.gamma = gamma, .gae_lambda = lambda});
      CHECK(ended.advantages[t][0].item<double>() == Approx(-gamma * worth));
    }

  // No values, lambda 1: the advantages are the returns of each episode, cut at the truncation.
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto column = [](std::vector<double> of) {
    return at::tensor(of, at::kDouble).view({4, 1});
  };
  const auto returns = retain::gae({.rewards = column({1, 2, 3, 4}),
                                    .values = column({0, 0, 0, 0}),
                                    .last_value = torch::tensor({nan}, at::kDouble),
                                    .terminated = column({0, 0, 0, 1}),
                                    .truncated = column({0, 1, 0, 1}),
                                    .truncated_values = column({nan, 8, nan, nan})},
                                   {.gamma = 0.5, .gae_lambda = 1})
                           .returns;
  CHECK(returns.equal(column({1 + 0.5 * (2 + 0.5 * 8), 2 + 0.5 * 8, 3 + 0.5 * 4, 4})));
}

TEST_CASE("gae leaves no graph, and names what does not fit") {
  value_steps steps{.rewards = at::zeros({3, 2}),
                    .values = at::zeros({3, 2}).set_requires_grad(true),
                    .last_value = at::zeros({2}).set_requires_grad(true),
                    .terminated = at::zeros({3, 2}),
                    .truncated = at::ones({3, 2}),
                    .truncated_values = at::zeros({3, 2}).set_requires_grad(true)};
  CHECK_FALSE(retain::gae(steps).advantages.requires_grad());
  CHECK_FALSE(retain::gae(steps).returns.requires_grad());
  const auto refused = [&](const std::string& why, auto change) {
    auto wrong = steps;
    change(wrong);
    CHECK_THROWS_AS(retain::gae(wrong), retain::shape_error);
    CHECK_THROWS_WITH(retain::gae(wrong), ContainsSubstring(why));
  };
  refused("[3, 2] and [2, 3]", [](auto& s) { s.values = at::zeros({2, 3}); });
  refused("got none and [3, 2]", [](auto& s) { s.rewards = at::Tensor(); });
  refused("one shape [T, N]", [](auto& s) { s.rewards = s.values = at::zeros({6}); });
  refused("last_value must have shape [2]", [](auto& s) { s.last_value = at::zeros({3}); });
  refused("got none", [](auto& s) { s.last_value = at::Tensor(); });
  refused("zeros if no episode ends; got none", [](auto& s) { s.terminated = at::Tensor(); });
  refused("terminated must have the shape of rewards, [3, 2]",
          [](auto& s) { s.terminated = at::zeros({3}); });
  refused("[3, 2], got [3, 1] and [3, 2]", [](auto& s) { s.truncated = at::zeros({3, 1}); });
  refused("[3, 2], got [3, 2] and [2]", [](auto& s) { s.truncated_values = at::zeros({2}); });
  refused("discounts", [](auto& s) { s.discounts = at::zeros({2}); });
  auto alone = steps;
  alone.truncated_values = at::Tensor();
  CHECK_THROWS_AS(retain::gae(alone), retain::config_error);
  CHECK_THROWS_WITH(retain::gae(alone), ContainsSubstring("truncated needs truncated_values"));
  std::swap(alone.truncated, alone.truncated_values);
  CHECK_THROWS_AS(retain::gae(alone), retain::config_error);
  CHECK_THROWS_WITH(retain::gae(alone), ContainsSubstring("truncated_values need truncated"));
}

TEST_CASE("gae: in half types it is what it is in double, to their precision") {
  torch::manual_seed(7);
  const auto rewards = torch::randn({20, 3}), values = torch::randn({20, 3}),
             last = torch::randn({3}), beyond = torch::randn({20, 3});
  const auto terminated = torch::rand({20, 3}).lt(0.1), truncated = torch::rand({20, 3}).lt(0.1);
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    const auto in = [&](at::ScalarType t) {
      const auto given = [&](const at::Tensor& x) { return x.to(type).to(t); };
      return retain::gae({.rewards = given(rewards),
                          .values = given(values),
                          .last_value = given(last),
                          .terminated = terminated,
                          .truncated = truncated,
                          .truncated_values = given(beyond)});
    };
    const auto narrow = in(type), wide = in(at::kDouble);
    CHECK(narrow.advantages.scalar_type() == type);
    CHECK(support::relative_error(narrow.advantages, wide.advantages) <
          (type == at::kHalf ? 0x1p-9 : 0x1p-6));
    CHECK(support::relative_error(narrow.returns, wide.returns) <
          (type == at::kHalf ? 0x1p-9 : 0x1p-6));
  }
}

TEST_CASE("gae: whatever stands behind the end of an episode reaches nothing before it") {
  const auto nan = std::numeric_limits<double>::quiet_NaN(),
             infinity = std::numeric_limits<double>::infinity();
  for (const bool cut : {false, true}) {
    torch::manual_seed(8);
    value_steps steps{.rewards = torch::randn({5, 2}),
                      .values = torch::randn({5, 2}),
                      .last_value = torch::randn({2}),
                      .terminated = torch::zeros({5, 2})};
    auto ended = torch::zeros({5, 2});
    ended[4][0] = 1;
    ended[2][1] = 1;
    (cut ? steps.truncated : steps.terminated) = ended;
    const auto beyond = torch::randn({5, 2});
    if (cut) steps.truncated_values = beyond;
    const auto clean = retain::gae(steps);
    for (const double foul : {nan, infinity}) {
      auto said_of = steps;
      for (auto* each : {&said_of.last_value, &said_of.rewards, &said_of.values})
        *each = each->clone();
      said_of.last_value[0] = foul;
      said_of.rewards[3][1] = foul;
      said_of.values[3][1] = foul;
      // Only the two states that were cut off have a value.
      if (cut) said_of.truncated_values = beyond.masked_fill(ended.eq(0), foul);
      const auto said = retain::gae(said_of);
      CHECK(said.advantages.select(1, 0).equal(clean.advantages.select(1, 0)));
      CHECK(said.advantages.select(1, 1).slice(0, 0, 3).equal(
          clean.advantages.select(1, 1).slice(0, 0, 3)));
      CHECK(said.returns.select(1, 0).equal(clean.returns.select(1, 0)));
      // Where an episode is terminated too, the value of the cut-off state does not count.
      if (cut) {
        auto both = said_of;
        both.terminated = ended;
        both.truncated_values = torch::full({5, 2}, foul);
        CHECK(retain::gae(both).advantages.select(1, 0).isfinite().all().item<bool>());
      }
    }
  }
}

TEST_CASE("gae: no steps are no advantages") {
  const auto none = torch::zeros({0, 2});
  const value_steps steps{none, none, torch::zeros({2}), none, none, none};
  CHECK(retain::gae(steps).advantages.sizes() == none.sizes());
}

}  // namespace loss_gae_test
