// SPDX-License-Identifier: MIT
// expect: a penalty is added to the gradient: the gradient must not be const
#include <retain/eigen.hpp>

void add(Eigen::MatrixXf& weights, const Eigen::MatrixXf& gradient) {
  retain::eigen_parameters model;
  model.add("weights", weights, gradient);
}
