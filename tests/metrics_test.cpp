// SPDX-License-Identifier: MIT
#include <retain/metrics.hpp>

#include "support.hpp"

namespace metrics_test {

namespace {
// After each of three tasks (rows), on each of them (columns).
const retain::result_matrix results{{0.8, 0.1, 0.2}, {0.6, 0.9, 0.3}, {0.5, 0.95, 0.7}};
}  // namespace

TEST_CASE("metrics: forgetting, backward and forward transfer by hand", "[metrics]") {
  // Task 1: best of 0.8 and 0.6, less 0.5. Task 2: best of 0.1 and 0.9, less 0.95.
  const auto by_task = retain::forgetting_by_task(results);
  REQUIRE(by_task.size() == 2);
  CHECK(by_task[0] == Approx(0.3));
  CHECK(by_task[1] == Approx(-0.05));
  CHECK(retain::forgetting(results) == Approx(0.125));
  CHECK(retain::backward_transfer(results) == Approx(((0.5 - 0.8) + (0.95 - 0.9)) / 2));
  CHECK(retain::forward_transfer(results, {0.0, 0.05, 0.1}) ==
        Approx(((0.1 - 0.05) + (0.3 - 0.1)) / 2));
  CHECK(retain::average_result(results) == Approx((0.5 + 0.95 + 0.7) / 3));
}

TEST_CASE("metrics: a task's best may lie between its own training and the last", "[metrics]") {
  CHECK(retain::forgetting({{0.5}, {0.9, 0.4}, {0.6, 0.4, 0.1}}) == Approx((0.3 + 0.0) / 2));
  CHECK(retain::backward_transfer({{0.5}, {0.9, 0.4}, {0.6, 0.4, 0.1}}) == Approx(0.05));
}

TEST_CASE(
    "metrics: area under a curve of unequal steps, and forward transfer over a run from scratch",
    "[metrics]") {
  CHECK(retain::area_under_curve({0, 1, 4}, {0.0, 1.0, 1.0}) == Approx((0.5 + 3.0) / 4));
  CHECK(retain::area_under_curve({10, 20}, {0.4, 0.4}) == Approx(0.4));
  CHECK(retain::forward_transfer(0.8, 0.5) == Approx(0.6));
  CHECK(retain::forward_transfer(0.5, 0.5) == 0);
  CHECK(retain::forward_transfer(0.2, 0.5) == Approx(-0.6));
  CHECK(retain::forward_transfer(1.0, 0.3) == 1);
}

TEST_CASE("metrics: linear CKA against HSIC with kernels written out, and what it does not see",
          "[metrics]") {
  torch::manual_seed(1);
  const auto x = torch::randn({12, 5}, at::kDouble),
             y = torch::randn({12, 7}, at::kDouble) + x.sum(1, true);
  const auto center = torch::eye(12, at::kDouble) - 1.0 / 12;
  const auto hsic = [&](const at::Tensor& u, const at::Tensor& v) {
    return u.mm(u.t()).mm(center).mm(v.mm(v.t())).mm(center).trace().item<double>();
  };
  const double expected = hsic(x, y) / std::sqrt(hsic(x, x) * hsic(y, y));
  CHECK(retain::linear_cka(x, y) == Approx(expected));
  CHECK(retain::linear_cka(y, x) == Approx(expected));
  const auto rotation = std::get<0>(torch::linalg_qr(torch::randn({5, 5}, at::kDouble)));
  CHECK(retain::linear_cka(x, x.mm(rotation) * 3 + 2) == Approx(1));
  const auto wide = torch::randn({4, 30}, at::kDouble), wider = torch::randn({4, 50}, at::kDouble);
  const auto small = torch::eye(4, at::kDouble) - 0.25;
  const auto few = [&](const at::Tensor& u, const at::Tensor& v) {
    return u.mm(u.t()).mm(small).mm(v.mm(v.t())).mm(small).trace().item<double>();
  };
  CHECK(retain::linear_cka(wide, wider) ==
        Approx(few(wide, wider) / std::sqrt(few(wide, wide) * few(wider, wider))));
  // A column that stands still says nothing, however large; one that moves a little beside its mean
  // does.
  const auto still = torch::full({12, 1}, 1e9 / 3, at::kDouble);
  CHECK(retain::linear_cka(torch::cat({x, still}, 1), y) == Approx(expected));
  CHECK(retain::linear_cka(x * 1e-4 + 1e4, y) == Approx(expected).epsilon(1e-6));
  CHECK(retain::linear_cka(torch::tensor({{1.f, 0.f}, {0.f, 0.f}, {-1.f, 0.f}}),
                           torch::tensor({{0.f, 1.f}, {0.f, -2.f}, {0.f, 1.f}})) == 0);
}

TEST_CASE("metrics: bad input says what is wrong", "[metrics]") {
  CHECK_THROWS_AS(retain::forgetting({{1.0}}), retain::config_error);
  CHECK_THROWS_WITH(retain::backward_transfer({{1.0}, {1.0}}),
                    ContainsSubstring("after task 1 are of 1 tasks"));
  CHECK_THROWS_AS(retain::forward_transfer({{1.0}, {1.0, 1.0}}, {0.0, 0.0}), retain::shape_error);
  CHECK_THROWS_AS(retain::forward_transfer(results, {0.0}), retain::shape_error);
  CHECK_THROWS_WITH(retain::forgetting({{std::nan("")}, {1.0, 1.0}}),
                    ContainsSubstring("after task 0 on task 0"));
  CHECK_THROWS_WITH(retain::forward_transfer(120.0, 30.0),
                    ContainsSubstring("scale the performance"));
  CHECK_THROWS_AS(retain::forward_transfer(0.5, 1.0), retain::config_error);
  CHECK_THROWS_AS(retain::area_under_curve({0}, {1}), retain::config_error);
  CHECK_THROWS_AS(retain::area_under_curve({0, 0}, {1, 1}), retain::config_error);
  CHECK_THROWS_AS(retain::area_under_curve({0, 1}, {1}), retain::shape_error);
  CHECK_THROWS_AS(retain::linear_cka(torch::zeros({3, 2}), torch::zeros({4, 2})),
                  retain::shape_error);
  CHECK_THROWS_AS(retain::linear_cka(torch::ones({3, 2}), torch::randn({3, 2})),
                  retain::config_error);
  // whose mean is rounded
  CHECK_THROWS_AS(retain::linear_cka(torch::full({3, 2}, 0.1, at::kDouble), torch::randn({3, 2})),
                  retain::config_error);
  CHECK_THROWS_AS(
      retain::linear_cka(torch::randn({3, 2}), torch::full({3, 70}, 1e5 / 3, at::kDouble)),
      retain::config_error);
  CHECK_THROWS_AS(retain::average_result({}), retain::config_error);
}

}  // namespace metrics_test
