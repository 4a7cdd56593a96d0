// SPDX-License-Identifier: MIT
#include <retain/ewc.hpp>

#include <ATen/ATen.h>

#include <cstdio>
#include <vector>

double from_second_file();

int main() {
  std::vector<at::Tensor> weights{at::ones({3}).requires_grad_()};
  const retain::parameter_list importance{{"0", at::full({3}, 2.0)}};
  retain::ewc keep{weights, importance, {.strength = 0.5}};
  {
    const at::NoGradGuard no_grad;
    weights[0].add_(1);
  }
  const double value = keep.add_gradient(weights).item<double>();  // 0.5 * 3 * 2 * 1^2
  std::printf("%g %g\n", value, from_second_file());
  return value == 3.0 && from_second_file() == 0.0 ? 0 : 1;
}
