// SPDX-License-Identifier: MIT
// expect: cannot convert .*l2_init_options
#include <retain/l2_init.hpp>

retain::l2_init make(const std::vector<at::Tensor>& model) {
  return retain::l2_init{model, {.strength = "strong"}};
}
