// SPDX-License-Identifier: MIT
// expect: retain::adopt, copy, forward
#include <retain/teacher.hpp>

struct policy {
  at::Tensor weight;
  at::Tensor forward(const at::Tensor& observations) { return observations.matmul(weight); }
};

const retain::teacher keep{policy{}};
