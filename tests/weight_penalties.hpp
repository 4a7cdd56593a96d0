// SPDX-License-Identifier: MIT
// What l2_init and ewc are both held to.
#pragma once

#include <retain/terms/quadratic_penalty.hpp>

#include "support.hpp"

namespace support {

/// A penalty's value and both its gradients against finite differences in double and against each
/// other, for parameters that have moved from their anchors. `make(parameters)` builds the penalty
/// while they stand at the anchors.
template <class Make>
void check_gradients(Make make, at::ScalarType type, double tolerance) {
  torch::manual_seed(3);
  const auto options = at::TensorOptions().dtype(type);
  // One tensor longer than the kernel's blocks, an odd one, a column of a transposed one, an empty
  // one, a scalar.
  std::vector<at::Tensor> weights{torch::randn({2111}, options), torch::randn({3, 5}, options),
                                  torch::randn({4, 6}, options).t(), torch::zeros({0, 3}, options),
                                  torch::randn({}, options)};
  for (auto& w : weights) w.requires_grad_();
  auto penalty = make(weights);
  {
    const at::NoGradGuard no_grad;
    for (auto& w : weights) w.add_(torch::randn(w.sizes(), options));
  }

  const double value = penalty.add_gradient(weights).template item<double>();
  std::vector<at::Tensor> fused;
  for (auto& w : weights) {
    fused.push_back(w.grad().clone());
    w.mutable_grad().fill_(0.25);  // what a user's backward left there must stay in the sum
  }
  penalty.add_gradient(weights);
  for (std::size_t i = 0; i < weights.size(); ++i)
    CHECK(relative_error(weights[i].grad() - 0.25, fused[i]) <= 10 * tolerance);

  for (auto& w : weights) w.mutable_grad() = at::Tensor();
  auto loss = penalty.loss(weights);
  CHECK(loss.scalar_type() == (type == at::kDouble ? at::kDouble : at::kFloat));
  CHECK(loss.template item<double>() == Approx(value).epsilon(10 * tolerance));
  (3.0 * loss).backward();
  for (std::size_t i = 0; i < weights.size(); ++i)
    CHECK(relative_error(weights[i].grad() / 3.0, fused[i]) <= tolerance);

  if (type == at::kDouble)
    for (std::size_t i = 1; i < weights.size(); ++i) {
      if (!weights[i].is_contiguous()) continue;
      const auto numeric = finite_differences(
          weights[i].detach(), [&] { return penalty.loss(weights).template item<double>(); });
      CHECK(relative_error(fused[i], numeric) < 1e-7);
    }
}

}  // namespace support
