// SPDX-License-Identifier: MIT
#include <retain/loss/two_stream_gae.hpp>

#include "support.hpp"

namespace loss_two_stream_gae_test {

TEST_CASE("two_stream_gae: twice the task and once the news, with the news going on through the "
          "end of an episode",
          "[rnd]") {
  // One environment, two steps, the first of which ends an episode; lambda 1, so that advantages
  // can be added up by hand.
  const auto column = [](double a, double b) {
    return torch::tensor({a, b}, at::kDouble).view({2, 1});
  };
  const retain::value_stream task{column(1, 10), column(0.5, 0.25),
                                  torch::tensor({4.0}, at::kDouble)};
  const retain::value_stream news{column(2, 20), column(0.1, 0.2),
                                  torch::tensor({8.0}, at::kDouble)};
  const auto both = retain::two_stream_gae(
      task, news, column(1, 0),
      {.extrinsic = {.discount = 0.5, .decay = 1}, .intrinsic = {.discount = 0.25, .decay = 1}});
  CHECK(at::allclose(both.extrinsic_returns, column(1, 10 + 0.5 * 4)));
  CHECK(at::allclose(both.intrinsic_returns, column(2 + 0.25 * (20 + 0.25 * 8), 20 + 0.25 * 8)));
  CHECK(at::allclose(both.advantages,
                     column(2 * (1 - 0.5) + (2 + 0.25 * 22 - 0.1), 2 * (12 - 0.25) + (22 - 0.2))));

  const auto weighted = retain::two_stream_gae(task, news, column(1, 0),
                                               {.extrinsic_weight = 0, .intrinsic_weight = 3});
  CHECK(at::allclose(weighted.advantages, 3 * (weighted.intrinsic_returns - news.values)));
  const retain::value_stream other{torch::zeros({3, 1}), torch::zeros({3, 1}), torch::zeros({1})};
  CHECK_THROWS_WITH(retain::two_stream_gae(task, other, column(1, 0)),
                    ContainsSubstring("[2, 1]") && ContainsSubstring("[3, 1]"));
}

TEST_CASE("two_stream_gae: a value behind the last episode's end may be anything", "[rnd]") {
  const auto one = torch::ones({2, 1}), ended = torch::tensor({{0.0f}, {1.0f}});
  const auto nan = torch::full({1}, std::numeric_limits<float>::quiet_NaN());
  const auto said = retain::two_stream_gae({one, one, nan}, {one, one, torch::zeros({1})}, ended);
  CHECK(said.advantages.isfinite().all().item<bool>());
  CHECK(said.extrinsic_returns[1][0].item<double>() == Approx(1));
}

}  // namespace loss_two_stream_gae_test
