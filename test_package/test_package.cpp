// SPDX-License-Identifier: MIT
#include <retain/parameters.hpp>

#include <ATen/Parallel.h>

#include <cstdio>

int main() {
  const std::vector<at::Tensor> model;
  std::printf("retain is here, LibTorch has %d thread(s)\n", at::get_num_threads());
  return static_cast<int>(retain::parameters(model).size());
}
