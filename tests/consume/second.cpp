// SPDX-License-Identifier: MIT
// A second file that includes everything: nothing is defined twice at link time.
#include <retain/retain.hpp>

double from_second_file() {
  std::vector<at::Tensor> weights{at::ones({2}).requires_grad_()};
  return retain::l2_init{weights}.add_gradient(weights).item<double>();
}
