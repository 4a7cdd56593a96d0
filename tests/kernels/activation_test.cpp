// SPDX-License-Identifier: MIT
#include <retain/policy/activation.hpp>

#include "support.hpp"

namespace policy_activation_test {

using retain::activation_kind;

TEST_CASE("activate: each kind by its formula, in place too, and its gradient from its result",
          "[activation]") {
  const auto x = torch::linspace(-3, 3, 13, at::kDouble).requires_grad_();
  for (const auto kind : {activation_kind::relu, activation_kind::leaky_relu, activation_kind::elu,
                          activation_kind::tanh}) {
    const auto y = retain::activate(x, kind), plain = x.detach();
    const auto below = kind == activation_kind::relu         ? plain * 0
                       : kind == activation_kind::leaky_relu ? plain * 0.2
                                                             : plain.exp() - 1;
    const auto expected =
        kind == activation_kind::tanh ? plain.tanh() : at::where(plain > 0, plain, below);
    CHECK(at::allclose(y.detach(), expected, 1e-12));
    CHECK(retain::detail::activate_in_place(plain.clone(), kind).equal(y.detach()));
    const auto incoming = torch::randn({13}, at::kDouble);
    const auto gradient = torch::autograd::grad({y}, {x}, {incoming})[0];
    CHECK(at::allclose(retain::detail::activation_gradient(incoming, y.detach(), kind), gradient,
                       1e-12));
  }
}

}  // namespace policy_activation_test
