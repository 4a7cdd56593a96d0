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
