// SPDX-License-Identifier: MIT
#include <retain/loss/gae.hpp>

#include <limits>
#include <vector>

#include "support.hpp"

namespace loss_gae_test {

namespace {

/// The definition without recursion: A_t is the sum of (gamma lambda)^k delta_{t+k} up to the end
/// of the episode or of the data.
double slow_advantage(const std::vector<double>& r, const std::vector<double>& v,
                      const std::vector<bool>& ended, double last, double gamma, double lambda,
                      std::size_t t) {
  double sum = 0, weight = 1;
  for (std::size_t k = t; k < r.size(); ++k) {
    const double next = ended[k] ? 0 : k + 1 < v.size() ? v[k + 1] : last;
    sum += weight * (r[k] + gamma * next - v[k]);
    if (ended[k]) break;
    weight *= gamma * lambda;
  }
  return sum;
}

}  // namespace

TEST_CASE("gae equals the sum of discounted errors, with episodes that end anywhere") {
  torch::manual_seed(3);
  const std::int64_t T = 13, N = 5;
  const double gamma = 0.97, lambda = 0.9;
  const auto rewards = at::randn({T, N}, at::kDouble), values = at::randn({T, N}, at::kDouble),
             last = at::randn({N}, at::kDouble);
  const auto ended = at::rand({T, N}).lt(0.2);
  const auto estimated =
      retain::gae(rewards, values, ended, last, {.discount = gamma, .decay = lambda});
  for (std::int64_t n = 0; n < N; ++n) {
    std::vector<double> r, v;
    std::vector<bool> d;
    for (std::int64_t t = 0; t < T; ++t) {
      r.push_back(rewards[t][n].item<double>());
      v.push_back(values[t][n].item<double>());
      d.push_back(ended[t][n].item<bool>());
    }
    for (std::int64_t t = 0; t < T; ++t) {
      const double expected = slow_advantage(r, v, d, last[n].item<double>(), gamma, lambda,
                                             static_cast<std::size_t>(t));
      CHECK(estimated.advantages[t][n].item<double>() == Approx(expected).margin(1e-12));
      CHECK(estimated.returns[t][n].item<double>() ==
            Approx(expected + v[static_cast<std::size_t>(t)]).margin(1e-12));
    }
  }
}

TEST_CASE("gae with lambda 1 gives the discounted return, with lambda 0 the one-step error") {
  const auto rewards = at::ones({4, 1}, at::kDouble), values = at::full({4, 1}, 0.5, at::kDouble);
  const auto ended = at::zeros({4, 1});
  const auto last = at::full({1}, 2.0, at::kDouble);
  const auto whole = retain::gae(rewards, values, ended, last, {.discount = 0.5, .decay = 1});
  CHECK(whole.returns[0][0].item<double>() == Approx(1 + .5 + .25 + .125 + 2 * .0625));
  const auto step = retain::gae(rewards, values, ended, last, {.discount = 0.5, .decay = 0});
  CHECK(step.returns[0][0].item<double>() == Approx(1 + .5 * .5));
}

TEST_CASE("gae: an episode that a time limit cut keeps its advantages when its last reward holds "
          "the value it was cut at") {
  torch::manual_seed(4);
  const auto rewards = at::randn({3, 1}, at::kDouble), values = at::randn({3, 1}, at::kDouble),
             last = at::randn({1}, at::kDouble);
  const auto going_on = retain::gae(rewards, values, at::zeros({3, 1}), last, {.discount = 0.9});
  auto cut_rewards = rewards.clone();
  cut_rewards[2] += 0.9 * last;
  const auto cut = retain::gae(cut_rewards, values, torch::tensor({{0.0}, {0.0}, {1.0}}),
                               at::full({1}, 1e9, at::kDouble), {.discount = 0.9});
  CHECK(at::allclose(cut.advantages, going_on.advantages, 1e-12));
}

TEST_CASE("gae leaves no graph and names shapes that do not fit") {
  const auto values = at::zeros({3, 2}).set_requires_grad(true);
  CHECK_FALSE(retain::gae(at::zeros({3, 2}), values, at::zeros({3, 2}), at::zeros({2}))
                  .advantages.requires_grad());
  CHECK_THROWS_AS(
      retain::gae(at::zeros({3, 2}), at::zeros({2, 3}), at::zeros({3, 2}), at::zeros({2})),
      retain::shape_error);
  CHECK_THROWS_WITH(
      retain::gae(at::zeros({3, 2}), at::zeros({3, 2}), at::zeros({3, 2}), at::zeros({3})),
      ContainsSubstring("[2]"));
}

TEST_CASE("gae: in half types it is what it is in double, to their precision") {
  torch::manual_seed(7);
  const auto rewards = torch::randn({20, 3}), values = torch::randn({20, 3}),
             last = torch::randn({3});
  const auto ended = torch::rand({20, 3}).lt(0.1);
  for (const auto type : {at::kHalf, at::kBFloat16}) {
    const auto in = [&](at::ScalarType t) {
      const auto given = [&](const at::Tensor& x) { return x.to(type).to(t); };
      return retain::gae(given(rewards), given(values), ended, given(last));
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
  torch::manual_seed(8);
  const auto nan = std::numeric_limits<double>::quiet_NaN(),
             infinity = std::numeric_limits<double>::infinity();
  const auto rewards = torch::randn({5, 2}), values = torch::randn({5, 2}),
             last = torch::randn({2});
  auto ended = torch::zeros({5, 2});
  ended[4][0] = 1;
  ended[2][1] = 1;
  const auto clean = retain::gae(rewards, values, ended, last);
  for (const double foul : {nan, infinity}) {
    auto behind = last.clone(), later = rewards.clone(), seen = values.clone();
    behind[0] = foul;
    later[3][1] = foul;
    seen[3][1] = foul;
    const auto said = retain::gae(later, seen, ended, behind);
    CHECK(said.advantages.select(1, 0).equal(clean.advantages.select(1, 0)));
    CHECK(said.advantages.select(1, 1).slice(0, 0, 3).equal(
        clean.advantages.select(1, 1).slice(0, 0, 3)));
    CHECK(said.returns.select(1, 0).equal(clean.returns.select(1, 0)));
  }
}

TEST_CASE("gae: no steps are no advantages") {
  const auto none = torch::zeros({0, 2});
  CHECK(retain::gae(none, none, none, torch::zeros({2})).advantages.sizes() == none.sizes());
}

}  // namespace loss_gae_test
