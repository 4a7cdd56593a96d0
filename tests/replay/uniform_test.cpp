// SPDX-License-Identifier: MIT
#include <retain/replay/uniform.hpp>

#include "support.hpp"

namespace replay_uniform_test {

TEST_CASE("uniform: every item is equally likely, by chi-square", "[replay]") {
  retain::uniform sampler(20, 3);
  constexpr std::int64_t n = 40000;
  const auto counts = torch::bincount(sampler.sample(n).indices, {}, 20).to(at::kDouble);
  const double expected = static_cast<double>(n) / 20;
  // the 99.9 % quantile at 19 degrees of freedom
  CHECK((counts - expected).square().sum().item<double>() / expected < 43.8);
}

TEST_CASE(
    "uniform: equal seeds draw alike, a saved generator goes on, and nothing is drawn from nothing",
    "[replay]") {
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

TEST_CASE("uniform: a negative number of items is none", "[replay]") {
  CHECK_THROWS_AS(retain::uniform(-1), retain::config_error);
  retain::uniform sampler(3);
  CHECK_THROWS_AS(sampler.resize(-1), retain::config_error);
  CHECK(sampler.size() == 3);
}

}  // namespace replay_uniform_test
