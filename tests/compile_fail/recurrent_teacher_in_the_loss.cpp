// SPDX-License-Identifier: MIT
// expect: call target.rollout. once and store the result as rollout.teacher
#include <retain/kickstarting.hpp>
#include <retain/teacher.hpp>

#include <torch/nn/modules/linear.h>

#include <tuple>

const auto forward = [](torch::nn::Linear& net, const at::Tensor& observations,
                        const at::Tensor& state, const at::Tensor&) {
  return std::tuple{net->forward(observations), state};
};
struct rollout {
  at::Tensor observations, episode_start;
};

at::Tensor loss(retain::kickstarting<retain::teacher<torch::nn::Linear, decltype(forward)>>& keep,
                const rollout& steps) {
  return keep.loss([](const at::Tensor& o) { return o; }, steps);
}
