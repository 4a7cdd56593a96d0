// SPDX-License-Identifier: MIT
// expect: the rollout needs a member episode_start, 1 at the
#include <retain/steps.hpp>

struct rollout {
  at::Tensor observations;
};

at::Tensor ask(const rollout& steps) {
  const auto student = [](const at::Tensor& o, const at::Tensor& state, const at::Tensor&) {
    return std::tuple{o, state};
  };
  return retain::ask(student, steps).logits;
}
