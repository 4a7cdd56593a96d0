// SPDX-License-Identifier: MIT
// expect: a recurrent state must be a tensor, a range, a tuple, a pair or an aggregate
#include <retain/teacher.hpp>

#include <torch/nn/modules/linear.h>

#include <tuple>

class hidden {
 public:
  at::Tensor kept() const { return kept_; }

 private:
  at::Tensor kept_;
};

auto step(torch::nn::Linear& policy, const at::Tensor& observations, const at::Tensor& start) {
  retain::teacher teacher{
      policy, [](auto& net, const at::Tensor& o, const hidden& state, const at::Tensor&) {
        return std::tuple{net->forward(o), state};
      }};
  return teacher.step(observations, start);
}
