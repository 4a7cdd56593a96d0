// SPDX-License-Identifier: MIT
// expect: forward returns nothing: return the distributions, for example
#include <retain/fisher.hpp>

retain::fisher estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_fisher(
      model, states, [&](const at::Tensor& o) { retain::categorical{o.matmul(model[0])}; });
}
