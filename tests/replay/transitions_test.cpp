// SPDX-License-Identifier: MIT
#include <retain/replay/transitions.hpp>

#include <concepts>
#include <utility>

#include "support.hpp"

namespace replay_transitions_test {

using retain::transitions;

// What is taken from a temporary outlives it.
static_assert(std::same_as<decltype(std::declval<const transitions&>()["x"]), const at::Tensor&>);
static_assert(std::same_as<decltype(std::declval<transitions&>()["x"]), const at::Tensor&>);
static_assert(std::same_as<decltype(std::declval<transitions>()["x"]), at::Tensor>);
static_assert(std::same_as<decltype(std::declval<const transitions>()["x"]), at::Tensor>);
template <class T>
concept gone_through =
    requires { std::declval<T>().begin(); } || requires { std::declval<T>().end(); };
static_assert(gone_through<const transitions&> && gone_through<transitions&> &&
              !gone_through<transitions> && !gone_through<const transitions>);

static_assert(retain::detail::gatherable<transitions> && retain::detail::gatherable<at::Tensor> &&
              !retain::detail::gatherable<int>);

TEST_CASE("transitions: rows by index, one step or sequences of them, and slices as views",
          "[replay]") {
  const auto o = torch::arange(12, at::kFloat).view({4, 3}), r = torch::arange(4, at::kDouble);
  const transitions batch{{"observation", o}, {"reward", r}};
  CHECK(batch.size() == 4);
  CHECK(batch["reward"].is_same(r));
  const auto indices = torch::tensor({2, 0, 2}, at::kLong);
  const auto some = batch.gather(indices);
  CHECK(some.size() == 3);
  CHECK(some["observation"].equal(o.index_select(0, indices)));
  CHECK(some["reward"].equal(torch::tensor({2.0, 0.0, 2.0}, at::kDouble)));
  const auto sequences = batch.gather(torch::tensor({{0, 3}, {1, 3}}, at::kLong));
  REQUIRE(sequences["observation"].sizes() == at::IntArrayRef({2, 2, 3}));
  CHECK(sequences["observation"][1][0].equal(o[1]));
  CHECK(sequences["observation"][0][1].equal(o[3]));
  CHECK(sequences["reward"].equal(torch::tensor({{0.0, 3.0}, {1.0, 3.0}}, at::kDouble)));
  CHECK(batch.narrow(1, 2)["reward"].data_ptr() == r[1].data_ptr());
  CHECK(transitions{}.size() == 0);
}

TEST_CASE("transitions: columns that do not belong together are named", "[replay]") {
  const auto a = torch::zeros({4, 2});
  CHECK_THROWS_WITH(
      (transitions{{"a", a}, {"b", torch::zeros({3})}}),
      ContainsSubstring("'b'") && ContainsSubstring("[3]") && ContainsSubstring("'a' [4, 2]"));
  CHECK_THROWS_WITH((transitions{{"a", a}, {"a", a}}),
                    ContainsSubstring("two columns are named 'a'"));
  CHECK_THROWS_WITH((transitions{{"a", torch::tensor(1.0)}}),
                    ContainsSubstring("without dimensions"));
  CHECK_THROWS_WITH((transitions{{"a", at::Tensor()}}), ContainsSubstring("undefined"));
  CHECK_THROWS_WITH((transitions{{"a", a}, {"b", a}}["c"]),
                    ContainsSubstring("no column 'c'") && ContainsSubstring("'a', 'b'"));
  CHECK_THROWS_AS(transitions{}["a"], retain::config_error);
}

TEST_CASE("transitions: a column of a temporary outlives it; moved to itself, it is as it was",
          "[replay]") {
  const auto make = [] { return transitions{{"x", torch::arange(3)}}; };
  const auto& x = make()["x"];
  CHECK(x.equal(torch::arange(3)));
  auto batch = make();
  auto& same = batch;
  batch = std::move(same);
  CHECK(batch.size() == 3);
  CHECK(batch["x"].equal(torch::arange(3)));
}

}  // namespace replay_transitions_test
