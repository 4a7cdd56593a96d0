// SPDX-License-Identifier: MIT
// expect: or give your type a member named_parameters.. that returns a range of .name, tensor.
#include <retain/fisher.hpp>

struct policy {
  at::Tensor weight;
  std::vector<double> named_parameters() const { return {}; }
};

retain::fisher estimate(const policy& model, const at::Tensor& states) {
  return retain::estimate_fisher(model, states,
                                 [&](const at::Tensor& o) { return o.matmul(model.weight); });
}
