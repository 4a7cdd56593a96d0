// SPDX-License-Identifier: MIT
#include <retain/mahalanobis_gate.hpp>

#include "support.hpp"

namespace mahalanobis_gate_test {

using retain::mahalanobis_gate;

static_assert(retain::stateful<mahalanobis_gate<>>);

TEST_CASE("mahalanobis gate: the distance against the inverse covariance, on rows of any shape",
          "[mahalanobis_gate]") {
  torch::manual_seed(1);
  const auto mix = torch::randn({3, 3}, at::kDouble);
  const auto seen = torch::randn({500, 3}, at::kDouble).mm(mix) + 4;
  const mahalanobis_gate gate{seen, retain::detail::observations_themselves{}, {.ridge = 0}};
  const auto mean = seen.mean(0), centered = seen - mean;
  const auto inverse = centered.t().mm(centered).div(499).inverse();
  const auto x = torch::randn({4, 5, 3}, at::kDouble) * 3;
  const auto expected = (((x - mean).matmul(inverse)) * (x - mean)).sum(-1);
  CHECK(support::relative_error(gate.distance(x), expected) < 1e-10);
  CHECK(support::relative_error(gate.distance(x.to(at::kFloat)), expected) < 1e-4);
  CHECK(gate(x).equal(expected.le(gate.threshold())));
  // The sum of d^2 over the fitted states is (n - 1) d whatever they are.
  CHECK(gate.distance(seen).sum().item<double>() == Approx(499 * 3));
}

TEST_CASE("mahalanobis gate: lets the asked-for share through, and the chi-squared law holds for "
          "Gaussian features",
          "[mahalanobis_gate]") {
  torch::manual_seed(2);
  const auto seen =
      torch::randn({20000, 2}, at::kDouble) * torch::tensor({1.0, 100.0}, at::kDouble);
  for (const double share : {0.5, 0.9, 1.0}) {
    const mahalanobis_gate gate{
        seen, retain::detail::observations_themselves{}, {.quantile = share}};
    CHECK(gate(seen).sum().item<std::int64_t>() == std::llround(share * 20000));
    // chi-squared of two degrees of freedom
    if (share < 1) CHECK(gate.threshold() == Approx(-2 * std::log(1 - share)).epsilon(0.06));
  }
  const mahalanobis_gate gate{seen};
  CHECK(gate(torch::tensor({{0.0, 250.0}, {4.0, 0.0}, {std::nan(""), 0.0}}, at::kDouble))
            .equal(torch::tensor({true, false, false})));
}

TEST_CASE("mahalanobis gate: features of a network, held-out calibration, types",
          "[mahalanobis_gate]") {
  torch::manual_seed(3);
  torch::nn::Linear trunk(6, 20);
  const auto features = [&](const at::Tensor& o) { return trunk->forward(o); };
  const auto seen = torch::randn({60, 6}), held_out = torch::randn({4000, 6});
  mahalanobis_gate gate{seen, features};  // twenty features of rank six: the ridge carries the rest
  CHECK(!gate.distance(seen).requires_grad());
  const double few = gate(held_out).to(at::kDouble).mean().item<double>();
  gate.calibrate(held_out);
  CHECK(few < 0.98);
  CHECK(gate(held_out).to(at::kDouble).mean().item<double>() == Approx(0.99).margin(5e-4));
  CHECK(!gate(torch::full({1, 6}, 10.0)).item<bool>());

  const mahalanobis_gate pixels{torch::randint(0, 255, {100, 4}, at::kByte)};
  CHECK(pixels(torch::full({2, 4}, 128, at::kByte)).all().item<bool>());
  CHECK(pixels(torch::full({2, 4}, 128.0, at::kHalf)).all().item<bool>());
}

TEST_CASE("mahalanobis gate: saved and restored, another one is refused", "[mahalanobis_gate]") {
  const support::temporary_folder folder;
  torch::manual_seed(4);
  const mahalanobis_gate gate{torch::randn({50, 3})};
  retain::save(folder.file("g"), gate);
  mahalanobis_gate other{torch::randn({50, 3}) * 7};
  const auto x = torch::randn({100, 3}) * 2;
  const auto before = other.distance(x);
  const auto copy = other;
  retain::load(folder.file("g"), other);
  CHECK(other.distance(x).equal(gate.distance(x)));
  CHECK(other(x).equal(gate(x)));
  CHECK(copy.distance(x).equal(before));
  mahalanobis_gate wide{torch::randn({50, 4})};
  CHECK_THROWS_WITH(retain::load(folder.file("g"), wide),
                    ContainsSubstring("[3]") && ContainsSubstring("[4]"));
  for (const char* key : {"mean", "whitening"}) {
    retain::state saved;
    copy.save_state(saved, "");
    saved.set(key, saved.tensor(key).to(at::kFloat));
    CHECK_THROWS_WITH(other.load_state(saved, ""), ContainsSubstring("float64"));
    CHECK_THROWS_AS(other.load_state(saved, ""), retain::state_error);
    CHECK(other.distance(x).equal(gate.distance(x)));
    CHECK(other.threshold() == gate.threshold());
  }
  const auto refused = [&](const char* key, auto value) {
    retain::state saved;
    copy.save_state(saved, "");
    saved.set(key, value);
    CHECK_THROWS_AS(other.load_state(saved, ""), retain::state_error);
    CHECK_THROWS_WITH(other.load_state(saved, ""), ContainsSubstring("are invalid"));
    CHECK(other.distance(x).equal(gate.distance(x)));
    CHECK(other.threshold() == gate.threshold());
  };
  refused("mean", torch::full({3}, std::nan(""), at::kDouble));
  refused("whitening", torch::full({3, 3}, INFINITY, at::kDouble));
  refused("whitening", -torch::eye(3, at::kDouble));
  for (const double bad : {-1.0, std::nan(""), double(INFINITY)}) refused("threshold", bad);
}

TEST_CASE("mahalanobis gate: bad input says what is wrong", "[mahalanobis_gate]") {
  const auto fine = torch::randn({9, 2});
  const auto with = [&](retain::mahalanobis_gate_options options) {
    return mahalanobis_gate{fine, retain::detail::observations_themselves{}, options};
  };
  CHECK_THROWS_WITH(with({.quantile = 0}), ContainsSubstring("(0, 1]"));
  CHECK_THROWS_AS(with({.quantile = 1.1}), retain::config_error);
  CHECK_THROWS_AS(with({.ridge = -1}), retain::config_error);
  CHECK_THROWS_AS(mahalanobis_gate{torch::randn({1, 2})}, retain::shape_error);
  CHECK_THROWS_AS(mahalanobis_gate{torch::randn({7})}, retain::shape_error);
  CHECK_THROWS_WITH((mahalanobis_gate{torch::full({4, 2}, std::nan(""))}),
                    ContainsSubstring("not finite"));
  CHECK_THROWS_WITH((mahalanobis_gate{torch::zeros({4, 2})}), ContainsSubstring("singular"));
  CHECK_THROWS_WITH(with({})(torch::zeros({3, 5})),
                    ContainsSubstring("[3, 5]") && ContainsSubstring("[..., 2]"));
  auto gate = with({});
  CHECK_THROWS_AS(gate.calibrate(torch::zeros({3, 5})), retain::shape_error);
}

TEST_CASE("mahalanobis gate: features that are all constant have no covariance, far from 0 either",
          "[mahalanobis_gate]") {
  CHECK_THROWS_WITH((mahalanobis_gate{torch::full({7, 2}, 3.3)}), ContainsSubstring("singular"));
  CHECK_THROWS_WITH((mahalanobis_gate{torch::full({1000, 2}, 3.3, at::kDouble)}),
                    ContainsSubstring("singular"));
}

}  // namespace mahalanobis_gate_test
