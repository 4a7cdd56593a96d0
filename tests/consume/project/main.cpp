// SPDX-License-Identifier: MIT
// Needs what a consumer needs: headers of retain, LibTorch and Eigen, and LibTorch's libraries. The
// headers are those that compile fast; whole programs are built in examples/existing_agent.
#include <retain/parameters.hpp>
#include <retain/version.hpp>

#include <ATen/Parallel.h>

#include <Eigen/Core>

#include <cstdio>

#if AT_PARALLEL_OPENMP && !defined(_OPENMP)
#error "LibTorch is built on OpenMP, and this file is compiled without it"
#endif

int main() {
  const Eigen::Vector2d two{1, 1};
  const std::vector<at::Tensor> model(static_cast<std::size_t>(two.sum()));
  const auto named = retain::parameters(model);
  std::printf("retain %d.%d.%d, %d thread(s), %zu parameters\n", RETAIN_VERSION_MAJOR,
              RETAIN_VERSION_MINOR, RETAIN_VERSION_PATCH, at::get_num_threads(), named.size());
}
