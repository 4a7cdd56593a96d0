// SPDX-License-Identifier: MIT
// expect: this distribution has no entropy: give it `at::Tensor entropy.. const`
#include <retain/fisher.hpp>

struct own : retain::categorical {
  using retain::categorical::categorical;
  at::Tensor entropy() { return logits; }
};

retain::fisher estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_fisher(model, states,
                                 [&](const at::Tensor& o) { return own{o.matmul(model[0])}; });
}
