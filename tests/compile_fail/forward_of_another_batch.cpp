// SPDX-License-Identifier: MIT
// expect: forward cannot be called with a batch of the data: let it take the type of the data
#include <retain/kfac.hpp>

struct demonstrations {
  at::Tensor observations;
};

retain::kronecker_fisher estimate(const std::vector<at::Tensor>& model,
                                  const std::vector<demonstrations>& data) {
  return retain::estimate_kfac(model, data,
                               [&](const at::Tensor& o) { return o.matmul(model[0]); });
}
