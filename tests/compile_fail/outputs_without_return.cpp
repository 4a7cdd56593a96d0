// SPDX-License-Identifier: MIT
// expect: forward returns nothing: return the distributions, for example
#include <retain/memory_aware_synapses.hpp>

retain::parameter_list estimate(const std::vector<at::Tensor>& model, const at::Tensor& states) {
  return retain::estimate_sensitivity(model, states,
                                      [&](const at::Tensor& o) { o.matmul(model[0]); });
}
