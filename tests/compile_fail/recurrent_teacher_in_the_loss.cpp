// SPDX-License-Identifier: MIT
// expect: call target.rollout. once and store the result as rollout.teacher
#include <retain/kickstarting.hpp>
#include <retain/teacher.hpp>

#include <torch/nn/modules/linear.h>

#include <utility>

struct step {
  std::pair<at::Tensor, at::Tensor> operator()(torch::nn::Linear& net, const at::Tensor& o,
                                               const at::Tensor& state, const at::Tensor&) const {
    return {net->forward(o), state};
  }
};
struct rollout {
  at::Tensor observations, episode_start;
};

at::Tensor loss(retain::kickstarting<retain::teacher<torch::nn::Linear, step>>& keep,
                const rollout& steps) {
  return keep.loss([](const at::Tensor& o) { return o; }, steps);
}
