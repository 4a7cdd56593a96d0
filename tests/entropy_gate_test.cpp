// SPDX-License-Identifier: MIT
#include <retain/categorical.hpp>
#include <retain/entropy_gate.hpp>

#include "support.hpp"

namespace entropy_gate_test {

TEST_CASE("entropy gate: open where the teacher is sure, a mask or not", "[entropy_gate]") {
  // Entropies: log 2, 0 (to rounding), and that of (3/4, 1/4).
  const retain::categorical teacher{
      torch::tensor({{0.0, 0.0}, {60.0, 0.0}, {std::log(3.0), 0.0}}, at::kDouble)};
  const double between = 0.75 * std::log(4.0 / 3) + 0.25 * std::log(4.0);
  const auto nothing = torch::zeros({3});
  CHECK(retain::entropy_gate{between + 1e-9}(nothing, teacher)
            .equal(torch::tensor({false, true, true})));
  CHECK(retain::entropy_gate{between - 1e-9}(nothing, teacher)
            .equal(torch::tensor({false, true, false})));
  CHECK(retain::entropy_gate{1.0}(nothing, retain::masked{teacher, torch::ones({3})})
            .all()
            .item<bool>());
  CHECK_THROWS_AS(retain::entropy_gate{std::nan("")}, retain::config_error);
}

}  // namespace entropy_gate_test
