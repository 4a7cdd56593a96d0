// SPDX-License-Identifier: MIT
// expect: the matrix is a temporary and would be destroyed before its first use: store it in a
#include <retain/eigen.hpp>

void add(retain::eigen_parameters& model) { model.add("w", Eigen::MatrixXf(2, 3)); }
