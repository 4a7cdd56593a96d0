// SPDX-License-Identifier: MIT
// expect: must return distributions .such as retain::categorical., logits as a tensor, or
// retain::masked
#include <retain/fisher.hpp>

retain::fisher estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_fisher(model, states, [](const at::Tensor&) { return 42; });
}
