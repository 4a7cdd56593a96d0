// SPDX-License-Identifier: MIT
#include <retain/replay/prioritised.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/uniform.hpp>

#include "support.hpp"

namespace {

struct first_item {
  std::int64_t size() const { return 1; }
  retain::drawn sample(std::int64_t n) const { return {torch::zeros({n}, at::kLong), {}, {}, {}}; }
};
struct without_size {
  retain::drawn sample(std::int64_t) const { return {}; }
};
struct bare_indices {
  std::int64_t size() const { return 1; }
  at::Tensor sample(std::int64_t n) const { return torch::zeros({n}, at::kLong); }
};

}  // namespace

static_assert(retain::sampler<first_item>);
static_assert(retain::sampler<retain::uniform> && retain::stateful<retain::uniform>);
static_assert(retain::sampler<retain::stratified> && retain::stateful<retain::stratified>);
static_assert(retain::sampler<retain::prioritised> && retain::stateful<retain::prioritised>);
static_assert(retain::sampler<retain::reservoir> && retain::stateful<retain::reservoir>);
static_assert(retain::sequence_sampler<retain::sequences> && retain::stateful<retain::sequences>);
static_assert(!retain::sampler<without_size> && !retain::sampler<bare_indices> && !retain::sampler<at::Tensor>);
static_assert(!retain::sequence_sampler<retain::uniform>);

TEST_CASE("sampler: indices are checked where they enter", "[replay]") {
  using retain::detail::checked_indices;
  CHECK(checked_indices("test", torch::tensor({2, 0}, at::kLong), 3).equal(torch::tensor({2, 0}, at::kLong)));
  CHECK_THROWS_WITH(checked_indices("test", torch::tensor({2, 3}, at::kLong), 3), ContainsSubstring("index 3") && ContainsSubstring("3 items"));
  CHECK_THROWS_AS(checked_indices("test", torch::tensor({-1}, at::kLong), 3), retain::config_error);
  CHECK_THROWS_AS(checked_indices("test", torch::tensor({1.0}), 3), retain::config_error);
  CHECK_THROWS_AS(checked_indices("test", torch::zeros({1, 1}, at::kLong), 3), retain::shape_error);
}

TEST_CASE("uniform: every item is equally likely, by chi-square", "[replay]") {
  retain::uniform sampler(20, 3);
  constexpr std::int64_t n = 40000;
  const auto counts = torch::bincount(sampler.sample(n).indices, {}, 20).to(at::kDouble);
  const double expected = static_cast<double>(n) / 20;
  CHECK((counts - expected).square().sum().item<double>() / expected < 43.8);  // the 99.9 % quantile at 19 degrees of freedom
}

TEST_CASE("uniform: equal seeds draw alike, a saved generator goes on, and nothing is drawn from nothing", "[replay]") {
  retain::uniform a(1000, 1), b(1000, 1), c(1000, 2);
  CHECK(a.sample(8).indices.equal(b.sample(8).indices));
  CHECK(!a.sample(8).indices.equal(c.sample(8).indices));
  retain::state saved;
  a.save_state(saved, "s.");
  c.load_state(saved, "s.");
  CHECK(c.sample(8).indices.equal(a.sample(8).indices));
  auto copy = a;
  CHECK(copy.sample(8).indices.equal(a.sample(8).indices));
  a.resize(2);
  CHECK(a.sample(50).indices.max().item<std::int64_t>() == 1);
  CHECK_THROWS_AS(a.sample(0), retain::config_error);
  CHECK_THROWS_WITH(retain::uniform(0).sample(1), ContainsSubstring("nothing to draw from"));
}
