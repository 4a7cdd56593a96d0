// SPDX-License-Identifier: MIT
#include <retain/episodic_memory.hpp>
#include <retain/replay/prioritized.hpp>
#include <retain/replay/reservoir.hpp>
#include <retain/replay/sampler.hpp>
#include <retain/replay/sequences.hpp>
#include <retain/replay/stratified.hpp>
#include <retain/replay/uniform.hpp>

#include "replay/contents.hpp"
#include "support.hpp"

namespace replay_sampler_test {

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
static_assert(retain::sampler<retain::prioritized> && retain::stateful<retain::prioritized>);
static_assert(retain::sampler<retain::reservoir> && retain::stateful<retain::reservoir>);
static_assert(retain::sequence_sampler<retain::sequences> && retain::stateful<retain::sequences>);
static_assert(!retain::sampler<without_size> && !retain::sampler<bare_indices> &&
              !retain::sampler<at::Tensor>);
static_assert(!retain::sequence_sampler<retain::uniform>);

TEST_CASE("sampler: indices are checked where they enter", "[replay]") {
  using retain::detail::checked_indices;
  CHECK(checked_indices("test", torch::tensor({2, 0}, at::kLong), 3)
            .equal(torch::tensor({2, 0}, at::kLong)));
  CHECK_THROWS_WITH(checked_indices("test", torch::tensor({2, 3}, at::kLong), 3),
                    ContainsSubstring("index 3") && ContainsSubstring("3 items"));
  CHECK_THROWS_AS(checked_indices("test", torch::tensor({-1}, at::kLong), 3), retain::config_error);
  CHECK_THROWS_AS(checked_indices("test", torch::tensor({1.0}), 3), retain::config_error);
  CHECK_THROWS_AS(checked_indices("test", torch::zeros({1, 1}, at::kLong), 3), retain::shape_error);
}

TEST_CASE("sampler: every one, and every memory, is as it was when it is moved to itself",
          "[replay]") {
  const auto check = [](auto it) {
    const auto before = contents::of(it);
    auto& same = it;
    it = std::move(same);
    CHECK(contents::of(it) == before);
    it.sample(3);
  };
  const auto list = torch::tensor({3, 1, 3}, at::kLong);
  const retain::transitions rows{{"x", torch::arange(3)}, {"y", torch::ones({3, 2})}};
  check(retain::uniform(4));
  check(retain::prioritized(4));
  check(retain::sequences(list, {.length = 2}));
  check(retain::stratified(list));
  check(retain::stratified(list, {.shares = {{1, 1.0}, {3, 2.0}}}));
  retain::reservoir slots(4);
  slots.offer(7);
  check(slots);
  retain::reservoir_memory kept{{.capacity = 2}};
  kept.push(rows);
  check(kept);
  check(retain::episodic_memory{rows, {.capacity = 9, .share = 0.5}});
}

}  // namespace replay_sampler_test
