// SPDX-License-Identifier: MIT
// expect: eigen_storage
#include <retain/eigen.hpp>

void add(retain::eigen_parameters& model, const Eigen::MatrixXf& a, const Eigen::MatrixXf& b) {
  model.add("sum", a + b);
}
