// SPDX-License-Identifier: MIT
// expect: the matrix would be gone before its first use: give it a name
#include <retain/eigen.hpp>

void add(retain::eigen_parameters& model) { model.add("w", Eigen::MatrixXf(2, 3)); }
