// SPDX-License-Identifier: MIT
// expect: ignoring return value
// options: -Werror=unused-result
#include <retain/fisher.hpp>

void estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  retain::estimate_fisher(model, states, [&](const at::Tensor& o) { return o.matmul(model[0]); });
}
