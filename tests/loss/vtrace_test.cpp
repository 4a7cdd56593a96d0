// SPDX-License-Identifier: MIT
#include <retain/loss/gae.hpp>
#include <retain/loss/vtrace.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "support.hpp"

namespace loss_vtrace_test {

namespace {

/// One environment. `next` is the value of the state after each step: 0 if terminated, that of the
/// state that was cut off if truncated.
struct steps {
  std::vector<double> ratio, r, v, next;
  std::vector<bool> ended;
};

/// The definition: a sum over later steps of products over the steps between, nothing carried over.
double slow_value(const steps& s, const retain::vtrace_options& o, std::size_t t) {
  double value = s.v[t];
  for (std::size_t k = t; k < s.r.size(); ++k) {
    double weight = 1;
    for (std::size_t i = t; i < k; ++i)
      weight *= o.gamma * o.lambda * std::min(o.c_bar, s.ratio[i]);
    value += weight * std::min(o.rho_bar, s.ratio[k]) * (s.r[k] + o.gamma * s.next[k] - s.v[k]);
    if (s.ended[k]) break;
  }
  return value;
}

double slow_advantage(const steps& s, const retain::vtrace_options& o, std::size_t t) {
  const double next = s.ended[t] || t + 1 == s.r.size() ? s.next[t] : slow_value(s, o, t + 1);
  return std::min(o.advantage_rho_bar, s.ratio[t]) * (s.r[t] + o.gamma * next - s.v[t]);
}

struct batch {
  std::int64_t T = 11, N = 4;
  at::Tensor mu = torch::randn({T, N}, at::kDouble),
             pi = mu + 0.7 * torch::randn({T, N}, at::kDouble);
  retain::value_steps steps{.rewards = torch::randn({T, N}, at::kDouble),
                            .values = torch::randn({T, N}, at::kDouble),
                            .last_value = torch::randn({N}, at::kDouble),
                            .terminated = torch::rand({T, N}).lt(0.15),
                            .truncated = torch::rand({T, N}).lt(0.15),
                            .truncated_values = torch::randn({T, N}, at::kDouble)};
};

}  // namespace

TEST_CASE("vtrace: values and advantages are the definition's sums of products, whatever the bars",
          "[vtrace]") {
  torch::manual_seed(1);
  const batch b;
  for (const auto& options :
       {retain::vtrace_options{.gamma = 0.9},
        retain::vtrace_options{
            .gamma = 0.97, .lambda = 0.8, .rho_bar = 2, .c_bar = 0.6, .advantage_rho_bar = 1.3}}) {
    const auto estimated = retain::vtrace(b.pi, b.mu, b.steps, options);
    const auto& given = b.steps;
    for (std::int64_t n = 0; n < b.N; ++n) {
      steps s;
      for (std::int64_t t = 0; t < b.T; ++t) {
        s.ratio.push_back(std::exp(b.pi[t][n].item<double>() - b.mu[t][n].item<double>()));
        s.r.push_back(given.rewards[t][n].item<double>());
        s.v.push_back(given.values[t][n].item<double>());
        const bool terminated = given.terminated[t][n].item<bool>(),
                   truncated = given.truncated[t][n].item<bool>();
        s.ended.push_back(terminated || truncated);
        s.next.push_back(terminated    ? 0
                         : truncated   ? given.truncated_values[t][n].item<double>()
                         : t + 1 < b.T ? given.values[t + 1][n].item<double>()
                                       : given.last_value[n].item<double>());
      }
      for (std::int64_t t = 0; t < b.T; ++t) {
        CHECK(estimated.values[t][n].item<double>() ==
              Approx(slow_value(s, options, static_cast<std::size_t>(t))).margin(1e-12));
        CHECK(estimated.advantages[t][n].item<double>() ==
              Approx(slow_advantage(s, options, static_cast<std::size_t>(t))).margin(1e-12));
      }
    }
  }
}

TEST_CASE("vtrace: on policy it is gae, and with lambda 1 the discounted return", "[vtrace]") {
  torch::manual_seed(2);
  const batch b;
  const auto whole = retain::vtrace(b.pi, b.pi, b.steps, {.gamma = 0.9});
  const auto returns = retain::gae(b.steps, {.gamma = 0.9, .gae_lambda = 1});
  CHECK(at::allclose(whole.values, returns.returns, 1e-12));
  CHECK(at::allclose(whole.advantages, returns.advantages, 1e-12, 1e-12));
  const auto decayed = retain::vtrace(b.pi, b.pi, b.steps, {.gamma = 0.9, .lambda = 0.7});
  CHECK(at::allclose(decayed.values,
                     retain::gae(b.steps, {.gamma = 0.9, .gae_lambda = 0.7}).returns, 1e-12));
}

TEST_CASE("vtrace: a discount of its own for every step", "[vtrace]") {
  torch::manual_seed(3);
  const batch b;
  auto each = b.steps;
  each.discounts = at::full({b.T, b.N}, 0.9, at::kDouble);
  const auto own = retain::vtrace(b.pi, b.mu, each, {.gamma = 1});
  const auto same = retain::vtrace(b.pi, b.mu, b.steps, {.gamma = 0.9});
  CHECK(at::allclose(own.values, same.values, 1e-12));
  CHECK(at::allclose(own.advantages, same.advantages, 1e-12));
}

TEST_CASE("vtrace: over infinite bars the importance weights are the plain ones, unbiased for the "
          "new policy's value",
          "[vtrace]") {
  // One step of a bandit with two arms: E_mu[v] must be pi's expected reward, whatever mu and V.
  const auto rewards = torch::tensor({{1.0, 5.0}}, at::kDouble),
             mu = torch::tensor({{0.8, 0.2}}, at::kDouble),
             pi = torch::tensor({{0.3, 0.7}}, at::kDouble);
  const auto free = retain::vtrace(pi.log(), mu.log(),
                                   {.rewards = rewards,
                                    .values = torch::full({1, 2}, 2.0, at::kDouble),
                                    .last_value = torch::zeros({2}, at::kDouble),
                                    .terminated = torch::ones({1, 2})},
                                   {.rho_bar = 100, .c_bar = 100, .advantage_rho_bar = 100});
  CHECK((mu * free.values).sum().item<double>() == Approx(0.3 * 1 + 0.7 * 5));
}

TEST_CASE("vtrace leaves no graph, takes empty rollouts and names what does not fit", "[vtrace]") {
  const auto z = torch::zeros({3, 2}), last = torch::zeros({2});
  const auto learned = torch::zeros({3, 2}).requires_grad_();
  const retain::value_steps steps{z, z, last, z};
  const auto estimated = retain::vtrace(learned, z, {z, learned, last, z, z, learned});
  CHECK(!estimated.values.requires_grad());
  CHECK(!estimated.advantages.requires_grad());
  const auto none = torch::zeros({0, 2});
  CHECK(retain::vtrace(none, none, {none, none, last, none}).values.sizes() == none.sizes());
  CHECK_THROWS_WITH(retain::vtrace(z, z, {z, torch::zeros({2, 3}), last, z}),
                    ContainsSubstring("[3, 2]") && ContainsSubstring("[2, 3]"));
  CHECK_THROWS_WITH(retain::vtrace(z, torch::zeros({3, 1}), steps),
                    ContainsSubstring("behavior_log_probs") && ContainsSubstring("[3, 1]"));
  CHECK_THROWS_WITH(retain::vtrace(z, z, {z, z, torch::zeros({3}), z}), ContainsSubstring("[2]"));
  CHECK_THROWS_WITH(retain::vtrace(z, z, {z, z, last, z + 0.5}), ContainsSubstring("0 and 1"));
  CHECK_THROWS_WITH(retain::vtrace(z, z, {z, z, last, z, z}),
                    ContainsSubstring("vtrace: truncated needs truncated_values"));
  CHECK_THROWS_AS(retain::vtrace(z, z, steps, {.rho_bar = 0}), retain::config_error);
  CHECK_THROWS_AS(retain::vtrace(z, z, steps, {.rho_bar = 1, .c_bar = 2}), retain::config_error);
}

// Of half, LibTorch 1.13 has no exp on the CPU.
TEST_CASE("vtrace: in bfloat16 it is what it is in double, to its precision") {
  torch::manual_seed(8);
  const auto some = [](at::IntArrayRef sizes) { return torch::randn(sizes).to(at::kBFloat16); };
  const auto own = some({20, 3}), behavior = some({20, 3}), rewards = some({20, 3}),
             values = some({20, 3}), last = some({3});
  const auto ended = torch::rand({20, 3}).lt(0.1);
  const auto in = [&](at::ScalarType t) {
    return retain::vtrace(own.to(t), behavior.to(t),
                          {rewards.to(t), values.to(t), last.to(t), ended});
  };
  const auto narrow = in(at::kBFloat16), wide = in(at::kDouble);
  CHECK(narrow.values.scalar_type() == at::kBFloat16);
  CHECK(narrow.advantages.scalar_type() == at::kBFloat16);
  CHECK(support::relative_error(narrow.values, wide.values) < 0x1p-6);
  CHECK(support::relative_error(narrow.advantages, wide.advantages) < 0x1p-6);
}

TEST_CASE("vtrace: whatever stands behind the end of an episode reaches nothing before it",
          "[vtrace]") {
  for (const bool cut : {false, true}) {
    torch::manual_seed(10);
    batch b;
    auto ended = torch::zeros({b.T, b.N});
    ended[b.T - 1][0] = 1;
    ended[4][1] = 1;
    b.steps.terminated = cut ? torch::zeros({b.T, b.N}) : ended;
    b.steps.truncated = cut ? ended : torch::zeros({b.T, b.N});
    const auto clean = retain::vtrace(b.pi, b.mu, b.steps);
    for (const double foul :
         {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      auto said_of = b.steps;
      for (auto* each : {&said_of.last_value, &said_of.rewards, &said_of.values})
        *each = each->clone();
      said_of.last_value[0] = said_of.rewards[5][1] = said_of.values[5][1] = foul;
      said_of.truncated_values =
          b.steps.truncated_values.masked_fill(b.steps.truncated.eq(0), foul);
      const auto said = retain::vtrace(b.pi, b.mu, said_of);
      for (const auto& [made, expected] :
           {std::pair{said.values, clean.values}, std::pair{said.advantages, clean.advantages}}) {
        CHECK(made.select(1, 0).equal(expected.select(1, 0)));
        CHECK(made.select(1, 1).slice(0, 0, 5).equal(expected.select(1, 1).slice(0, 0, 5)));
      }
    }
  }
}

TEST_CASE("vtrace: a ratio beyond its type is an infinite bar's ceiling, not NaN", "[vtrace]") {
  constexpr double infinity = std::numeric_limits<double>::infinity();
  const auto zero = torch::zeros({2, 1}), old = torch::full({2, 1}, -200.0f),
             ended = torch::ones({2, 1});
  const auto free =
      retain::vtrace_options{.rho_bar = infinity, .c_bar = infinity, .advantage_rho_bar = infinity};
  const retain::value_steps unpaid{zero, zero, torch::zeros({1}), ended},
      pays{zero + 1, zero, torch::zeros({1}), ended};
  const auto nothing = retain::vtrace(zero, old, unpaid, free);
  CHECK(nothing.values.equal(zero));
  CHECK(nothing.advantages.equal(zero));
  const auto paid = retain::vtrace(zero, old, pays, free);
  CHECK(paid.advantages[0][0].item<double>() == Approx(std::exp(20.0)));
  CHECK(retain::vtrace(zero, old, pays).advantages.equal(zero + 1));
}

}  // namespace loss_vtrace_test
