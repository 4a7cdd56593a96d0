// SPDX-License-Identifier: MIT
#include <retain/loss/two_stream_gae.hpp>

#include "support.hpp"

namespace loss_two_stream_gae_test {

using retain::value_steps;

TEST_CASE("two_stream_gae: twice the task and once the news, with the news going on through the "
          "end of an episode",
          "[rnd]") {
  // One environment, two steps, the first of which ends an episode; lambda 1, so that advantages
  // can be added up by hand.
  const auto column = [](double a, double b) {
    return torch::tensor({a, b}, at::kDouble).view({2, 1});
  };
  const value_steps extrinsic{.rewards = column(1, 10),
                              .values = column(0.5, 0.25),
                              .last_value = torch::tensor({4.0}, at::kDouble),
                              .terminated = column(1, 0)};
  const value_steps intrinsic{.rewards = column(2, 20),
                              .values = column(0.1, 0.2),
                              .last_value = torch::tensor({8.0}, at::kDouble)};
  const retain::two_stream_options options{.extrinsic = {.gamma = 0.5, .gae_lambda = 1},
                                           .intrinsic = {.gamma = 0.25, .gae_lambda = 1}};
  const auto both = retain::two_stream_gae(extrinsic, intrinsic, options);
  CHECK(at::allclose(both.extrinsic_returns, column(1, 10 + 0.5 * 4)));
  CHECK(at::allclose(both.intrinsic_returns, column(2 + 0.25 * (20 + 0.25 * 8), 20 + 0.25 * 8)));
  CHECK(at::allclose(both.advantages,
                     column(2 * (1 - 0.5) + (2 + 0.25 * 22 - 0.1), 2 * (12 - 0.25) + (22 - 0.2))));

  // The same steps with a cut in place of the end: the task's return holds the value of the state
  // that was cut off, and the news goes on all the same.
  auto cut = extrinsic;
  cut.terminated = column(0, 0);
  cut.truncated = column(1, 0);
  cut.truncated_values = column(6, std::numeric_limits<double>::quiet_NaN());
  const auto truncated = retain::two_stream_gae(cut, intrinsic, options);
  CHECK(at::allclose(truncated.extrinsic_returns, column(1 + 0.5 * 6, 10 + 0.5 * 4)));
  CHECK(truncated.intrinsic_returns.equal(both.intrinsic_returns));

  const auto weighted =
      retain::two_stream_gae(extrinsic, intrinsic, {.extrinsic_weight = 0, .intrinsic_weight = 3});
  CHECK(at::allclose(weighted.advantages, 3 * (weighted.intrinsic_returns - intrinsic.values)));
}

TEST_CASE("two_stream_gae names what does not fit", "[rnd]") {
  const auto z = torch::zeros({2, 1}), last = torch::zeros({1});
  const value_steps extrinsic{z, z, last, z}, intrinsic{z, z, last};
  const value_steps longer{torch::zeros({3, 1}), torch::zeros({3, 1}), last};
  CHECK_THROWS_WITH(retain::two_stream_gae(extrinsic, longer),
                    ContainsSubstring("[2, 1]") && ContainsSubstring("[3, 1]"));
  CHECK_THROWS_WITH(retain::two_stream_gae(intrinsic, intrinsic),
                    ContainsSubstring("extrinsic") && ContainsSubstring("terminated"));
  CHECK_THROWS_WITH(retain::two_stream_gae(extrinsic, {z, torch::zeros({2, 2}), last}),
                    ContainsSubstring("intrinsic") && ContainsSubstring("[2, 2]"));
  CHECK_THROWS_AS(retain::two_stream_gae(extrinsic, extrinsic), retain::config_error);
  CHECK_THROWS_WITH(retain::two_stream_gae(extrinsic, extrinsic),
                    ContainsSubstring("continue across the ends"));
  auto cut = intrinsic;
  cut.truncated = z;
  CHECK_THROWS_AS(retain::two_stream_gae(extrinsic, cut), retain::config_error);
}

TEST_CASE("two_stream_gae: a value behind the last episode's end may be anything", "[rnd]") {
  const auto one = torch::ones({2, 1}), ended = torch::tensor({{0.0f}, {1.0f}});
  const auto nan = torch::full({1}, std::numeric_limits<float>::quiet_NaN());
  const auto said = retain::two_stream_gae({one, one, nan, ended}, {one, one, torch::zeros({1})});
  CHECK(said.advantages.isfinite().all().item<bool>());
  CHECK(said.extrinsic_returns[1][0].item<double>() == Approx(1));
}

}  // namespace loss_two_stream_gae_test
