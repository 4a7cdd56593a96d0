// SPDX-License-Identifier: MIT
// expect: call target.rollout. once and store the result as rollout.teacher
#include <retain/kickstarting.hpp>

struct recurrent_teacher {
  static constexpr bool recurrent = true;
  retain::categorical step(const at::Tensor& observations, const at::Tensor&) {
    return retain::categorical{observations};
  }
};
struct rollout {
  at::Tensor observations, done;
};

at::Tensor loss(retain::kickstarting<recurrent_teacher>& keep, const rollout& steps) {
  return keep.loss([](const at::Tensor& o) { return o; }, steps);
}
